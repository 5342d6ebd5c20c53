from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.surge.baseline import DAY_MS, HOUR_MS, Baseline
from worker.surge.rules import Prior, Rules

RULES = Rules()


def fed(times_ms: list[int], negative: bool = True) -> Baseline:
    baseline = Baseline(folded_hour=0)
    for time_ms in times_ms:
        baseline.add(time_ms, negative, RULES)
    return baseline


def test_a_key_without_data_believes_its_prior():
    assert Baseline.starting_after(0).rate(Prior(mean_a_day=2.0)) == (0.5, 0.25)


def test_clusters_of_the_last_six_hours_are_not_yet_baseline():
    baseline = fed([HOUR_MS // 2, 7 * HOUR_MS - 1])
    assert (baseline.negatives, baseline.exposure_days) == (0, 0)
    baseline.add(7 * HOUR_MS, True, RULES)
    assert baseline.negatives == pytest.approx(1, rel=0.01)
    assert baseline.exposure_days == pytest.approx(1 / 24, rel=0.01)


def test_the_mean_converges_to_the_true_rate():
    random, times, now = Random(3), [], 0.0
    while (now := now + random.expovariate(10)) < 100:
        times.append(int(now * DAY_MS))
    a, b = fed(times).rate(Prior(1.0))
    assert a / b == pytest.approx(10, rel=0.15)
    assert b == pytest.approx(14 / 0.693 + 0.5, rel=0.02)


def test_data_lose_half_their_weight_in_fourteen_days_and_the_prior_none():
    baseline = fed([0, 7 * HOUR_MS])
    before = baseline.negatives
    baseline.add(7 * HOUR_MS + 14 * DAY_MS, False, RULES)
    # the second cluster came in between, decayed by almost the same time
    assert baseline.negatives == pytest.approx((before + 1) / 2, rel=0.02)
    baseline.add(2000 * DAY_MS, False, RULES)
    a, b = baseline.rate(Prior(5.0))
    assert a == pytest.approx(0.5, abs=1e-9)
    assert b == pytest.approx(0.1 + 14 / 0.693147, rel=1e-4)


@given(st.lists(st.integers(0, 40 * DAY_MS), min_size=1, max_size=40).map(sorted))
def test_the_baseline_does_not_depend_on_how_often_it_was_folded(times):
    end = 41 * DAY_MS
    seldom, often = fed([*times, end]), Baseline(folded_hour=0)
    hours = range(0, end, 3 * HOUR_MS)
    for time_ms, counts in sorted([(time_ms, True) for time_ms in times] + [(hour, False) for hour in hours]):
        if counts:
            often.add(time_ms, True, RULES)
        else:
            often.add(time_ms, False, RULES)
    often.add(end, True, RULES)
    assert often.negatives == pytest.approx(seldom.negatives)
    assert often.exposure_days == pytest.approx(seldom.exposure_days)


def test_the_share_is_shrunk_to_the_parents():
    baseline = Baseline(folded_hour=0)
    assert baseline.share(0.3, 20) == pytest.approx(0.3)
    baseline.negatives, baseline.clusters = 40.0, 60.0
    assert baseline.share(0.3, 20) == pytest.approx(46 / 80)


def test_a_new_key_leaves_out_the_hour_that_made_it_known():
    baseline = Baseline.starting_after(HOUR_MS // 2)
    baseline.add(HOUR_MS // 2, True, RULES)
    baseline.add(HOUR_MS - 1, True, RULES)
    assert baseline.pending == []
    baseline.add(HOUR_MS, True, RULES)
    assert baseline.pending == [[1, 1, 1]]


def test_after_an_alert_the_surge_and_the_guard_gap_before_it_are_left_out():
    baseline = fed([0, 7 * HOUR_MS, 8 * HOUR_MS])
    level = (baseline.negatives, baseline.exposure_days)
    baseline.thaw(40 * HOUR_MS + 5)
    baseline.add(41 * HOUR_MS, True, RULES)
    assert (baseline.negatives, baseline.exposure_days) == level
    assert baseline.pending == [[41, 1, 1]]


def test_a_new_level_is_what_was_seen_while_the_alert_fired():
    baseline, prior = fed([0, 7 * HOUR_MS]), Prior(1.0)
    baseline.rebase(3 * DAY_MS, negatives=100, clusters=150, exposure_days=2.0, prior=prior)
    a, b = baseline.rate(prior)
    assert (a, b) == (100.5, 2.0)
    assert baseline.share(0.1, 0.0) == pytest.approx(2 / 3)


def test_a_prior_that_weighs_more_than_what_was_seen_does_not_pull_the_new_level_down():
    baseline, prior = fed([0, 7 * HOUR_MS]), Prior(0.1)
    baseline.rebase(3 * DAY_MS, negatives=100, clusters=150, exposure_days=2.0, prior=prior)
    a, b = baseline.rate(prior)
    assert b == prior.b0
    assert a / b == pytest.approx(50, rel=0.01)
