import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from drawn_members import draw_distributions, draw_truth
from stacknorm.pooling.conformal import (
    ClassConditional,
    SetMeasures,
    fit_class_conditional,
    measure_sets,
    measure_sets_by_label,
)
from stacknorm.pooling.pool import softmax

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_every_label_is_covered_as_often_as_promised_and_hardly_more(alpha: float) -> None:
    trials, rows = 1500, 120
    hits, tried = np.zeros(3), np.zeros(3)
    fewest = rows
    for trial in range(trials):
        said = np.random.default_rng(trial).dirichlet((4, 2, 1.5), size=rows + 1)
        truth = draw_truth(said**1.5 / (said**1.5).sum(axis=1, keepdims=True), trial)  # it is not even calibrated
        sets = fit_class_conditional(said[:-1], truth[:-1], alpha)(said[-1:])
        tried[truth[-1]] += 1
        hits[truth[-1]] += sets[0, truth[-1]]
        fewest = min(fewest, int(np.bincount(truth[:-1], minlength=3).min()))
    promised, most = 1 - alpha, min(1, 1 - alpha + 1 / (fewest + 1))
    for hit, count in zip(hits, tried, strict=True):
        assert binom.ppf(1e-4, count, promised) <= hit <= binom.ppf(1 - 1e-4, count, most)


def test_a_marginal_promise_is_kept_for_the_rare_label_too() -> None:
    random = np.random.default_rng(1)
    truth = (random.uniform(size=4000) < 0.05).astype(np.int64)
    shares = np.clip(random.normal(np.where(truth == 1, 0.35, 0.1), 0.1), 0.001, 0.999)  # the rare label is underrated
    said = np.stack([1 - shares, shares], axis=1)
    sets = fit_class_conditional(said[:2000], truth[:2000], 0.1)(said[2000:])
    by_label = measure_sets_by_label(sets, truth[2000:])
    assert by_label[1].rows < 150
    assert by_label[0].coverage == pytest.approx(0.9, abs=0.03)
    assert by_label[1].coverage == pytest.approx(0.9, abs=0.1)


def test_thresholds_are_the_quantile_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    said = np.stack([1 - scores, scores], axis=1)
    truth = np.zeros(9, dtype=np.int64)
    assert 10 * (1 - 0.7) > 3  # in floating point: the rank is whole, and must not be rounded up
    for alpha, threshold in ((0.1, 0.9), (0.2, 0.8), (0.25, 0.8), (0.5, 0.5), (0.7, 0.3), (0.9, 0.1), (0.05, 1.0)):
        fitted = fit_class_conditional(said, truth, alpha)
        assert fitted.thresholds[0] == pytest.approx(threshold)
        assert fitted(said)[:, 0].sum() == round(min(threshold, 0.9) * 10)


def test_where_all_rows_are_too_few_no_label_is_ever_ruled_out() -> None:
    said = np.tile([0.0, 1.0], (8, 1))
    fitted = fit_class_conditional(said, np.ones(8, dtype=np.int64), 0.1)
    assert (fitted.thresholds, fitted.shared) == ((1.0, 1.0), (0, 1))
    assert fitted(said).all()


def test_a_label_with_too_few_rows_shares_its_promise_with_the_next_rarest() -> None:
    truth = np.repeat([0, 1, 2, 3], [4, 3, 20, 400])
    scores = np.concatenate([np.full(4, 0.3), np.full(3, 0.2), np.linspace(0.4, 0.59, 20), np.full(400, 0.01)])
    said = np.zeros((427, 4))
    said[np.arange(427), truth] = 1 - scores
    fitted = fit_class_conditional(said, truth, 0.1)
    assert fitted.shared == (0, 1)
    rank_of_27, rank_of_20 = np.sort(scores[:27])[25], np.sort(scores[7:27])[18]  # ceil(28 * 0.9), ceil(21 * 0.9)
    assert fitted.thresholds == pytest.approx((rank_of_27, rank_of_27, rank_of_20, 0.01))
    assert fit_class_conditional(said, truth, 0.3).shared == ()  # three rows are enough for that


def test_labels_that_share_a_promise_keep_it_together() -> None:
    random = np.random.default_rng(2)
    rare = np.array([0.003] * 6)
    prior = np.append(rare, (1 - rare.sum()) / 2 * np.ones(2))
    hits = tried = abstained = 0
    for _ in range(300):
        truth = random.choice(8, size=1200, p=prior)
        said = softmax(random.normal(size=(1200, 8)) + 3 * np.eye(8)[truth])
        sets = fit_class_conditional(said[:600], truth[:600], 0.1)(said[600:])
        is_rare = truth[600:] < 6
        hits += sets[np.arange(600), truth[600:]][is_rare].sum()
        tried += is_rare.sum()
        abstained += (sets.sum(axis=1) != 1).mean()
    assert hits / tried > 0.88
    assert abstained / 300 < 0.5


@given(seeds)
def test_a_smaller_risk_gives_larger_sets(seed: int) -> None:
    said = draw_distributions(seed, 60, 3)
    truth = draw_truth(said, seed)
    careful, bold = (fit_class_conditional(said, truth, alpha)(said) for alpha in (0.05, 0.3))
    assert (careful >= bold).all()


@given(seeds, st.permutations(range(40)))
def test_the_order_of_rows_does_not_matter(seed: int, order: list[int]) -> None:
    said = draw_distributions(seed, 40, 3)
    truth = draw_truth(said, seed)
    assert fit_class_conditional(said, truth, 0.1) == fit_class_conditional(said[order], truth[order], 0.1)


def test_sets_are_measured_as_by_hand() -> None:
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.bool_)
    truth = np.array([0, 1, 1, 2, 0])
    assert measure_sets(sets, truth) == SetMeasures(
        rows=5, coverage=0.6, mean_size=1.0, abstention_rate=0.4, accuracy_kept=pytest.approx(2 / 3)
    )
    assert measure_sets_by_label(sets, truth) == {
        0: SetMeasures(rows=2, coverage=1.0, mean_size=1.0, abstention_rate=0.0, accuracy_kept=1.0),
        1: SetMeasures(rows=2, coverage=0.5, mean_size=1.0, abstention_rate=1.0, accuracy_kept=None),
        2: SetMeasures(rows=1, coverage=0.0, mean_size=1.0, abstention_rate=0.0, accuracy_kept=0.0),
    }


def test_sets_are_read_from_a_file_as_they_were_written_and_thresholds_are_scores() -> None:
    fitted = ClassConditional(alpha=0.1, thresholds=(0.25, 1.0))
    assert ClassConditional.model_validate_json(fitted.model_dump_json()) == fitted
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ClassConditional(alpha=0.1, thresholds=(0.25, 1.5))
