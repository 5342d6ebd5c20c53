from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import entropy as scipy_entropy

from drawn_members import draw_distributions, draw_members, draw_truth
from stacknorm.pooling.calibrate import (
    BetaCalibration,
    BetaCurve,
    Calibrator,
    Identity,
    IsotonicCalibration,
    IsotonicCurve,
    Temperature,
    VectorScaling,
    apply_member_temperatures,
    apply_temperature,
    disagreement,
    entropy,
    fit_temperature,
    margin,
)

seeds = st.integers(0, 2**32 - 1)
LABELS = 4


def draw_beta(seed: int) -> BetaCalibration:
    random = np.random.default_rng(seed)
    curves = (BetaCurve(a=random.uniform(0, 3), b=random.uniform(0, 3), c=random.normal()) for _ in range(LABELS))
    return BetaCalibration(curves=tuple(curves))


def draw_isotonic(seed: int) -> IsotonicCalibration:
    random = np.random.default_rng(seed)
    knots = [np.sort(random.uniform(size=(2, 6)), axis=1).tolist() for _ in range(LABELS)]
    return IsotonicCalibration(curves=tuple(IsotonicCurve(shares=x, calibrated=y) for x, y in knots))


def draw_vector(seed: int) -> VectorScaling:
    random = np.random.default_rng(seed)
    return VectorScaling(scales=tuple(random.uniform(0, 3, size=LABELS)), biases=tuple(random.normal(size=LABELS)))


DRAWN: dict[str, Callable[[int], Calibrator]] = {
    "identity": lambda seed: Identity(),
    "temperature": lambda seed: Temperature(temperature=np.random.default_rng(seed).uniform(0.1, 10)),
    "vector": draw_vector,
    "beta": draw_beta,
    "isotonic": draw_isotonic,
}


@pytest.mark.parametrize("name", DRAWN)
@given(seed=seeds)
def test_a_calibrator_gives_distributions_the_corners_included(name: str, seed: int) -> None:
    pooled = np.concatenate([draw_distributions(seed, 20, LABELS), np.eye(LABELS)])
    calibrated = DRAWN[name](seed)(pooled)
    assert calibrated.shape == pooled.shape
    assert (calibrated >= 0).all()
    assert calibrated.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("name", DRAWN)
@given(seed=seeds)
def test_a_calibrator_that_keeps_the_order_keeps_it(name: str, seed: int) -> None:
    calibrator = DRAWN[name](seed)
    assert calibrator.keeps_order == (name in {"identity", "temperature"})
    if calibrator.keeps_order:
        pooled = draw_distributions(seed, 20, LABELS)
        assert (calibrator(pooled).argsort(axis=1) == pooled.argsort(axis=1)).all()


@pytest.mark.parametrize("name", ["temperature", "vector", "beta", "isotonic"])
@given(seed=seeds)
def test_between_two_labels_every_calibrator_keeps_the_order_of_texts(name: str, seed: int) -> None:
    calibrator = DRAWN[name](seed)
    if isinstance(calibrator, VectorScaling):
        calibrator = VectorScaling(scales=calibrator.scales[:2], biases=calibrator.biases[:2])
    if isinstance(calibrator, BetaCalibration | IsotonicCalibration):
        calibrator = calibrator.model_copy(update={"curves": calibrator.curves[:2]})
    shares = np.sort(np.random.default_rng(seed).uniform(size=50))
    calibrated = calibrator(np.stack([1 - shares, shares], axis=1))[:, 1]
    assert (np.diff(calibrated) >= -1e-9).all()


@pytest.mark.parametrize("name", DRAWN)
def test_a_calibrator_is_read_from_a_file_as_it_was_written(name: str) -> None:
    calibrator = DRAWN[name](3)
    reader: TypeAdapter[Calibrator] = TypeAdapter(Calibrator)
    assert reader.validate_json(reader.dump_json(calibrator)) == calibrator


