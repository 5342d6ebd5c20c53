import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import betaln, expit
from sklearn.linear_model import LogisticRegression

from drawn_members import draw_distributions, draw_held_out, draw_members, draw_truth, hold_out_members
from stacknorm.errors import DataError
from stacknorm.pooling.calibrate import (
    BetaCalibration,
    Identity,
    IsotonicCalibration,
    Temperature,
    VectorScaling,
    apply_member_temperatures,
    apply_temperature,
)
from stacknorm.pooling.calibrator_fitting import CALIBRATORS, fit_calibrator, fit_member_temperatures
from stacknorm.pooling.held_out import HeldOut, Truth, nll
from stacknorm.pooling.pool import Probabilities, mean_pool

seeds = st.integers(0, 2**32 - 1)
fitting = settings(max_examples=15)


def hold_out_pooled(pooled: Probabilities, truth: Truth) -> HeldOut:
    """A stack of one, so that its mean is `pooled`."""
    return hold_out_members(pooled[None], truth)


def pool_adjacent_violators(values: np.ndarray) -> list[float]:
    """Isotonic regression by hand: merge neighbours that fall, again and again."""
    blocks = [(float(value), 1) for value in values]
    at = 0
    while at + 1 < len(blocks):
        (low, few), (high, many) = blocks[at], blocks[at + 1]
        if low <= high:
            at += 1
            continue
        blocks[at : at + 2] = [((low * few + high * many) / (few + many), few + many)]
        at = max(at - 1, 0)
    return [value for value, count in blocks for _ in range(count)]


@pytest.mark.parametrize("name", CALIBRATORS)
@fitting
@given(seed=seeds, labels=st.integers(2, 4), sharpness=st.floats(0.2, 6))
def test_a_fitted_calibrator_gives_distributions_and_does_no_harm_on_its_rows(
    name: str, seed: int, labels: int, sharpness: float
) -> None:
    held_out = draw_held_out(seed, 2, 1000, labels, sharpness)
    pooled = mean_pool(2)(held_out.members)
    calibrated = fit_calibrator(name, held_out, mean_pool(2))(pooled)
    assert calibrated.sum(axis=1) == pytest.approx(1)
    assert (calibrated > 0).all()
    # One curve for each label is not one likelihood: renormalising more than two labels can cost a little.
    allowed = 0.01 if name in {"beta", "isotonic"} and labels > 2 else 1e-6
    assert nll(calibrated, held_out.truth) <= nll(pooled, held_out.truth) + allowed


@pytest.mark.parametrize("name", ["temperature", "vector", "beta", "isotonic"])
def test_overconfidence_is_mended_on_rows_that_were_not_fitted_on(name: str) -> None:
    true = draw_distributions(5, 8000, 3)
    truth, said = draw_truth(true, seed=1), apply_temperature(true, 0.4)
    calibrator = fit_calibrator(name, hold_out_pooled(said[:4000], truth[:4000]), mean_pool(1))
    mended = nll(calibrator(said[4000:]), truth[4000:])
    assert mended < nll(said[4000:], truth[4000:]) - 0.1
    assert mended < nll(true[4000:], truth[4000:]) + 0.03


def test_vector_scaling_of_two_labels_is_the_logistic_regression_of_scikit_learn() -> None:
    members, truth = draw_members(2, 1, 20_000, 2, sharpness=2)
    logs = np.log(members[0])
    expected = LogisticRegression(C=np.inf, max_iter=999).fit(logs, truth).predict_proba(logs)
    fitted = fit_calibrator("vector", hold_out_members(members, truth), mean_pool(1))
    assert isinstance(fitted, VectorScaling)
    assert np.abs(fitted(members[0]) - expected).max() < 2e-3


def test_vector_scaling_finds_the_scales_and_biases_that_made_the_truth() -> None:
    pooled = draw_distributions(4, 40_000, 3)
    maker = VectorScaling(scales=(0.7, 1.5, 1.0), biases=(0.5, 0.0, -0.5))
    truth = draw_truth(maker(pooled), seed=2)
    fitted = fit_calibrator("vector", hold_out_pooled(pooled, truth), mean_pool(1))
    assert isinstance(fitted, VectorScaling)
    assert fitted.scales == pytest.approx(maker.scales, abs=0.06)
    assert np.subtract(fitted.biases, fitted.biases[1]) == pytest.approx(maker.biases, abs=0.06)


def test_beta_calibration_is_the_logistic_regression_of_scikit_learn_where_no_coefficient_is_negative() -> None:
    members, truth = draw_members(3, 1, 20_000, 2, sharpness=0.5)
    shares = members[0, :, 1]
    inputs = np.stack([np.log(shares), -np.log(1 - shares)], axis=1)
    model = LogisticRegression(C=np.inf, max_iter=9999, tol=1e-8).fit(inputs, truth)
    assert model.coef_.min() > 0
    fitted = fit_calibrator("beta", hold_out_members(members, truth), mean_pool(1))
    assert np.abs(fitted(members[0])[:, 1] - model.predict_proba(inputs)[:, 1]).max() < 2e-3


