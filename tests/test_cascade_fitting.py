"""How sure a stage must be: what ending early is expected to lose is right by hand and never more than allowed."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from drawn_members import draw_held_out
from stacknorm.pooling.calibrate import Temperature
from stacknorm.pooling.cascade_fitting import (
    Course,
    LossCurve,
    choose_early,
    end_texts,
    end_unseen,
    expected_loss,
    fit_stops,
    tell,
)
from stacknorm.pooling.pool import mean_pool

seeds = st.integers(0, 2**32 - 1)


def draw_courses(seed: int, texts: int = 120) -> dict[str, Course]:
    """Two tasks of three stages: one about texts, one about up to three mentions in each."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 4, size=texts)
    courses = {}
    for task, owners in (("sentiment", np.arange(texts)), ("entity", np.repeat(np.arange(texts), counts))):
        members = draw_held_out(seed, members=3, rows=len(owners), labels=3).members
        courses[task] = Course(tuple(mean_pool(run)(members[:run]) for run in (1, 2, 3)), owners)
    return courses


def lost(course: Course, ended: np.ndarray) -> float:
    """Row by row, by what the whole stack thinks of the label that the row is given."""
    whole, given = course.said[-1], course.answers(ended).argmax(axis=1)
    return float(np.mean([row.max() - row[label] for row, label in zip(whole, given, strict=True)]))


def test_an_early_label_loses_what_the_whole_stack_holds_against_it() -> None:
    early = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [np.nan, np.nan]])
    whole = np.array([[0.6, 0.4], [0.3, 0.7], [np.nan, np.nan], [0.5, 0.5]])
    assert expected_loss(early, whole).tolist() == pytest.approx([0, 0.4, np.inf, np.inf])


def test_if_the_whole_stack_is_calibrated_the_expected_loss_is_the_loss_counted_in_labels() -> None:
    random = np.random.default_rng(0)
    whole = random.dirichlet(np.full(3, 0.5), size=200_000)
    truth = (random.random((len(whole), 1)) > whole.cumsum(axis=1)).sum(axis=1)
    early = random.dirichlet(np.full(3, 0.5), size=len(whole)) + whole
    counted = (whole.argmax(axis=1) == truth).mean() - (early.argmax(axis=1) == truth).mean()
    assert expected_loss(early, whole).mean() == pytest.approx(counted, abs=0.003)


def test_a_curve_of_losses_is_found_again_from_losses_drawn_by_it() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.35, 0.999, size=50_000)
    wrong = random.random(len(confidence)) < expit(-1.5 - 1.2 * logit(confidence))
    curve = LossCurve.fit(confidence, wrong.astype(np.float64))
    assert (curve.intercept, curve.slope) == pytest.approx((-1.5, -1.2), abs=0.06)
    assert curve.stop(0.01) == pytest.approx(expit((logit(0.01) + 1.5) / -1.2), abs=0.01)


def test_a_curve_solves_the_equations_of_the_fractional_logit() -> None:
    """At the maximum the scores vanish: residuals sum to nothing, alone and times the regressor."""
    random = np.random.default_rng(1)
    confidence, loss = random.uniform(0.4, 0.99, size=400), random.random(400) ** 4
    curve = LossCurve.fit(confidence, loss)
    residual = loss - expit(curve.intercept + curve.slope * logit(confidence))
    assert residual.mean() == pytest.approx(0, abs=1e-3)
    assert (residual * logit(confidence)).mean() == pytest.approx(0, abs=5e-3)


@given(st.floats(-8, 2), st.floats(-4, -0.1), st.floats(1e-6, 0.5))
def test_a_stop_loses_what_it_may_and_a_lower_one_more(intercept: float, slope: float, limit: float) -> None:
    stop = LossCurve(intercept, slope).stop(limit)
    if 1e-9 < stop < 1 - 1e-9:
        assert expit(intercept + slope * logit(stop)) == pytest.approx(limit, rel=1e-4)
    assert LossCurve(intercept, slope).stop(limit / 2) >= stop


def test_where_nothing_is_lost_everything_stops_and_where_confidence_means_nothing_all_or_none() -> None:
    confidence = np.array([0.5, 0.7, 0.9])
    assert LossCurve.fit(confidence, np.zeros(3)).stop(0.001) == 0
    assert LossCurve.fit(np.full(3, np.nan), np.full(3, np.inf)).stop(0.5) == 1
    assert LossCurve(-3, 0.5).stop(0.01) == 1
    assert LossCurve(-3, 0.5).stop(0.5) == 0


@given(seeds, st.sampled_from([0.0, 0.005, 0.05]))
@settings(deadline=None, max_examples=30)
def test_all_stages_together_lose_no_task_more_than_allowed(seed: int, max_loss: float) -> None:
    courses = draw_courses(seed)
    ended = end_texts(courses, fit_stops(courses, 120, max_loss, (2, 1)), 120)
    assert all(lost(course, ended) <= max_loss + 1e-12 for course in courses.values())


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_who_may_lose_more_ends_earlier(seed: int) -> None:
    courses = draw_courses(seed)
    strict, loose = (end_texts(courses, fit_stops(courses, 120, loss, (2, 1)), 120) for loss in (0.002, 0.05))
    assert (loose <= strict).all()


def test_a_text_ends_where_all_its_rows_are_sure_and_one_without_rows_at_once() -> None:
    sure, unsure, whole = [0.9, 0.1], [0.6, 0.4], [0.5, 0.5]
    texts = Course((np.array([sure, sure, sure]), np.array([whole] * 3)), np.arange(3))
    mentions = Course((np.array([sure, sure, unsure]), np.array([whole] * 3)), np.array([0, 1, 1]))
    courses = {"texts": texts, "mentions": mentions}
    assert end_texts(courses, {"texts": (0.8,), "mentions": (0.8,)}, 3).tolist() == [0, 1, 0]


def test_a_stage_that_cannot_answer_a_row_does_not_end_its_text() -> None:
    deaf = Course((np.full((2, 2), np.nan), np.array([[0.9, 0.1]] * 2)), np.arange(2))
    stops = fit_stops({"task": deaf}, 2, 0.5, (1,))
    assert end_texts({"task": deaf}, stops, 2).tolist() == [1, 1]


def test_unseen_ends_depend_on_no_text_they_judge() -> None:
    courses = draw_courses(4)
    prints = np.random.default_rng(1).permutation(120)
    ended = end_unseen(courses, prints, 0.02, (2, 1))

    def with_certain(text: int) -> Mapping[str, Course]:
        """The same, but the early stages are certain of one text and quite wrong."""
        said = [given.copy() for given in courses["sentiment"].said]
        said[-1][text] = [1, 0, 0]
        return dict(courses) | {"sentiment": Course((*said[:2], said[-1]), np.arange(120))}

    assert [end_unseen(with_certain(text), prints, 0.02, (2, 1))[text] for text in range(10)] == ended[:10].tolist()


def test_what_a_stage_says_is_its_pool_and_calibrator_where_all_its_members_spoke() -> None:
    members = draw_held_out(0, members=2, rows=3, labels=3).members.copy()
    members[1, 2] = np.nan
    said = tell(mean_pool(2), Temperature(temperature=1.0), members)
    assert said[:2] == pytest.approx(members[:, :2].mean(axis=0))
    assert np.isnan(said[2]).all()


def test_an_early_stage_is_chosen_over_the_members_it_has() -> None:
    held_out = draw_held_out(3, members=3, rows=200, labels=3)
    chosen = choose_early(held_out, [0, 2])
    assert len(chosen.pool.weights) == 2
    assert chosen.probabilities.shape == (200, 3)