@given(seeds)
def test_calibrators_that_change_nothing_change_nothing(seed: int) -> None:
    pooled = draw_distributions(seed, 20, LABELS)
    for calibrator in (
        Identity(),
        Temperature(),
        VectorScaling(scales=(1,) * LABELS, biases=(0,) * LABELS),
        BetaCalibration(curves=(BetaCurve(a=1, b=1, c=0),) * LABELS),
        IsotonicCalibration(curves=(IsotonicCurve(shares=(0, 1), calibrated=(0, 1)),) * LABELS),
    ):
        assert np.allclose(calibrator(pooled), pooled, atol=1e-9)


@given(seeds, st.floats(0.1, 10))
def test_temperature_and_vector_scaling_are_a_softmax_of_scaled_logits(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(20, LABELS))
    pooled = np.exp(log_softmax(logits, axis=1))
    assert np.allclose(apply_temperature(pooled, temperature), np.exp(log_softmax(logits / temperature, axis=1)))
    vector = draw_vector(seed)
    scaled = log_softmax(logits, axis=1) * vector.scales + vector.biases
    assert np.allclose(vector(pooled), np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)))


@given(seeds, st.floats(0, 5), st.floats(0, 5), st.floats(-3, 3))
def test_a_beta_curve_is_the_formula_of_the_paper(seed: int, a: float, b: float, c: float) -> None:
    shares = np.random.default_rng(seed).uniform(0.01, 0.99, size=20)
    expected = 1 / (1 + 1 / (np.exp(c) * shares**a / (1 - shares) ** b))  # Kull et al. 2017, equation 3
    assert np.allclose(BetaCurve(a=a, b=b, c=c)(shares), expected)


@given(seeds)
def test_the_beta_curve_of_the_other_of_two_labels_is_the_mirror_image(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, c = random.uniform(0, 3), random.uniform(0, 3), random.normal()
    shares = random.uniform(0.001, 0.999, size=20)
    pair = BetaCalibration(curves=(BetaCurve(a=b, b=a, c=-c), BetaCurve(a=a, b=b, c=c)))
    expected = expit(a * np.log(shares) - b * np.log(1 - shares) + c)
    assert np.allclose(pair(np.stack([1 - shares, shares], axis=1))[:, 1], expected)


def test_isotonic_curves_are_straight_between_knots_and_level_beyond() -> None:
    curve = IsotonicCurve(shares=(0.2, 0.4), calibrated=(0.1, 0.9))
    assert curve(np.array([0.0, 0.2, 0.3, 0.4, 1.0])).tolist() == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])


def test_a_row_to_which_every_curve_gives_nothing_stays_as_it_is() -> None:
    never = IsotonicCalibration(curves=(IsotonicCurve(shares=(0.5,), calibrated=(0,)),) * 2)
    assert never(np.array([[0.3, 0.7]])).tolist() == [pytest.approx([0.3, 0.7])]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"kind": "temperature", "temperature": 0}, "greater than 0"),
        ({"kind": "vector", "scales": [1, 1], "biases": [0]}, "2 scales and 1 biases"),
        ({"kind": "beta", "curves": [{"a": -1, "b": 1, "c": 0}] * 2}, "greater than or equal to 0"),
        ({"kind": "isotonic", "curves": [{"shares": [0, 1], "calibrated": [1, 0]}] * 2}, "an isotonic curve falls"),
        ({"kind": "isotonic", "curves": [{"shares": [0, 1], "calibrated": [1]}] * 2}, "2 and 1 coordinates"),
        ({"kind": "platt"}, "'identity', 'temperature', 'vector', 'beta', 'isotonic'"),
    ],
)
def test_a_calibrator_that_is_none_is_refused(written: dict[str, object], message: str) -> None:
    reader: TypeAdapter[Calibrator] = TypeAdapter(Calibrator)
    with pytest.raises(ValidationError, match=message):
        reader.validate_python(written)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoilt_true_probabilities_is_found(temperature: float) -> None:
    true = draw_distributions(3, 20_000, 3)
    truth = draw_truth(true, seed=3)
    spoilt = apply_temperature(true, 1 / temperature)
    assert fit_temperature(spoilt, truth) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sharpness", [0.3, 1, 4])
