"""Exact intervals of Poisson counts."""

from scipy.stats import chi2


def count_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """The means under which so many events are neither unlikely many nor unlikely few (Garwood 1936)."""
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(1 - tail, 2 * count + 2) / 2)
