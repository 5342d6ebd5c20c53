"""How the week usually goes: the rate of stories by hour of the week, as far as their number can tell it from chance.

Empirical Bayes, from coarse to fine: day of the week, hour of the day, hour of working days and of weekends, hour of
the week. A level that differs no more than chance is left flat, another is shrunk by a pseudo-count that its own spread
gives, so a thin archive gives a flat week. Bursts are weighed down as in Farrington's method (Noufaily et al. 2013).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from worker.surge.exposure import FLAT, HOUR_MS, HOURS, MONDAY_MS, WHOLE, Profile

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

MIN_DAYS = 4
"""Of exposure; fewer give a flat week."""
MIN_DAYS_FOR_WEEKDAYS = 14
"""A weekday met once may have been any day."""
FLOOR = 0.05
"""An hour in which no story ever came counts for so much still."""
CHANCE = 0.01
"""How often a level is taken that is chance alone."""
MANY = 3.0
"""Times a well-filled hour, and stories beyond, that an hour counts for."""
BURST = 3.0
"""Anscombe residual from which an hour is weighed down."""
ROUNDS = 4


class Hours:
    """The hours of an archive, and how much of each the feed was heard in."""

    def __init__(self, item_clocks_ms: Sequence[int], max_silence_ms: int) -> None:
        clocks = np.sort(np.asarray(item_clocks_ms, dtype=np.int64)) - MONDAY_MS
        self.first = int(clocks[0]) // HOUR_MS
        self.seen = np.zeros(int(clocks[-1]) // HOUR_MS - self.first + 1)
        breaks = np.flatnonzero(np.diff(clocks) > max_silence_ms)
        starts = clocks[np.concatenate(([0], breaks + 1))]
        ends = np.concatenate((clocks[breaks] + max_silence_ms, clocks[-1:]))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._see(start, end)

    def _see(self, start: int, end: int) -> None:
        hours = np.arange(start // HOUR_MS, end // HOUR_MS + 1)
        begun = np.maximum(hours * HOUR_MS, start)
        over = np.minimum((hours + 1) * HOUR_MS, end)
        self.seen[hours - self.first] += (over - begun) / HOUR_MS

    def place_of(self, clock_ms: Any) -> Any:
        """Which of the hours a clock is in; likewise of an array of them."""
        return (clock_ms - MONDAY_MS) // HOUR_MS - self.first

    def days_to_come(self, profile: Profile) -> Array:
        """Days of exposure from the end of each hour to that of the archive."""
        weights = np.asarray(profile.weights)[(np.arange(len(self.seen)) + self.first) % HOURS] / WHOLE
        past = np.cumsum(self.seen * weights) / 24
        to_come: Array = past[-1] - past
        return to_come

    def by_day(self, amounts: Array) -> Array:
        """Sums over the hours of each day."""
        days = (np.arange(len(self.seen)) + self.first) // 24
        return np.bincount(days - days[0], amounts).astype(np.float64)

    def count(self, clocks_ms: npt.ArrayLike) -> Array:
        """Stories in each hour."""
        hours = self.place_of(np.asarray(clocks_ms, dtype=np.int64))
        return np.bincount(hours, minlength=len(self.seen)).astype(np.float64)


def learn_week(hours: Hours, stories: Array, parent: Profile = FLAT) -> Profile:
    """The profile of some stories.

    Args:
        hours: of the archive.
        stories: their number in each of these hours.
        parent: what is believed of the week where they are too few.
    """
    heard = hours.seen > 0
    number = np.flatnonzero(heard) + hours.first
    seen, stories = hours.seen[heard], stories[heard]
    in_week, day = number % HOURS, number // 24 - hours.first // 24
    shape = np.asarray(parent.weights) / WHOLE
    if seen.sum() < MIN_DAYS * 24 or not stories.sum():
        return parent
    in_day, weekday = in_week % 24, in_week // 24
    of_weekend = in_day + 24 * (weekday >= 5)
    stories = _cut_bursts(stories, of_weekend)
    if seen.sum() >= MIN_DAYS_FOR_WEEKDAYS * 24:
        days, first_hours = np.unique(day, return_index=True)
        due = np.bincount(day, seen * shape[in_week])[days].astype(np.float64)
        ratios = _find_ratios(np.bincount(day, stories)[days].astype(np.float64), due, weekday[first_hours], 7)
        shape = shape * np.repeat(ratios, 24)
    for classes, size in ((in_day, 24), (of_weekend, 48), (in_week, HOURS)):
        expected = _as_many_a_day(seen * shape[in_week], stories, day)
        ratios = _find_ratios(stories, expected, classes, size)
        shape = shape * ratios[_classes_of_the_week(size)]
    return _to_profile(shape)


def _cut_bursts(stories: Array, classes: Classes) -> Array:
    """No hour counts for much more than a well-filled one of its class: one surge would be the habit of its day."""
    well_filled = np.array([np.quantile(stories[classes == each], 0.75) for each in range(48) if each in classes])
    limits = np.zeros(48)
    limits[np.unique(classes)] = MANY * well_filled + MANY
    return np.minimum(stories, limits[classes])


def _classes_of_the_week(size: int) -> Classes:
    hours = np.arange(HOURS)
    weekend = hours // 24 >= 5
    return {24: hours % 24, 48: hours % 24 + 24 * weekend, HOURS: hours}[size]


def _as_many_a_day(expected: Array, stories: Array, day: Classes) -> Array:
    """So that each day has as many as it had: then only its hours are compared."""
    of_day = np.bincount(day, expected).astype(np.float64)
    factor = np.divide(np.bincount(day, stories), of_day, out=np.zeros_like(of_day), where=of_day > 0)
    return expected * factor[day]


def _find_ratios(counts: Array, expected: Array, classes: Classes, size: int) -> Array:
    """Counts to what was expected of each class, shrunk to 1; all 1 where chance would do."""
    some = expected > 0
    counts, expected, classes = counts[some], expected[some], classes[some]
    weights = np.ones_like(counts)
    for _ in range(ROUNDS):
        had = np.bincount(classes, weights * counts, size)
        due = np.bincount(classes, weights * expected, size)
        due *= had.sum() / due.sum()
        scale = had.sum() / (weights * expected).sum()
        fitted = np.maximum(expected * scale * np.divide(had, due, out=np.ones(size), where=due > 0)[classes], 1e-9)
        spare = weights.sum() - (due > 0).sum()
        if spare <= 0:
            return np.ones(size)
        spread = max(1.0, float((weights * (counts - fitted) ** 2 / fitted).sum() / spare))
        residuals = 1.5 * (np.cbrt(counts) ** 2 / fitted ** (1 / 6) - np.sqrt(fitted)) / np.sqrt(spread)
        weights = np.where(residuals > BURST, (BURST / np.maximum(residuals, BURST)) ** 2, 1.0)
    met = due > 0
    excess = float(((had - due)[met] ** 2 / due[met]).sum()) / spread
    freedom = int(met.sum()) - 1
    if freedom < 1 or chi2.sf(excess, freedom) > CHANCE:
        return np.ones(size)
    pseudo_count = float(due.sum()) / max(excess - freedom, 1e-9)  # spread over the variance of the ratios
    return (had + pseudo_count) / (due + pseudo_count)


def _to_profile(shape: Array) -> Profile:
    """Thousandths whose mean is one to the last of them."""
    floored = np.maximum(shape / shape.mean(), FLOOR)
    exact = floored / floored.mean() * WHOLE
    whole = np.floor(exact).astype(np.int64)
    lacking = HOURS * WHOLE - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:lacking]] += 1
    return Profile(tuple(whole.tolist()))