def test_beta_calibration_finds_the_curve_that_beta_distributed_scores_have() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat([0, 1], 20_000)
    of_label = ((1.5, 4.0), (3.0, 2.0))  # parameters of the scores of each label
    shares = np.concatenate([random.beta(*parameters, size=20_000) for parameters in of_label])
    fitted = fit_calibrator("beta", hold_out_pooled(np.stack([1 - shares, shares], axis=1), truth), mean_pool(1))
    assert isinstance(fitted, BetaCalibration)
    curve = fitted.curves[1]
    assert (curve.a, curve.b) == pytest.approx((3.0 - 1.5, 4.0 - 2.0), abs=0.08)  # Kull et al. 2017, section 3
    assert curve.c == pytest.approx(betaln(1.5, 4.0) - betaln(3.0, 2.0), abs=0.08)


def test_a_beta_curve_never_turns_the_order_around() -> None:
    pooled = draw_distributions(1, 500, 2)
    wrong = pooled.argmin(axis=1)
    fitted = fit_calibrator("beta", hold_out_pooled(pooled, wrong), mean_pool(1))
    assert isinstance(fitted, BetaCalibration)
    assert [(curve.a, curve.b) for curve in fitted.curves] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_curves_are_those_of_pooling_violators_by_hand(seed: int) -> None:
    members, truth = draw_members(seed, 1, 1000, 2)
    fitted = fit_calibrator("isotonic", hold_out_members(members, truth), mean_pool(1))
    assert isinstance(fitted, IsotonicCalibration)
    for label, curve in enumerate(fitted.curves):
        shares = members[0, :, label]
        order = np.argsort(shares)
        by_hand = np.clip(pool_adjacent_violators((truth == label)[order]), 1 / 1002, 1001 / 1002)
        assert np.allclose(curve(shares[order]), by_hand)


@pytest.mark.parametrize(("name", "least"), [("temperature", 20), ("vector", 120), ("beta", 180), ("isotonic", 1000)])
def test_a_calibrator_is_not_fitted_on_fewer_rows_than_it_needs(name: str, least: int) -> None:
    enough = draw_held_out(1, 2, least, 3)
    fit_calibrator(name, enough, mean_pool(2))
    with pytest.raises(DataError, match=f"{name} calibration of 3 labels needs {least:,} rows, not {least - 1}"):
        fit_calibrator(name, enough.take(np.arange(least - 1)), mean_pool(2))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_label_without_a_row_stays_possible(name: str) -> None:
    members, truth = draw_members(6, 1, 2000, 3)
    held_out = hold_out_members(members[:, truth != 2], truth[truth != 2])
    calibrated = fit_calibrator(name, held_out, mean_pool(1))(np.array([[0.01, 0.01, 0.98]]))
    assert np.isfinite(calibrated).all()
    assert calibrated[0, 2] > 1e-5


def test_each_member_gets_the_temperature_that_it_alone_needs() -> None:
    true = draw_distributions(3, 20_000, 3)
    held_out = hold_out_members(
        np.stack([apply_temperature(true, 0.5), apply_temperature(true, 2.0)]), draw_truth(true, 3)
    )
    found = fit_member_temperatures(held_out)
    assert found == pytest.approx((2.0, 0.5), rel=0.05)
    assert np.allclose(apply_member_temperatures(held_out.members, found), true, atol=0.02)


def test_a_name_that_is_no_calibrator_is_answered_with_those_there_are() -> None:
    assert isinstance(fit_calibrator("identity", draw_held_out(1), mean_pool(3)), Identity)
    assert isinstance(fit_calibrator("temperature", draw_held_out(1), mean_pool(3)), Temperature)
    with pytest.raises(DataError, match="no calibrator 'platt': it is one of identity, temperature"):
        fit_calibrator("platt", draw_held_out(1), mean_pool(3))


def test_rows_that_are_told_apart_perfectly_stop_where_one_row_of_doubt_outweighs_them() -> None:
    shares = np.linspace(0.02, 0.98, 180)
    is_true = shares > 0.5

    def loss(numbers: np.ndarray) -> float:
        a, b, c = numbers
        likely = expit(a * np.log(shares) - b * np.log(1 - shares) + c)
        return float(-np.log(np.where(is_true, likely, 1 - likely)).sum() + ((numbers - [1, 1, 0]) ** 2).sum() / 2)

    searched = minimize(loss, [1, 1, 0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
    pooled = np.stack([1 - shares, shares], axis=1)
    fitted = fit_calibrator("beta", hold_out_pooled(pooled, is_true.astype(np.int64)), mean_pool(1))
    assert isinstance(fitted, BetaCalibration)
    curve = fitted.curves[1]
    assert (curve.a, curve.b, curve.c) == pytest.approx(tuple(searched), abs=0.01)
