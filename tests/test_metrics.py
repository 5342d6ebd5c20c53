import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss

from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import Bootstrap
from stacknorm.evaluation.classes import confuse, ece_if_calibrated, reliability, risk_coverage, score_classes
from stacknorm.evaluation.metrics import METRICS, aurc, brier, classwise_ece, ece, risk_at, score
from stacknorm.evaluation.paired import compare_answers, mcnemar

seeds = st.integers(0, 2**32 - 1)
LABELS = ("a", "b", "c", "d")


def draw(seed: int, rows: int = 200, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(labels), size=rows)
    truth = (probabilities.cumsum(axis=1) > random.uniform(size=(rows, 1))).argmax(axis=1)
    return probabilities, truth


def answers(seed: int, rows: int = 200) -> Answers:
    probabilities, truth = draw(seed, rows)
    return Answers(LABELS, probabilities, truth, np.arange(rows))


def once(truth: np.ndarray) -> np.ndarray:
    return np.ones((1, len(truth)))


@given(seeds)
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, truth = draw(seed)
    guess, labels = probabilities.argmax(axis=1), np.unique(truth)
    assert METRICS["accuracy"](probabilities, truth, once(truth)) == pytest.approx(accuracy_score(truth, guess))
    expected = f1_score(truth, guess, labels=labels, average="macro", zero_division=0)
    assert METRICS["macro_f1"](probabilities, truth, once(truth)) == pytest.approx(expected)
    loss = log_loss(truth, probabilities, labels=range(4))
    assert METRICS["nll"](probabilities, truth, once(truth)) == pytest.approx(loss)
    squared = brier_score_loss(truth, probabilities, labels=range(4), scale_by_half=False)
    assert brier(probabilities, truth, once(truth)) == pytest.approx(squared)


@given(seeds)
def test_calibration_errors_are_those_of_scikit_learn_bins(seed: int) -> None:
    probabilities, truth = draw(seed)

    def gap(said: np.ndarray, was: np.ndarray) -> float:
        came, told = calibration_curve(was, said, n_bins=15)
        filled = np.unique(np.clip(np.digitize(said, np.linspace(0, 1, 16)) - 1, 0, 14), return_counts=True)[1]
        return float((np.abs(came - told) * filled).sum() / len(said))

    top = gap(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)
    assert ece(probabilities, truth, once(truth)) == pytest.approx(top)
    each = np.mean([gap(probabilities[:, c], truth == c) for c in range(4)])
    assert classwise_ece(probabilities, truth, once(truth)) == pytest.approx(each)


@given(seeds)
def test_the_area_under_the_risk_coverage_curve_is_the_mean_risk_over_all_thresholds(seed: int) -> None:
    probabilities, truth = draw(seed, rows=40)
    probabilities = probabilities.round(1)  # many rows of one confidence
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != truth
    by_hand = np.mean([wrong[confidence >= confidence[row]].mean() for row in range(40)])
    assert aurc(probabilities, truth, once(truth)) == pytest.approx(by_hand)


def test_the_risk_at_a_coverage_is_the_error_of_the_rows_kept() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truth = np.array([0, 1, 0, 1])
    for coverage, risk in ((0.25, 0), (0.5, 1 / 2), (0.75, 1 / 3), (1.0, 2 / 4)):
        assert risk_at(probabilities, truth, coverage, once(truth)) == pytest.approx(risk)


@given(seeds)
def test_a_bootstrap_sample_scores_what_its_drawn_rows_score(seed: int) -> None:
    probabilities, truth = draw(seed, rows=50)
    drawn = np.random.default_rng(seed).integers(50, size=50)
    counts = np.bincount(drawn, minlength=50).astype(float)[None]
    for name, metric in METRICS.items():
        if name != "macro_f1":  # it averages over the labels of all rows, drawn or not
            assert metric(probabilities, truth, counts) == pytest.approx(
                metric(probabilities[drawn], truth[drawn], once(truth))
            ), name


