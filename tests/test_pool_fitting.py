import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from drawn_members import draw_distributions, draw_held_out, draw_members, draw_truth, hold_out_members
from stacknorm.errors import DataError
from stacknorm.pooling.held_out import UNLISTED, HeldOut, nll
from stacknorm.pooling.pool import LogisticPool, PowerPool, TrimmedPool, VotePool, mean_pool
from stacknorm.pooling.pool_fitting import (
    POOLS,
    fit_log_pool,
    fit_pool,
    fit_power_pool,
    fit_selection,
    fit_stacking,
    fit_vote,
    fit_weighted_pool,
    select_members,
)

seeds = st.integers(0, 2**32 - 1)
fitting = settings(max_examples=15)


@pytest.mark.parametrize("name", POOLS)
@fitting
@given(seed=seeds, members=st.integers(1, 4), labels=st.integers(2, 5))
def test_a_fitted_pool_has_weights_on_the_simplex_and_gives_distributions(
    name: str, seed: int, members: int, labels: int
) -> None:
    held_out = draw_held_out(seed, members, 60, labels)
    pool = fit_pool(name, held_out)
    assert len(pool.weights) == members
    assert min(pool.weights) >= 0
    assert sum(pool.weights) == pytest.approx(1)
    assert pool(held_out.members).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in POOLS if name != "selection"])  # its ties go to the first member
@fitting
@given(seed=seeds, order=st.permutations(range(3)))
def test_members_in_another_order_give_the_same_pool(name: str, seed: int, order: list[int]) -> None:
    held_out = draw_held_out(seed)
    moved = HeldOut(held_out.members[order], held_out.truth, held_out.prints, (UNLISTED,))
    plain, other = (fit_pool(name, given_)(given_.members) for given_ in (held_out, moved))
    assert np.allclose(plain, other, atol=2e-3)


@fitting
@given(seeds)
def test_weights_by_likelihood_never_do_worse_on_their_rows_than_what_they_generalise(seed: int) -> None:
    held_out = draw_held_out(seed)

    def loss(pool: PowerPool) -> float:
        return nll(pool(held_out.members), held_out.truth)

    weighted, log, power = fit_weighted_pool(held_out), fit_log_pool(held_out), fit_power_pool(held_out)
    assert loss(weighted) <= loss(mean_pool(3))
    assert loss(log) <= loss(PowerPool(weights=(1 / 3,) * 3, exponent=0))
    assert loss(power) <= min(loss(weighted), loss(log))
    for member in range(3):
        alone = tuple(np.eye(3)[member].tolist())
        assert loss(weighted) <= loss(PowerPool(weights=alone)) + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_weights_of_the_linear_pool_equal_those_of_expectation_maximisation(seed: int) -> None:
    held_out = draw_held_out(seed, members=4, rows=400)
    given_ = held_out.members[:, np.arange(400), held_out.truth]
    weights = np.full(4, 0.25)
    for _ in range(20_000):
        share = weights[:, None] * given_
        weights = (share / share.sum(axis=0)).mean(axis=1)
    assert fit_weighted_pool(held_out).weights == pytest.approx(weights.tolist(), abs=2e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_a_power_pool_is_as_likely_as_a_search_without_slopes_can_make_it(seed: int, exponent: float) -> None:
    members, truth = draw_members(seed, 3, 300)

    def loss(numbers: np.ndarray) -> float:
        shares = np.exp(numbers) / np.exp(numbers).sum()
        mixed = np.tensordot(shares, members**exponent if exponent else np.log(members), axes=1)
        powers = mixed ** (1 / exponent) if exponent else np.exp(mixed)
        return float(-np.log(powers[np.arange(300), truth] / powers.sum(axis=1)).mean())

    searched = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).fun
    held_out = hold_out_members(members, truth)
    fitted = fit_log_pool(held_out) if exponent == 0 else fit_power_pool(held_out)
    assert nll(fitted(members), truth) <= searched + 1e-6
    if exponent == 0:
        assert nll(fitted(members), truth) == pytest.approx(searched, abs=1e-6)


def test_the_exponent_that_made_the_truth_is_found() -> None:
    members = draw_distributions(3, 3, 8000, 4)
    for exponent in (0.0, 0.5, 1.0):
        weights = (0.6, 0.3, 0.1)
        truth = draw_truth(PowerPool(weights=weights, exponent=exponent)(members), seed=1)
        fitted = fit_power_pool(hold_out_members(members, truth))
        assert fitted.exponent == pytest.approx(exponent, abs=0.2)
        assert fitted.weights == pytest.approx(weights, abs=0.05)


@pytest.mark.parametrize("name", ["weighted", "log", "selection", "power", "hard_vote"])
def test_a_member_that_knows_nothing_gets_little_weight(name: str) -> None:
    members, truth = draw_members(7, rows=1500)
    members[1] = draw_distributions(1, 1500, 4)
    assert fit_pool(name, hold_out_members(members, truth)).weights[1] < 0.06


