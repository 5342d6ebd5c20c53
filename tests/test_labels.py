import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.errors import LabelError
from stacknorm.labels import SENTIMENT, TOPIC, known_labels, label_space


@pytest.mark.parametrize("name", ["bearish", "Bear", "neg", "NEGATIVE", "-1", "negative"])
def test_every_name_of_negative_means_negative(name: str) -> None:
    assert SENTIMENT.canonical(name) == "negative"


@pytest.mark.parametrize("name", ["LABEL_0", "label 2", "0", "1", "17"])
def test_a_label_that_says_nothing_is_refused_until_a_map_explains_it(name: str) -> None:
    with pytest.raises(LabelError, match="explicit map"):
        SENTIMENT.canonical(name)
    mapping = SENTIMENT.matrix([name, "bull"], {name: "bear"})
    assert mapping.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_an_unknown_label_is_named_with_the_labels_there_are() -> None:
    with pytest.raises(LabelError, match="'angry' is not one of sentiment: negative, neutral, positive"):
        SENTIMENT.canonical("angry")


@given(st.permutations(SENTIMENT.labels), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_members_label_order_is_put_back_into_the_order_of_the_space(order: list[str], values: list[float]) -> None:
    member = np.array([values])
    placed = member @ SENTIMENT.matrix(order)
    assert [placed[0, SENTIMENT.index(label)] for label in order] == pytest.approx(values)


@pytest.mark.parametrize(
    "grades",
    [
        ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        ["Very Negative", "Negative", "Neutral", "Positive", "Very Positive"],
        ["very_bearish", "bearish", "neutral", "bullish", "very_bullish"],
    ],
)
def test_five_grades_fall_onto_three_labels_in_whatever_order_they_come(grades: list[str]) -> None:
    member = np.array([[0.1, 0.2, 0.3, 0.15, 0.25]])
    assert (member @ SENTIMENT.matrix(grades)).tolist() == [pytest.approx([0.3, 0.3, 0.4])]
    assert SENTIMENT.read_order(grades[::-1]) == SENTIMENT.read_order(grades)[::-1]


def test_a_part_of_a_scale_says_nothing_for_its_grades_mean_something_only_together() -> None:
    with pytest.raises(LabelError, match="'2 stars' is not one of sentiment"):
        SENTIMENT.matrix(["1 star", "2 stars", "3 stars"][1:])


def test_an_explicit_map_comes_before_a_scale() -> None:
    grades = ["very negative", "negative", "neutral", "positive", "very positive"]
    assert SENTIMENT.read_order(grades, {"negative": "neutral"})[1] == "neutral"


def test_a_scale_counts_only_where_a_task_has_all_labels_it_falls_on() -> None:
    with pytest.raises(LabelError, match="'1 star' is not one of sentiment: negative, positive"):
        label_space("sentiment", ["negative", "positive"]).matrix(
            ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
        )


def test_a_lacking_label_gets_a_column_of_zeros() -> None:
    assert SENTIMENT.matrix(["bullish", "bearish"]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_labels_of_a_known_task_need_not_be_named() -> None:
    assert known_labels("sentiment") == ("negative", "neutral", "positive")
    with pytest.raises(LabelError, match="the labels of task 'mood' must be named"):
        known_labels("mood")


def test_topics_are_known_with_and_without_capitals_and_ampersand() -> None:
    assert TOPIC.canonical("m and a and investments".replace("m and a", "m&a")) == "M&A and Investments"
    assert TOPIC.index("Analyst Update") == 0
    assert TOPIC.index("stock movement") == 19
    assert len(TOPIC.labels) == 20


@pytest.mark.parametrize("labels", [["only"], ["twice", "twice"]])
def test_a_space_needs_two_different_labels(labels: list[str]) -> None:
    with pytest.raises(LabelError, match="at least two different labels"):
        label_space("mood", labels)


def test_a_map_for_labels_the_member_lacks_and_a_repeated_label_are_refused() -> None:
    with pytest.raises(LabelError, match="labels the member does not have"):
        SENTIMENT.matrix(["bear", "bull"], {"LABEL_0": "neutral"})
    with pytest.raises(LabelError, match="repeats"):
        SENTIMENT.matrix(["bear", "bear"])