def test_true_probabilities_are_calibrated_and_boastful_ones_are_not() -> None:
    probabilities, truth = draw(1, rows=20_000)
    assert ece(probabilities, truth, once(truth)) < 0.015
    assert classwise_ece(probabilities, truth, once(truth)) < 0.015
    boastful = np.eye(4)[probabilities.argmax(axis=1)] * 0.96 + 0.01
    assert ece(boastful, truth, once(truth)) > 0.2


def test_the_brier_score_of_certainty_is_zero_when_right_and_two_when_wrong() -> None:
    certain = np.array([[1.0, 0.0]])
    assert brier(certain, np.array([0]), np.ones((1, 1))) == 0
    assert brier(certain, np.array([1]), np.ones((1, 1))) == 2


@given(seeds)
def test_an_interval_holds_its_value(seed: int) -> None:
    probabilities, truth = draw(seed)
    for name, found in score(probabilities, truth).items():
        if "ece" not in name:  # resampling adds noise to every bin, so its interval lies above the value
            assert found.low <= found.value <= found.high, name


def test_an_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    probabilities, truth = draw(3, rows=60_000)
    real = float((probabilities.argmax(axis=1) == truth).mean())
    parts = [slice(start, start + 300) for start in range(0, 60_000, 300)]
    rows = Bootstrap.of_rows(300)
    found = [rows.interval(partial(METRICS["accuracy"], probabilities[part], truth[part])) for part in parts]
    covered = sum(one.low <= real <= one.high for one in found)
    assert binom.cdf(covered, len(found), 0.95) > 1e-3
    assert covered < len(found)


def test_rows_of_one_document_are_drawn_together() -> None:
    documents = np.array([7, 7, 3, 9, 9, 9])
    for block in Bootstrap(documents, resamples=50).blocks():
        assert (block[:, 0] == block[:, 1]).all()
        assert (block[:, 3] == block[:, 5]).all()
        assert (block[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_an_interval_over_copies_in_one_document_is_as_wide_as_over_the_documents() -> None:
    probabilities, truth = draw(4)
    alone = score(probabilities, truth)["accuracy"]
    tripled = Bootstrap(np.repeat(np.arange(200), 3))
    copies = score(probabilities.repeat(3, axis=0), truth.repeat(3), tripled)["accuracy"]
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))


def test_resamples_do_not_depend_on_how_many_are_held_at_a_time() -> None:
    rows = np.arange(40)
    (whole,) = Bootstrap(rows, resamples=30).blocks()
    parts = list(Bootstrap(rows, resamples=30, block_counts=300).blocks())
    assert [part.shape for part in parts] == [(7, 40)] * 4 + [(2, 40)]
    assert (whole == np.concatenate(parts)).all()


def test_the_class_table_and_the_confusions_count_by_hand() -> None:
    truth, guess = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    found = Answers(("a", "b", "c"), np.eye(3)[guess], truth, np.arange(4))
    assert confuse(found) == ((1, 1, 0), (0, 1, 0), (0, 1, 0))
    first, second, third = score_classes(found)
    assert (first.precision, first.recall, first.f1, first.rows, first.given) == (1, 0.5, pytest.approx(2 / 3), 2, 1)
    assert (second.precision, second.recall, second.rows, second.given) == (pytest.approx(1 / 3), 1, 1, 3)
    assert (third.precision, third.recall, third.f1, third.given) == (0, 0, 0, 0)


@given(seeds)
def test_bins_hold_every_row_once_and_add_up_to_the_calibration_error(seed: int) -> None:
    found = answers(seed)
    bins = reliability(found)
    assert sum(one.rows for one in bins) == 200
    total = sum(one.rows * abs(one.accuracy.value - one.confidence) for one in bins) / 200
    assert total == pytest.approx(ece(found.probabilities, found.truth, once(found.truth))[0])
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in bins)
    assert all(one.accuracy.low <= one.accuracy.value <= one.accuracy.high for one in bins)


