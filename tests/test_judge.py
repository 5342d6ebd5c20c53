"""The judge, in its quick mode: what few trials can show, and that it says so when a bar is missed."""

from random import Random

import pytest

from tests.judge import QUICK, RULES, Chance, Trial, compare_copies, measure_chance, spell_trials, try_jump


def test_chance_stays_within_the_budget():
    chance = measure_chance(QUICK)
    assert chance.keyed_negatives > 5_000
    assert chance.interval[0] <= RULES.budget_a_day


def test_alerts_are_counted_at_the_pace_of_the_rules():
    chance = Chance(alerts=4, keyed_negatives=round(2 * RULES.negatives_a_day))
    assert chance.a_day(chance.alerts) == 2
    low, high = chance.interval
    assert (low, high) == (pytest.approx(0.545, abs=0.001), pytest.approx(5.121, abs=0.001))


@pytest.mark.parametrize("jump", QUICK.jumps)
def test_a_jump_is_told_about_as_soon_as_by_the_bare_test_and_once(jump):
    trials = [try_jump(10, jump, Random(seed)) for seed in range(3)]
    _, _, met = spell_trials(trials)
    assert met, trials


def test_copies_change_no_alert():
    count, same = compare_copies(0)
    assert same
    assert count


@pytest.mark.parametrize(
    ("trial", "word"),
    [(Trial(14, 10.0, 1), "13.5 stories"), (Trial(10, 10.0, 2), "2 alerts"), (Trial(120, 10.0, 0), "1 of 2 had none")],
)
def test_a_missed_bar_is_said(trial, word):
    measured, _, met = spell_trials([trial, Trial(13, 10.0, 1)])
    assert not met
    assert word in measured
