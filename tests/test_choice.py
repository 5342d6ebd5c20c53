import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_members import draw_distributions, draw_held_out, draw_members, draw_truth, hold_out_members
from stacknorm.errors import DataError
from stacknorm.pooling.calibrate import Identity, Temperature, apply_temperature
from stacknorm.pooling.calibrator_fitting import CALIBRATORS, fit_calibrator
from stacknorm.pooling.choice import Candidate, choose
from stacknorm.pooling.held_out import UNLISTED, HeldOut, nll
from stacknorm.pooling.pool import from_pairs, mean_pool
from stacknorm.pooling.pool_fitting import POOLS, fit_pool

QUICK = ("mean", "median", "weighted", "log")


def draw_equals(seed: int, rows: int, sharpness: float = 1.0) -> HeldOut:
    """Three members that are as good as each other, and whose mean is the truth's distribution where sharpness is 1."""
    true = draw_distributions(seed, rows, 3)
    noise = np.random.default_rng(seed).uniform(0.9, 1.1, size=(3, rows, 3))
    members = true * noise / (true * noise).sum(axis=2, keepdims=True)
    return hold_out_members(np.stack([apply_temperature(m, 1 / sharpness) for m in members]), draw_truth(true, seed))


def test_among_members_as_good_as_each_other_the_plain_mean_nearly_always_wins_uncalibrated() -> None:
    candidates = (("mean", "weighted", "log"), ("identity", "temperature"))
    chosen = [choose(draw_equals(seed, 500), *candidates) for seed in range(12)]
    plain = [decision for decision in chosen if decision.chosen == ("mean", "identity")]
    assert len(plain) >= 10
    assert (plain[0].pool, plain[0].calibrator) == (mean_pool(3), Identity())


def test_where_all_candidates_say_the_same_the_plain_mean_wins() -> None:
    said = draw_distributions(1, 1, 300, 3)
    decision = choose(hold_out_members(said.repeat(3, axis=0), draw_truth(said[0], 2)), pools=QUICK)
    assert decision.chosen == ("mean", "identity")


@pytest.mark.parametrize("seed", range(3))
def test_members_that_are_too_sure_are_given_a_temperature(seed: int) -> None:
    decision = choose(draw_equals(seed, 600, sharpness=2.5), pools=QUICK)
    assert decision.chosen == ("mean", "temperature")
    assert isinstance(decision.calibrator, Temperature)
    assert decision.calibrator.temperature == pytest.approx(2.5, rel=0.2)


def test_a_member_that_knows_nothing_makes_the_mean_lose() -> None:
    members, truth = draw_members(7, rows=600)
    members[1] = draw_distributions(1, 600, 4)
    decision = choose(hold_out_members(members, truth), pools=QUICK, calibrators=("identity", "temperature"))
    assert decision.chosen.pool in {"weighted", "log"}
    assert decision.nll[decision.chosen] < decision.nll[Candidate("mean", "temperature")] - 0.01
    assert decision.pool.weights[1] < 0.1


def test_pool_and_calibrator_are_fitted_on_all_rows_and_the_scores_are_of_rows_left_out() -> None:
    held_out = draw_held_out(3, rows=300, sharpness=3)
    decision = choose(held_out, pools=("weighted",), calibrators=("temperature",))
    pool = fit_pool("weighted", held_out)
    assert decision.pool == pool
    assert isinstance(decision.calibrator, Temperature)
    whole = fit_calibrator("temperature", held_out, pool)
    assert isinstance(whole, Temperature)
    assert decision.calibrator.temperature == pytest.approx(whole.temperature, rel=0.03)
    assert decision.nll == {("weighted", "temperature"): pytest.approx(nll(decision.probabilities, held_out.truth))}
    by_hand = np.empty_like(decision.probabilities)
    for part, rows in held_out.split(5, seed=0):
        by_hand[rows] = fit_pool("weighted", part)(held_out.members[:, rows])
    pooled = by_hand.copy()
    for _, rows in held_out.split(5, seed=0):
        rest = np.setdiff1d(np.arange(300), rows)
        one = hold_out_members(pooled[None, rest], held_out.truth[rest])
        by_hand[rows] = fit_calibrator("temperature", one, mean_pool(1))(pooled[rows])
    assert np.allclose(decision.probabilities, by_hand)


