"""Exact intervals of Poisson counts."""

from collections.abc import Callable
from math import exp, lgamma, log


def count_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """The means under which so many events are neither unlikely many nor unlikely few (Garwood 1936)."""
    tail = (1 - level) / 2
    low = _last(lambda mean: 1 - _at_most(count - 1, mean) < tail, count) if count else 0.0
    return low, _last(lambda mean: _at_most(count, mean) > tail, count)


def _at_most(count: int, mean: float) -> float:
    """Probability of so many events or fewer."""
    return sum(exp(n * log(mean) - mean - lgamma(n + 1)) for n in range(count + 1)) if mean else 1.0


def _last(holds: Callable[[float], bool], count: int) -> float:
    """The largest mean for which something holds that stops holding, found by halving."""
    low, high = 0.0, 2.0 * count + 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