def test_the_temperature_is_the_one_that_a_search_without_slopes_finds(seed: int, sharpness: float) -> None:
    members, truth = draw_members(seed, 1, 300, sharpness=sharpness)
    logs = np.log(members[0])

    def loss(temperature: float) -> float:
        return float(-log_softmax(logs / temperature, axis=1)[np.arange(300), truth].mean())

    searched = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(members[0], truth) == pytest.approx(searched, rel=1e-3)


@given(seeds, st.floats(0.1, 10))
def test_a_temperature_changes_confidence_and_never_the_label(seed: int, temperature: float) -> None:
    given_ = draw_distributions(seed, 20, 4)
    changed = apply_temperature(given_, temperature)
    assert (changed.argmax(axis=1) == given_.argmax(axis=1)).all()
    softer = changed.max(axis=1) <= given_.max(axis=1) + 1e-9
    assert softer.all() if temperature >= 1 else (changed.max(axis=1) >= given_.max(axis=1) - 1e-9).all()


def test_rows_that_are_all_right_give_a_cold_temperature_within_bounds() -> None:
    certain = np.array([[0.9, 0.1]] * 10)
    assert 0.05 <= fit_temperature(certain, np.zeros(10, dtype=np.int64)) < 0.1


def test_members_have_temperatures_of_their_own_or_none() -> None:
    members = draw_distributions(1, 2, 10, 3)
    apart = apply_member_temperatures(members, (0.5, 3.0))
    assert np.allclose(apart[0], apply_temperature(members[0], 0.5))
    assert np.allclose(apart[1], apply_temperature(members[1], 3.0))
    assert apply_member_temperatures(members, ()) is members
    with pytest.raises(ValueError, match="shorter"):
        apply_member_temperatures(members, (1.0,))


@given(seeds)
def test_entropy_is_that_of_scipy_in_nats(seed: int) -> None:
    given_ = draw_distributions(seed, 20, 4)
    assert np.allclose(entropy(given_), scipy_entropy(given_, axis=1))


def test_entropy_is_in_nats_between_certain_and_even() -> None:
    assert entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx([0, np.log(2)])


def test_the_margin_is_the_lead_of_the_likeliest_label() -> None:
    assert margin(np.array([[0.1, 0.6, 0.3], [0.4, 0.4, 0.2]])).tolist() == pytest.approx([0.3, 0])


@given(seeds)
def test_disagreement_is_zero_among_equals_and_never_above_the_entropy_of_the_mean(seed: int) -> None:
    members = draw_distributions(seed, 3, 10, 4)
    weights = (0.2, 0.3, 0.5)
    split = disagreement(members, weights)
    assert (split >= 0).all()
    assert (split <= entropy(np.tensordot(weights, members, axes=1)) + 1e-9).all()
    assert disagreement(np.repeat(members[:1], 3, axis=0), weights) == pytest.approx(0, abs=1e-9)


@given(seeds)
def test_disagreement_is_the_mean_divergence_of_members_from_their_mean(seed: int) -> None:
    members, weights = draw_distributions(seed, 3, 10, 4), (0.2, 0.3, 0.5)
    mixed = np.tensordot(weights, members, axes=1)
    divergences = [scipy_entropy(member, mixed, axis=1) for member in members]
    assert np.allclose(disagreement(members, weights), np.tensordot(weights, divergences, axes=1))


def test_members_certain_of_different_labels_disagree_by_one_bit() -> None:
    members = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert disagreement(members, (0.5, 0.5)) == pytest.approx([np.log(2)])
