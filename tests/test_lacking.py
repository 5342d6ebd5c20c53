import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.pooling.lacking import fill_lacking
from stacknorm.pooling.pool import PowerPool, Probabilities

LABELS = 4
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, members: int = 4, rows: int = 6) -> tuple[Probabilities, np.ndarray]:
    """Members of which the first has all labels and the others at least one."""
    random = np.random.default_rng(seed)
    has = random.random((members, LABELS)) < 0.6
    has[0] = True
    has[np.arange(members), random.integers(LABELS, size=members)] = True
    shares = random.dirichlet(np.ones(LABELS), size=(members, rows)) * has[:, None]
    return shares / shares.sum(axis=2, keepdims=True), has


@given(seeds)
def test_what_is_filled_are_distributions_and_members_with_all_labels_stay_as_they_are(seed: int) -> None:
    members, has = draw(seed)
    filled = fill_lacking(members, has)
    assert (filled >= 0).all()
    assert filled.sum(axis=2) == pytest.approx(np.ones(members.shape[:2]))
    assert np.array_equal(filled[has.all(axis=1)], members[has.all(axis=1)])


@given(seeds)
def test_a_member_keeps_the_ratios_of_the_labels_it_has(seed: int) -> None:
    members, has = draw(seed)
    filled = fill_lacking(members, has)
    for one, before, own in zip(filled, members, has, strict=True):
        kept = one[:, own] / one[:, own].sum(axis=1, keepdims=True)
        assert kept == pytest.approx(before[:, own])


@given(seeds, st.sampled_from([0.0, 0.4, 1.0]))
def test_a_label_only_one_member_has_is_as_likely_as_that_member_says_it_is_in_any_power_pool_of_agreeing_members(
    seed: int, exponent: float
) -> None:
    (whole,) = np.random.default_rng(seed).dirichlet(np.ones(3), size=(1, 5))
    polar = np.stack([whole[:, 0], np.zeros(5), whole[:, 2]], axis=1) / (whole[:, 0] + whole[:, 2])[:, None]
    filled = fill_lacking(np.stack([whole, polar]), np.array([[True, True, True], [True, False, True]]))
    pooled = PowerPool(weights=(0.3, 0.7), exponent=exponent)(filled)
    assert pooled == pytest.approx(whole, abs=1e-6)


def test_a_lacking_label_is_vetoed_by_a_log_pool_without_filling_and_not_with_it() -> None:
    members = np.array([[[0.1, 0.8, 0.1]], [[0.6, 0.0, 0.4]]])
    has = np.array([[True, True, True], [True, False, True]])
    log_pool = PowerPool(weights=(0.5, 0.5), exponent=0)
    assert log_pool(members)[0, 1] < 1e-4
    (pooled,) = log_pool(fill_lacking(members, has))
    assert pooled[1] == pytest.approx(0.8, abs=0.01)
    assert pooled[0] > pooled[2]


@given(seeds)
def test_the_order_of_members_does_not_matter(seed: int) -> None:
    members, has = draw(seed)
    order = np.random.default_rng(seed).permutation(len(members))
    assert fill_lacking(members[order], has[order]) == pytest.approx(fill_lacking(members, has)[order])


def test_rows_on_which_no_member_with_all_labels_spoke_keep_their_zeros_and_silent_members_stay_silent() -> None:
    members = np.array([[[np.nan] * 3, [0.2, 0.5, 0.3]], [[0.6, 0.0, 0.4], [np.nan] * 3]])
    filled = fill_lacking(members, np.array([[True, True, True], [True, False, True]]))
    assert np.array_equal(filled, members, equal_nan=True)


def test_labels_that_do_not_exclude_each_other_are_filled_one_by_one() -> None:
    members = np.array([[[0.9, 0.7, 0.2]], [[0.8, 0.0, 0.6]]])
    filled = fill_lacking(members, np.array([[True, True, True], [True, False, True]]), exclusive=False)
    assert filled[1, 0].tolist() == [0.8, 0.7, 0.6]
