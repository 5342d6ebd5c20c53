import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.pooling.calibrate import apply_temperature, disagreement, entropy, fit_temperature

seeds = st.integers(0, 2**32 - 1)


def distributions(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoilt_true_probabilities_is_found(temperature: float) -> None:
    random = np.random.default_rng(3)
    true = distributions(3, 20_000, 3)
    truth = (true.cumsum(axis=1) > random.uniform(size=(20_000, 1))).argmax(axis=1)
    spoilt = apply_temperature(true, 1 / temperature)
    assert fit_temperature(spoilt, truth) == pytest.approx(temperature, rel=0.05)


@given(seeds, st.floats(0.1, 10))
def test_a_temperature_changes_confidence_and_never_the_label(seed: int, temperature: float) -> None:
    given_ = distributions(seed, 20, 4)
    changed = apply_temperature(given_, temperature)
    assert changed.sum(axis=1) == pytest.approx(1)
    assert (changed.argmax(axis=1) == given_.argmax(axis=1)).all()
    softer = changed.max(axis=1) <= given_.max(axis=1) + 1e-9
    assert softer.all() if temperature >= 1 else (changed.max(axis=1) >= given_.max(axis=1) - 1e-9).all()


def test_rows_that_are_all_right_give_a_cold_temperature_within_bounds() -> None:
    certain = np.array([[0.9, 0.1]] * 10)
    assert 0.05 <= fit_temperature(certain, np.zeros(10, dtype=np.int64)) < 0.1


def test_entropy_is_in_nats_between_certain_and_even() -> None:
    assert entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx([0, np.log(2)])


@given(seeds)
def test_disagreement_is_zero_among_equals_and_never_above_the_entropy_of_the_mean(seed: int) -> None:
    members = distributions(seed, 3, 10, 4)
    weights = (0.2, 0.3, 0.5)
    split = disagreement(members, weights)
    assert (split >= 0).all()
    assert (split <= entropy(np.tensordot(weights, members, axes=1)) + 1e-9).all()
    assert disagreement(np.repeat(members[:1], 3, axis=0), weights) == pytest.approx(0, abs=1e-9)


def test_members_certain_of_different_labels_disagree_by_one_bit() -> None:
    members = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert disagreement(members, (0.5, 0.5)) == pytest.approx([np.log(2)])
