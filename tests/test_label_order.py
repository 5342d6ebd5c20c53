from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacknorm.errors import LabelError
from stacknorm.label_order import LEAST_ROWS, infer_map
from stacknorm.labels import SENTIMENT, TOPIC, LabelSpace
from stacknorm.pooling.pool import Probabilities

seeds = st.integers(0, 2**32 - 1)
FIVE = ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4")


def draw(
    meanings: list[int], space: LabelSpace, skill: float, rows: int = 400, seed: int = 0
) -> tuple[Probabilities, np.ndarray]:
    """A head whose labels have these meanings, and its say on rows of which most have the second label."""
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.repeat(np.arange(len(space.labels)), LEAST_ROWS), np.ones(rows, dtype=int)])
    fits = np.array(meanings)[None, :] == truth[:, None]
    logits = random.normal(size=(len(truth), len(meanings))) + skill * fits
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), truth


@settings(max_examples=30)
@given(st.permutations([0, 1, 2]), seeds)
def test_the_order_of_a_head_is_found_whatever_it_is(order: list[int], seed: int) -> None:
    probabilities, truth = draw(order, SENTIMENT, skill=4, seed=seed)
    found = infer_map(probabilities, truth, FIVE[:3], SENTIMENT)
    assert [SENTIMENT.labels.index(found.map[label]) for label in FIVE[:3]] == order
    assert found.confidence > 0.95
    assert found.accuracy > found.runner_up_accuracy
    assert found.runner_up != found.map


@settings(max_examples=30)
@given(seeds)
def test_the_map_and_its_runner_up_are_the_best_two_of_all_assignments(seed: int) -> None:
    probabilities, truth = draw([2, 0, 1], SENTIMENT, skill=3, seed=seed)

    def likelihood(order: tuple[int, ...]) -> float:
        logs = np.log(probabilities.clip(min=1e-3))
        return float(sum(logs[truth == meant, own].mean() for own, meant in enumerate(order)))

    ranked = sorted(permutations(range(3)), key=likelihood, reverse=True)
    found = infer_map(probabilities, truth, FIVE[:3], SENTIMENT)
    named = [{own: SENTIMENT.labels[meant] for own, meant in zip(FIVE[:3], order, strict=True)} for order in ranked]
    assert [found.map, found.runner_up] == named[:2]


def test_twenty_labels_are_told_apart() -> None:
    order = np.random.default_rng(5).permutation(20).tolist()
    names = [f"LABEL_{n}" for n in range(20)]
    probabilities, truth = draw(order, TOPIC, skill=5)
    found = infer_map(probabilities, truth, names, TOPIC)
    assert [TOPIC.labels.index(found.map[name]) for name in names] == order


def test_five_labels_are_read_as_three() -> None:
    probabilities, truth = draw([2, 0, 1, 2, 0], SENTIMENT, skill=4)
    found = infer_map(probabilities, truth, FIVE, SENTIMENT)
    assert list(found.map.values()) == ["positive", "negative", "neutral", "positive", "negative"]


def test_a_head_without_a_label_of_the_space_is_read_too() -> None:
    probabilities, truth = draw([2, 0], SENTIMENT, skill=4)
    assert infer_map(probabilities, truth, FIVE[:2], SENTIMENT).map == {"LABEL_0": "positive", "LABEL_1": "negative"}


def test_the_warning_says_what_was_inferred_how_surely_and_what_else_it_might_be() -> None:
    probabilities, truth = draw([2, 0, 1], SENTIMENT, skill=4)
    found = infer_map(probabilities, truth, FIVE[:3], SENTIMENT)
    assert found.warning.startswith(
        "inferred from 430 labelled rows, not declared by the model: "
        "LABEL_0 = positive, LABEL_1 = negative, LABEL_2 = neutral (balanced accuracy 1.00"
    )
    assert "second best: LABEL_0 = " in found.warning
    assert found.warning.endswith("Check it against the model's card")


def test_too_few_rows_of_a_label_are_refused() -> None:
    probabilities, truth = draw([2, 0, 1], SENTIMENT, skill=4)
    with pytest.raises(LabelError, match="cannot be inferred: 9 rows are negative, 10 are needed"):
        infer_map(probabilities[1:], truth[1:], FIVE[:3], SENTIMENT)


@pytest.mark.parametrize("seed", range(5))
def test_a_head_that_knows_nothing_of_the_labels_is_refused(seed: int) -> None:
    probabilities, truth = draw([2, 0, 1], SENTIMENT, skill=0, seed=seed)
    with pytest.raises(LabelError, match="cannot be told apart"):
        infer_map(probabilities, truth, FIVE[:3], SENTIMENT)


def test_two_labels_of_which_the_rows_say_the_same_are_told_apart_at_most_by_rare_luck() -> None:
    probabilities, truth = draw([0, 1, 2], SENTIMENT, skill=4)
    polar = probabilities[:, [0, 2]].mean(axis=1)
    refused = 0
    for seed in range(20):
        shift = polar * np.random.default_rng(seed).uniform(-0.01, 0.01, size=len(truth))
        blurred = np.stack([polar + shift, probabilities[:, 1], polar - shift], axis=1)
        try:
            infer_map(blurred, truth, FIVE[:3], SENTIMENT)
        except LabelError:
            refused += 1
    assert refused >= 18
