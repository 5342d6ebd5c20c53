"""The bank of charts of one key: open runs, and how far each has come towards its threshold.

A run starts at its first negative cluster and keeps the baseline of that moment, so its statistic is a likelihood
ratio of data that the baseline has not seen. A clock is epoch milliseconds, exposure is milliseconds of ``Exposure``.
"""

from collections.abc import Callable
from math import floor
from typing import NamedTuple

from msgspec import Struct

from schemas.events import KeyType
from worker.surge.baseline import DAY_MS
from worker.surge.exposure import Moment
from worker.surge.keys import Key
from worker.surge.rules import Rules
from worker.surge.statistics import (
    RATES,
    SHARE_EVIDENCE,
    exposure_at,
    run_statistic,
    share_statistic,
    threshold,
)

SMALL_STATISTIC = 2.0
OUTDATED_AFTER = 6
OUTDATED_BY = 2.0
"""The level of a run of so many negative clusters is outdated once the baseline has seen so many times as much. Such a
run began when its key was young, tests against what was hardly known then, and would go on for weeks: a surge that
falls into it is found late. In fewer clusters W is small in a surge too."""


class Level(Struct, frozen=True, array_like=True, gc=False):
    """What was normal when a run began: Gamma (a, b) of negative clusters a day, and their share."""

    a: float
    b: float
    share: float


class Run(Struct, array_like=True, gc=False):
    """A run from its first negative cluster on; counts are of clusters, that one included."""

    first_id: str
    first_seq: int
    first: Moment
    level: Level
    negatives: int = 0
    clusters: int = 1
    copies: int = 0

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
        return self._own.get(key.name, self._common) if key.type is KeyType.watchlist else self._common


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
    for run, rate, h in zip(runs, RATES, bank.thresholds, strict=True):
        if run is not None and run.statistic(exposure_ms, rate) >= h:
            return True
    return False


def add_negative(runs: Runs, cluster_id: str, seq: int, now: Moment, find_level: Callable[[], Level]) -> None:
    """Add a negative cluster to every chart; a run that has come to nothing starts again with it.

    That is one whose W is not positive, or small although it is long and its level outdated.

    Args:
        runs: Those of a key; changed in place.
        cluster_id: Of the cluster.
        seq: Its place in the merge.
        now: Its moment.
        find_level: What is normal now; asked only where it may matter.
    """
    level: Level | None = None
    for index, rate in enumerate(RATES):
        run = runs[index]
        if run is None or (statistic := run.statistic(now.exposure_ms, rate)) < SMALL_STATISTIC:
            level = level or find_level()
            if run is None or statistic <= 0 or _is_outdated(run, level):
                run = runs[index] = Run(cluster_id, seq, now, level)
        run.negatives += 1


def _is_outdated(run: Run, level: Level) -> bool:
    return run.negatives >= OUTDATED_AFTER and level.a > OUTDATED_BY * run.level.a
