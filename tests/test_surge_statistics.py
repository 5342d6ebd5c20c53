from math import exp, log
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.surge.statistics import (
    RATES,
    RUN_LENGTH_FACTORS,
    SHARE_ODDS,
    exposure_at,
    run_statistic,
    share_statistic,
    threshold,
)

counts = st.integers(1, 60)
shapes = st.floats(0.5, 500)
days = st.floats(1e-4, 100)


def clusters_to_alarm(random: Random, bank: dict[float, float], a: float, surge: float = 1.0) -> int:
    """Negative clusters until a chart of a key with one cluster a day, known as well as ``a`` clusters, alarms."""
    rate = random.gammavariate(a, 1 / a) if surge == 1 else 1.0
    charts = dict.fromkeys(bank, (0, 0.0))
    for n in range(1, 10**6):
        gap = random.expovariate(rate * surge)
        for multiple, h in bank.items():
            y, g = charts[multiple]
            y, g = (0, 0.0) if run_statistic(y, g + gap, a, a, multiple) <= 0 else (y, g + gap)
            charts[multiple] = (y + 1, g)
            if run_statistic(y + 1, g, a, a, multiple) >= h:
                return n
    raise AssertionError("no alarm")


def test_thresholds_are_those_of_the_table():
    assert threshold(4.0, 200_000, 2) == pytest.approx(12.23, abs=0.01)
    assert threshold(32.0, 200_000, 2) == pytest.approx(14.35, abs=0.01)


def test_a_threshold_spends_half_the_budget_on_each_chart():
    for rate in RATES:
        run_length = RUN_LENGTH_FACTORS[rate] * exp(threshold(rate, 20_000, 2))
        assert 20_000 / run_length == pytest.approx(2 / len(RATES))


@pytest.mark.parametrize(("y", "g", "a", "b", "rate"), [(5, 0.2, 0.5, 5, 32), (1, 3, 12, 4, 4), (30, 2, 100, 20, 4)])
def test_the_run_statistic_is_the_likelihood_ratio_with_the_baseline_integrated_out(y, g, a, b, rate):
    exponents = np.linspace(-40, 8, 400_001)
    level = np.exp(exponents)
    belief = a * exponents - b * level  # Gamma(a, b) density times d(level), up to a constant

    def log_marginal(multiple: float) -> float:
        terms = belief + y * (np.log(multiple) + exponents) - multiple * g * level
        return float(terms.max() + np.log(np.exp(terms - terms.max()).sum()))

    assert run_statistic(y, g, a, b, rate) == pytest.approx(log_marginal(rate) - log_marginal(1.0), abs=1e-6)


@given(counts, days, shapes, days, st.sampled_from(RATES))
def test_the_run_statistic_is_the_formula_and_falls_with_exposure(y, g, a, b, rate):
    w = run_statistic(y, g, a, b, rate)
    assert w == pytest.approx(y * log(rate) + (a + y) * log((b + g) / (b + rate * g)), rel=1e-9, abs=1e-9)
    assert run_statistic(y, 2 * g, a, b, rate) < w


@given(counts, shapes, days, st.sampled_from(RATES), st.floats(0, 0.99))
def test_exposure_at_is_where_the_statistic_has_fallen_to(y, a, b, rate, fraction):
    level = fraction * run_statistic(y, 0.0, a, b, rate)
    assert run_statistic(y, exposure_at(level, y, a, b, rate), a, b, rate) == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize(("rate", "h", "tolerance"), [(4.0, 5.5, 0.1), (32.0, 7.5, 0.25)])
def test_a_quiet_key_alarms_once_in_c_times_e_to_the_h_clusters(rate, h, tolerance):
    # C_32 is a mean over h: each cluster adds up to ln 32, so the run length climbs in steps around C e^h.
    random = Random(11)
    lengths = [clusters_to_alarm(random, {rate: h}, a=1e9) for _ in range(1000)]
    assert np.mean(lengths) == pytest.approx(RUN_LENGTH_FACTORS[rate] * exp(h), rel=tolerance)


@pytest.mark.parametrize(("a", "surge", "expected"), [(100, 8, 12.0), (100, 16, 8.2), (100, 50, 5.4), (10, 16, 9.3)])
def test_a_surge_is_found_after_the_number_of_clusters_of_the_table(a, surge, expected):
    random = Random(5)
    bank = {4.0: 12.23, 32.0: 14.41}
    assert np.mean([clusters_to_alarm(random, bank, a, surge) for _ in range(1500)]) == pytest.approx(
        expected, rel=0.05
    )


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0.01, 0.95))
def test_the_share_statistic_is_the_sum_of_bernoulli_log_likelihood_ratios(negative, other, p0):
    p1 = SHARE_ODDS * p0 / (1 - p0 + SHARE_ODDS * p0)
    direct = negative * log(p1 / p0) + other * log((1 - p1) / (1 - p0))
    assert share_statistic(negative, negative + other, p0) == pytest.approx(direct, abs=1e-9)
