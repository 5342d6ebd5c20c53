"""What a count or a mean may be by chance, at 95 %."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import chi2, t

from stacknorm.bundle import Interval


def count_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """The means under which so many events are neither unlikely many nor unlikely few (Garwood 1936)."""
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(1 - tail, 2 * count + 2) / 2)


def scale_count(count: int, factor: float) -> Interval:
    """A count times a factor, such as one over the days in which it was counted."""
    low, high = count_interval(count)
    return Interval(value=count * factor, low=low * factor, high=high * factor)


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of some, at least one, by Student's t."""
    mean = fmean(values)
    wide = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Interval(value=mean, low=max(mean - wide, min(values)), high=min(mean + wide, max(values)))
