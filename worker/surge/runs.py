"""The bank of charts of one key: open runs, and how far each has come towards its threshold.

A run starts at its first negative cluster and keeps the baseline of that moment, so its statistic is a likelihood
ratio of data that the baseline has not seen. A clock is epoch milliseconds, exposure is milliseconds of ``Exposure``.
"""

from math import floor
from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr

from worker.surge.baseline import DAY_MS
from worker.surge.exposure import Moment, MomentFields
from worker.surge.keys import WATCHLIST, Key
from worker.surge.rules import Rules
from worker.surge.statistics import (
    RATES,
    SHARE_EVIDENCE,
    exposure_at,
    run_statistic,
    share_statistic,
    threshold,
)

SMALL_STATISTIC: Final = 2.0
OUTDATED_AFTER: Final = 6
OUTDATED_BY: Final = 2.0
"""The level of a run of so many negative clusters is outdated once the baseline has seen so many times as much. Such a
run began when its key was young, tests against what was hardly known then, and would go on for weeks: a surge that
falls into it is found late. In fewer clusters W is small in a surge too."""


LevelFields = tuple[float, float, float]
RunFields = tuple[int, MomentFields, LevelFields, int, int, int]


@mypyc_attr(acyclic=True)
class Level:
    """What was normal when a run began: Gamma (a, b) of negative clusters a day, and their share."""

    __slots__ = ("a", "b", "share")

    def __init__(self, a: float, b: float, share: float) -> None:
        self.a: Final = a
        self.b: Final = b
        self.share: Final = share

    def fields(self) -> LevelFields:
        """What is written of it."""
        return self.a, self.b, self.share


@mypyc_attr(acyclic=True)
class Run:
    """A run from its first negative cluster on; counts are of clusters, that one included."""

    __slots__ = ("clusters", "copies", "first", "first_seq", "level", "negatives")

    def __init__(self, first_seq: int, first: Moment, level: Level) -> None:
        self.first_seq: Final = first_seq
        self.first: Final = first
        self.level: Final = level
        self.negatives = 0
        self.clusters = 1
        self.copies = 0

    @staticmethod
    def of(fields: RunFields) -> "Run":
        """The one that was written so."""
        first_seq, first, (a, b, share), negatives, clusters, copies = fields
        run = Run(first_seq, Moment.of(first), Level(a, b, share))
        run.negatives, run.clusters, run.copies = negatives, clusters, copies
        return run

    def fields(self) -> RunFields:
        """What is written of it."""
        first, level = self.first.fields(), self.level.fields()
        return self.first_seq, first, level, self.negatives, self.clusters, self.copies

    def copy(self) -> "Run":
        """One that counts on by itself."""
        run = Run(self.first_seq, self.first, self.level)
        run.negatives, run.clusters, run.copies = self.negatives, self.clusters, self.copies
        return run

    def statistic(self, exposure_ms: int, rate: float) -> float:
        """W(y, g; R) at an exposure; g is that since the first cluster."""
        g = (exposure_ms - self.first.exposure_ms) / DAY_MS
        return run_statistic(self.negatives, g, self.level.a, self.level.b, rate)

    def exposure_below_ms(self, statistic: float, rate: float) -> int:
        """The exposure at which W falls below ``statistic`` if no cluster comes."""
        g = exposure_at(statistic, self.negatives, self.level.a, self.level.b, rate)
        return self.first.exposure_ms + floor(g * DAY_MS) + 1

    def share_is_up(self) -> bool:
        """Whether the negative share rose too. The cluster that opened the run is negative by choice: left out."""
        return share_statistic(self.negatives - 1, self.clusters - 1, self.level.share) >= SHARE_EVIDENCE


Runs = list[Run | None]
"""The open run of each chart, in the order of ``RATES``."""


class Reading(NamedTuple):
    """A chart at an instant: rate multiple R, statistic W, threshold h, and its run."""

    rate: float
    statistic: float
    threshold: float
    run: Run

    @property
    def ratio(self) -> float:
        """W / h."""
        return self.statistic / self.threshold


def no_runs() -> Runs:
    """A bank at rest."""
    return [None] * len(RATES)


class Bank(NamedTuple):
    """The threshold h of each chart, in the order of ``RATES``, for a budget of false alerts a day."""

    thresholds: tuple[float, ...]
    budget_a_day: float


def make_bank(budget_a_day: float, negatives_a_day: float) -> Bank:
    """The bank that spends a budget among so many negative clusters a day."""
    return Bank(tuple(threshold(rate, negatives_a_day, budget_a_day) for rate in RATES), budget_a_day)


class Banks:
    """The bank of each key: a watch-list may have its own."""

    def __init__(self, rules: Rules) -> None:
        self._common = make_bank(*rules.stakes(None))
        self._own = {
            watchlist.name: make_bank(*rules.stakes(watchlist))
            for watchlist in rules.watchlists
            if watchlist.budget_a_day is not None
        }

    def of(self, key: Key) -> Bank:
        """The bank of a key."""
        return self._own.get(key.name, self._common) if key.type is WATCHLIST else self._common


def readings(runs: Runs, bank: Bank, exposure_ms: int) -> list[Reading]:
    """The open runs against the thresholds of ``bank``, the furthest first."""
    found = [
        Reading(rate, run.statistic(exposure_ms, rate), h, run)
        for rate, h, run in zip(RATES, bank.thresholds, runs, strict=True)
        if run is not None
    ]
    return sorted(found, key=lambda reading: -reading.ratio)


def has_crossed(runs: Runs, bank: Bank, exposure_ms: int) -> bool:
    """Whether a chart is at its threshold or above."""
    for index, rate in enumerate(RATES):
        run = runs[index]
        if run is not None and run.statistic(exposure_ms, rate) >= bank.thresholds[index]:
            return True
    return False


def add_negative(runs: Runs, seq: int, now: Moment, level: Level) -> None:
    """Add a negative cluster to every chart; a run that has come to nothing starts again with it.

    That is one whose W is not positive, or small although it is long and its level outdated.

    Args:
        runs: Those of a key; changed in place.
        seq: The cluster's place in the merge.
        now: Its moment.
        level: What is normal now.
    """
    for index, rate in enumerate(RATES):
        run = runs[index]
        statistic = 0.0 if run is None else run.statistic(now.exposure_ms, rate)
        if run is None or statistic <= 0 or (statistic < SMALL_STATISTIC and _is_outdated(run, level)):
            run = runs[index] = Run(seq, now, level)
        run.negatives += 1


def _is_outdated(run: Run, level: Level) -> bool:
    return run.negatives >= OUTDATED_AFTER and level.a > OUTDATED_BY * run.level.a