def test_a_calibrated_system_shows_the_calibration_error_that_chance_alone_gives() -> None:
    probabilities, truth = draw(5, rows=2_000)
    found = Answers(LABELS, probabilities, truth, np.arange(2_000))
    chance = ece_if_calibrated(found)
    assert chance.low < chance.value < chance.high
    assert ece(probabilities, truth, once(truth))[0] < chance.high + 0.01
    boastful = found.by(np.eye(4)[found.guess] * 0.96 + 0.01)
    assert ece(boastful.probabilities, truth, once(truth))[0] > 10 * ece_if_calibrated(boastful).high


def test_the_risk_coverage_curve_ends_at_the_error_rate_of_all_rows() -> None:
    found = answers(6)
    curve = risk_coverage(found)
    assert [point.coverage for point in curve] == pytest.approx(np.arange(1, 21) / 20)
    assert curve[-1].risk.value == pytest.approx(float((~found.right).mean()))
    assert curve[-1].confidence == pytest.approx(found.confidence.min())
    half = found.confidence >= curve[9].confidence
    assert curve[9].risk.value == pytest.approx(float((~found.right)[half].mean()), abs=1e-5)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    one_sided = sum(math.comb(12, k) for k in range(3)) / 2**12
    assert mcnemar(2, 10) == pytest.approx(2 * one_sided)
    assert mcnemar(10, 2) == mcnemar(2, 10)


def test_a_small_steady_gain_in_likelihood_is_found_and_no_gain_against_itself() -> None:
    found = answers(2)
    better = found.by(found.probabilities * 0.9 + 0.1 * np.eye(4)[found.truth])
    gain = compare_answers(better, found)
    assert gain.nll.high < 0
    assert gain.verdict == "better"
    assert compare_answers(found, better).verdict == "worse"
    same = compare_answers(found, found)
    assert (same.nll.low, same.nll.value, same.nll.high) == (0, 0, 0)
    assert (same.accuracy.low, same.accuracy.high, same.mcnemar_p) == (0, 0, 1)
    assert same.verdict == "undecided"


@given(seeds)
def test_the_difference_one_way_is_the_difference_the_other_way_turned_round(seed: int) -> None:
    one, other = answers(seed), answers(seed).by(draw(seed + 1)[0])
    there, back = compare_answers(one, other), compare_answers(other, one)
    assert there.accuracy.value == pytest.approx(-back.accuracy.value)
    assert there.nll.low == pytest.approx(-back.nll.high, abs=1e-4)
    assert there.mcnemar_p == back.mcnemar_p
    assert {"better": "worse", "worse": "better"}.get(there.verdict, there.verdict) == back.verdict
    gain = (there.only_ours_right - there.only_theirs_right) / 200
    assert there.accuracy.value == pytest.approx(gain, abs=1e-5)


def test_more_right_rows_outweigh_a_better_likelihood() -> None:
    truth = np.zeros(100, dtype=np.int64)
    right = np.tile([0.51, 0.49], (100, 1))
    bold = np.tile([0.99, 0.01], (100, 1))
    bold[:20] = [0.49, 0.51]
    found = compare_answers(
        Answers(("a", "b"), bold, truth, np.arange(100)), Answers(("a", "b"), right, truth, np.arange(100))
    )
    assert found.nll.high < 0
    assert (found.only_ours_right, found.only_theirs_right, found.verdict) == (0, 20, "worse")


def test_answers_to_different_rows_are_not_compared() -> None:
    with pytest.raises(DataError, match="same rows and labels"):
        compare_answers(answers(1), answers(2))
    with pytest.raises(DataError, match="do not belong together"):
        Answers(LABELS, np.ones((3, 4)), np.zeros(2, dtype=np.int64), np.arange(2))