def test_voters_weigh_the_log_odds_of_being_right_against_chance() -> None:
    right = np.array([80, 60, 30, 20])  # of 98 rows; chance is a third
    guess = np.where(np.arange(98) < right[:, None], 0, 1)  # the truth is 0
    fitted = fit_vote(hold_out_members(np.eye(3)[guess], np.zeros(98, dtype=np.int64)))
    by_hand = [np.log(2 * 81 / 19), np.log(2 * 61 / 39), 0, 0]  # one row more right and one more wrong
    assert fitted.weights == pytest.approx([weight / sum(by_hand) for weight in by_hand])


def test_voters_that_are_all_worse_than_chance_weigh_the_same() -> None:
    members = np.eye(2)[np.ones((3, 50), dtype=np.int64)]
    assert fit_vote(hold_out_members(members, np.zeros(50, dtype=np.int64))) == VotePool(weights=(1 / 3,) * 3)


@pytest.mark.parametrize(("members", "median", "trimmed"), [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 1), (10, 4, 2)])
def test_medians_and_trimmed_means_cut_by_the_number_of_members(members: int, median: int, trimmed: int) -> None:
    held_out = draw_held_out(1, members, 10)
    assert fit_pool("median", held_out) == TrimmedPool(members=members, cut=median)
    assert fit_pool("trimmed_mean", held_out) == TrimmedPool(members=members, cut=trimmed)


@fitting
@given(seeds)
def test_selection_is_greedy_as_by_hand(seed: int) -> None:
    members, truth = draw_members(seed, 4, 40)
    given_ = members[:, np.arange(40), truth]
    chosen: list[int] = []
    ensembles: list[tuple[float, list[int]]] = []
    for _ in range(8):
        losses = [(-np.log(given_[[*chosen, one]].mean(axis=0)).sum(), one) for one in range(4)]
        chosen = [*chosen, min(losses)[1]]
        ensembles.append((min(losses)[0], chosen))
    best = min(ensembles, key=lambda ensemble: round(ensemble[0], 9))[1]
    shares = select_members(given_, np.ones(40, dtype=np.int64), 8)
    assert shares == pytest.approx(np.bincount(best, minlength=4) / len(best))


@fitting
@given(seeds)
def test_selection_is_never_worse_on_its_rows_than_the_best_member(seed: int) -> None:
    members, truth = draw_members(seed, 4, 40)
    shares = select_members(members[:, np.arange(40), truth], np.ones(40, dtype=np.int64), 10)
    best = min(nll(member, truth) for member in members)
    assert nll(PowerPool(weights=tuple(shares.tolist()))(members), truth) <= best + 1e-9


def test_selection_from_many_samples_comes_near_the_weights_of_greatest_likelihood() -> None:
    held_out = draw_held_out(5, members=4, rows=2000)
    assert fit_selection(held_out).weights == pytest.approx(fit_weighted_pool(held_out).weights, abs=0.08)


@pytest.mark.parametrize("labels", [2, 4])
def test_stacking_is_the_penalised_regression_of_scikit_learn_for_one_of_its_strengths(labels: int) -> None:
    members, truth = draw_members(3, 3, 800, labels)
    pool = fit_stacking(hold_out_members(members, truth))
    inputs = np.concatenate(list(np.log(members.clip(min=1e-6))), axis=1)
    gaps = [
        np.abs(LogisticRegression(C=strength, max_iter=9999).fit(inputs, truth).predict_proba(inputs) - pool(members))
        for strength in (1e-3, 1e-2, 1e-1)
    ]
    assert min(float(gap.max()) for gap in gaps) < 5e-3


def test_stacking_learns_what_weights_cannot_say() -> None:
    members, truth = draw_members(8, 2, 3000, 3)
    members[1] = members[1][:, [1, 2, 0]]  # a member that names the labels in another order
    train, test = (hold_out_members(members[:, half], truth[half]) for half in (slice(0, 2000), slice(2000, 3000)))
    stacked, weighted = fit_stacking(train), fit_weighted_pool(train)
    assert nll(stacked(test.members), test.truth) < nll(weighted(test.members), test.truth) - 0.05


def test_stacking_keeps_a_label_possible_that_no_row_bears() -> None:
    members, truth = draw_members(2, 3, 200, 4)
    pool = fit_stacking(hold_out_members(members[:, truth != 3], truth[truth != 3]))
    assert isinstance(pool, LogisticPool)
    surely = np.tile([0.001, 0.001, 0.001, 0.997], (3, 1, 1))
    assert 0 < pool(surely)[0, 3] < 0.5


def test_copies_of_one_member_add_nothing_to_it() -> None:
    members, truth = draw_members(4, 1, 300)
    held_out = hold_out_members(members.repeat(3, axis=0), truth)
    for name in ("mean", "median", "weighted", "log", "selection", "power"):
        assert np.allclose(fit_pool(name, held_out)(held_out.members), members[0], atol=1e-6)


def test_the_soft_vote_is_the_mean_by_another_name() -> None:
    assert fit_pool("soft_vote", draw_held_out(1)) == fit_pool("mean", draw_held_out(1)) == mean_pool(3)


def test_an_unknown_pool_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(DataError, match="no pool 'average': it is one of mean, soft_vote"):
        fit_pool("average", draw_held_out(1))
