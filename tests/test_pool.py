import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.evaluation.metrics import nll
from stacknorm.pooling.pool import PowerPool, Probabilities, fit_log_pool, fit_weighted_pool, mean_pool

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, members: int = 3, rows: int = 80, labels: int = 4) -> tuple[Probabilities, np.ndarray]:
    """Members that know more and less of the truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=rows)
    skill = random.uniform(0, 3, size=(members, 1, 1))
    logits = random.normal(size=(members, rows, labels)) + skill * np.eye(labels)[truth]
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), truth


@given(seeds, st.sampled_from([0.0, 0.3, 1.0]))
def test_a_pool_gives_distributions(seed: int, exponent: float) -> None:
    members, _ = draw(seed)
    pooled = PowerPool(weights=(0.5, 0.2, 0.3), exponent=exponent)(members)
    assert pooled.shape == members.shape[1:]
    assert (pooled >= 0).all()
    assert pooled.sum(axis=1) == pytest.approx(1)


@given(seeds, st.sampled_from([0.0, 0.3, 1.0]))
def test_members_that_agree_are_left_as_they_are(seed: int, exponent: float) -> None:
    members, _ = draw(seed, members=1)
    same = np.repeat(members, 3, axis=0)
    assert np.allclose(PowerPool(weights=(1 / 3,) * 3, exponent=exponent)(same), members[0])


@given(seeds)
def test_fitted_weights_lie_on_the_simplex_and_never_do_worse_than_equal_ones_on_their_rows(seed: int) -> None:
    members, truth = draw(seed)
    for fitted, equal in (
        (fit_weighted_pool(members, truth), mean_pool(3)),
        (fit_log_pool(members, truth), PowerPool(weights=(1 / 3,) * 3, exponent=0)),
    ):
        assert min(fitted.weights) >= 0
        assert sum(fitted.weights) == pytest.approx(1)
        assert nll(fitted(members), truth) <= nll(equal(members), truth) + 1e-9


def test_a_member_that_knows_nothing_gets_little_weight() -> None:
    members, truth = draw(7, rows=2000)
    members[1] = np.random.default_rng(1).dirichlet(np.ones(4), size=2000)
    assert fit_weighted_pool(members, truth).weights[1] < 0.05
    assert fit_log_pool(members, truth).weights[1] < 0.05


def test_a_label_that_one_member_lacks_survives_the_linear_pool_by_the_others() -> None:
    members = np.array([[[0.0, 1.0]], [[0.6, 0.4]]])
    assert mean_pool(2)(members).tolist() == [[pytest.approx(0.3), pytest.approx(0.7)]]