@pytest.mark.parametrize("seed", range(3))
def test_a_rich_candidate_cannot_win_by_fitting_noise(seed: int) -> None:
    members = np.stack([apply_temperature(said, 5) for said in draw_distributions(seed, 3, 300, 5)])
    held_out = hold_out_members(members, np.random.default_rng(seed).integers(5, size=300))
    decision = choose(held_out, pools=("mean", "stacking"), calibrators=("identity", "temperature", "vector"))
    assert decision.chosen.pool == "mean"
    assert decision.calibrator.keeps_order
    assert decision.nll[decision.chosen] == pytest.approx(np.log(5), abs=0.03)


def test_a_calibrator_is_tried_only_where_it_has_the_rows_for_it() -> None:
    few = choose(draw_equals(1, 1100), pools=("mean",))
    many = choose(draw_equals(1, 1300), pools=("mean",))
    assert set(few.nll) == {Candidate("mean", name) for name in CALIBRATORS if name != "isotonic"}
    assert set(many.nll) == {Candidate("mean", name) for name in CALIBRATORS}
    handful = choose(draw_equals(1, 3), pools=QUICK)
    assert {candidate.calibrator for candidate in handful.nll} == {"identity"}


@settings(max_examples=5)
@given(st.permutations(range(60)), st.integers(0, 99))
def test_the_choice_does_not_depend_on_the_order_of_rows(order: list[int], seed: int) -> None:
    held_out = draw_held_out(seed, rows=60)
    plain, moved = (choose(rows, QUICK, ("identity", "temperature")) for rows in (held_out, held_out.take(order)))
    assert plain.chosen == moved.chosen
    assert plain.nll == pytest.approx(moved.nll)
    assert np.allclose(plain.probabilities[order], moved.probabilities)


def test_the_same_rows_and_seed_give_the_same_decision() -> None:
    held_out = draw_held_out(2, rows=200)
    first, second, other = choose(held_out), choose(held_out), choose(held_out, seed=1)
    assert (first.pool, first.calibrator, first.nll) == (second.pool, second.calibrator, second.nll)
    assert first.nll != other.nll
    assert {candidate.pool for candidate in first.nll} == set(POOLS) - {"soft_vote"}


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_texts_do_not_make_a_difference_look_surer(seed: int) -> None:
    held_out = draw_held_out(seed, rows=40, sharpness=1.3)
    said, truth, prints = held_out.members, held_out.truth, held_out.prints
    copies = HeldOut(said.repeat(25, axis=1), truth.repeat(25), prints.repeat(25), (UNLISTED,))
    candidates = (("mean", "weighted", "log"), ("identity", "temperature"))
    assert choose(copies, *candidates).chosen == choose(held_out, *candidates).chosen


def test_one_member_needs_no_weights() -> None:
    decision = choose(draw_held_out(1, members=1, rows=100), calibrators=("identity", "temperature"))
    assert decision.chosen.pool in {"mean", "stacking"}
    assert decision.pool.weights == (1.0,)


def test_labels_that_apply_each_for_itself_share_a_pool_and_a_calibrator() -> None:
    random = np.random.default_rng(1)
    true = random.uniform(size=(400, 3))
    applies = random.uniform(size=true.shape) < true
    said = np.stack([true, np.full_like(true, 0.5)])
    held_out = HeldOut.of_labels(said, applies, np.arange(400), (UNLISTED,))
    decision = choose(held_out, pools=("mean", "weighted"), calibrators=("identity", "temperature"))
    assert from_pairs(decision.probabilities, 3).shape == (400, 3)
    assert np.abs(from_pairs(decision.probabilities, 3) - true).mean() < 0.05


def test_names_that_are_unknown_and_rows_that_are_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="no pool 'best'"):
        choose(draw_held_out(1), pools=("best",))
    with pytest.raises(DataError, match="no calibrator 'platt'"):
        choose(draw_held_out(1), calibrators=("platt",))
    with pytest.raises(DataError, match="50 rows are too few for isotonic"):
        choose(draw_held_out(1, rows=50), calibrators=("isotonic",))
    with pytest.raises(DataError, match="1 text"):
        choose(draw_held_out(1, rows=1))
