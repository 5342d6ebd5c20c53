"""The tests: Gamma-Poisson run-CUSUM on the rate of negative clusters, Bernoulli likelihood ratio on their share.

Pure formulas. Exposure ``g`` and the Gamma rate ``b`` are in days, all statistics in nats.
"""

from math import exp, log, log1p
from typing import Final

from scipy.special import betainc

RATES: Final[tuple[float, ...]] = (4.0, 32.0)
"""Rate multiples the bank of charts looks for: a slow surge, and a burst."""

RUN_LENGTH_FACTORS: dict[float, float] = {4.0: 0.977, 32.0: 0.117}
"""C_R: without a surge a chart with threshold h alarms once in C_R e^h negative clusters, whatever the key's rate."""

SHARE_ODDS: Final = 10.0
"""The share alternative: ten times the odds of being negative (Bernoulli likelihood ratio, categorical CUSUM of Hoehle
2010). Three times the odds tells a real surge no sooner, and takes chance for one twice as often."""

SHARE_EVIDENCE: Final = log(30)
"""Evidence the gate asks for: four or five clusters, all negative, give it at a usual share of a quarter. When volume
alone surges one run in thirty passes it (Ville's inequality), more among runs that were found by their negatives."""


def threshold(rate: float, negatives_a_day: float, budget_a_day: float) -> float:
    """h_R = ln(V / (F C_R)) + ln(number of charts): F false alerts a day among V key-attributed negative clusters."""
    return log(negatives_a_day / (budget_a_day * RUN_LENGTH_FACTORS[rate])) + log(len(RATES))


def run_statistic(y: int, g: float, a: float, b: float, rate: float) -> float:
    """W(y, g; R) = y ln R + (a + y) ln[(b + g) / (b + R g)].

    The log likelihood ratio of "rate times R" against the baseline for y clusters in exposure g, with the Gamma(a, b)
    uncertainty of the baseline integrated out on both sides (negative binomial CUSUM, Hoehle & Paul 2008).
    """
    return y * log(rate) + (a + y) * log1p(-(rate - 1) * g / (b + rate * g))


def exposure_at(statistic: float, y: int, a: float, b: float, rate: float) -> float:
    """The exposure g at which W(y, g; R), which falls with g, has come down to ``statistic`` > -a ln R."""
    ratio = exp((statistic - y * log(rate)) / (a + y))
    return b * (1 - ratio) / (ratio * rate - 1)


def share_statistic(n_negative: int, n_total: int, p0: float) -> float:
    """Log likelihood ratio of ``SHARE_ODDS`` times the odds against a negative share of p0."""
    return n_negative * log(SHARE_ODDS) - n_total * log1p((SHARE_ODDS - 1) * p0)


def exceedance(y: int, g: float, a: float, b: float) -> float:
    """P(Y >= y) of clusters in exposure g at the usual rate: negative binomial, the Gamma(a, b) integrated out.

    Of this count in this time alone. That many keys and times are looked at is in h, not here.
    """
    return float(betainc(y, a, g / (b + g))) if y > 0 else 1.0


def chance_a_day(statistic: float, h: float, budget_a_day: float) -> float:
    """False alerts a day whose W comes as far as this one's: F e^(h - W)."""
    return budget_a_day * exp(h - statistic)
