"""Axes of pictures: round numbers to mark, and where a value lies between the ends."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stacknorm.bundle import Interval


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, marked at round numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int
    """That tell the ticks apart."""

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)

    def name(self, value: float) -> str:
        """A tick as a number."""
        return f"{value:.{self.decimals}f}"

    def percent(self, value: float) -> str:
        """A tick in percent, without the sign."""
        return f"{100 * value:.{max(0, self.decimals - 2)}f}"


def axis_over(intervals: Iterable[Interval], *, from_zero: bool = False, ticks: int = 4) -> Axis:
    """The axis that holds all intervals, with about `ticks` steps of 1, 2 or 5 times a power of ten."""
    found = tuple(intervals)
    low = 0.0 if from_zero else min(min(one.low, one.value) for one in found)
    high = max(max(one.high, one.value) for one in found)
    step = _round_step((high - low or abs(high) or 1.0) / ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    marks = tuple(round(place * step, decimals) for place in range(first, last + 1))
    return Axis(marks[0], marks[-1], marks, decimals)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9)))
