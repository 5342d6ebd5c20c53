"""What is normal for a key: forgotten exponentially, behind a guard gap, frozen by the caller while an alert fires.

Counts of the last hours wait in ``pending`` until they are older than the guard gap; then they and the same hours of
exposure enter the baseline together. Hours are hours of exposure.
"""

from math import exp, log
from typing import Final

from mypy_extensions import mypyc_attr

from worker.surge.rules import Prior, Rules

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

BaselineFields = tuple[int, float, float, float, list[list[int]]]


@mypyc_attr(acyclic=True)
class Baseline:
    """Decayed counts of negative and of all clusters in a decayed exposure, without the prior.

    Hours below ``folded_hour`` are in, or left out for good. ``pending`` holds [hour, negatives, clusters].
    """

    __slots__ = ("clusters", "exposure_days", "folded_hour", "negatives", "pending")

    def __init__(
        self, folded_hour: int, negatives: float = 0.0, clusters: float = 0.0, exposure_days: float = 0.0
    ) -> None:
        self.folded_hour = folded_hour
        self.negatives = negatives
        self.clusters = clusters
        self.exposure_days = exposure_days
        self.pending: list[list[int]] = []

    @staticmethod
    def of(fields: BaselineFields) -> "Baseline":
        """The one that was written so."""
        folded_hour, negatives, clusters, exposure_days, pending = fields
        baseline = Baseline(folded_hour, negatives, clusters, exposure_days)
        baseline.pending = pending
        return baseline

    def fields(self) -> BaselineFields:
        """What is written of it."""
        return self.folded_hour, self.negatives, self.clusters, self.exposure_days, self.pending

    @staticmethod
    def starting_after(exposure_ms: int, primed: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> "Baseline":
        """A baseline from the next full hour on: empty, or with what a primer knows (see `Primed`).

        It leaves out the cluster that made the key known: counting that one would bias every new key upwards.
        """
        negatives, clusters, exposure_days = primed
        return Baseline(exposure_ms // HOUR_MS + 1, negatives, clusters, exposure_days)

    def add(self, exposure_ms: int, negative: bool, rules: Rules) -> None:
        """Count a cluster, and take in the hours that have left the guard gap."""
        hour = exposure_ms // HOUR_MS
        if hour < self.folded_hour:
            return
        if not self.pending or self.pending[-1][0] != hour:
            self.fold(hour - rules.guard_hours, rules.half_life_days)
            self.pending.append([hour, 0, 0])
        newest = self.pending[-1]
        if negative:
            newest[1] += 1
        newest[2] += 1

    def fold(self, end_hour: int, half_life_days: float) -> None:
        """Take in the pending hours below ``end_hour``, each decayed from its middle."""
        elapsed = end_hour - self.folded_hour
        if elapsed <= 0:
            return
        decay_an_hour = log(2) / (24 * half_life_days)
        kept = exp(-decay_an_hour * elapsed)
        self.negatives *= kept
        self.clusters *= kept
        self.exposure_days = self.exposure_days * kept + (1 - kept) / (24 * decay_an_hour)
        while self.pending and self.pending[0][0] < end_hour:
            hour, negatives, clusters = self.pending.pop(0)
            weight = exp(-decay_an_hour * (end_hour - hour - 0.5))
            self.negatives += weight * negatives
            self.clusters += weight * clusters
        self.folded_hour = end_hour

    def taken_to(self, exposure_ms: int, rules: Rules) -> tuple[float, float, float]:
        """Negatives, clusters and days of exposure once the hours up to the guard gap are in; leaves this one alone."""
        taken = Baseline(self.folded_hour, self.negatives, self.clusters, self.exposure_days)
        taken.pending = list(self.pending)
        taken.fold(exposure_ms // HOUR_MS - rules.guard_hours, rules.half_life_days)
        return taken.negatives, taken.clusters, taken.exposure_days

    def rate(self, prior: Prior) -> tuple[float, float]:
        """Gamma (a, b) of the negative clusters a day."""
        return prior.a0 + self.negatives, prior.b0 + self.exposure_days

    def share(self, parent: float, prior_clusters: float) -> float:
        """Posterior mean of the negative share, shrunk to the parent's by a Beta prior worth ``prior_clusters``."""
        return (prior_clusters * parent + self.negatives) / (prior_clusters + self.clusters)

    def thaw(self, exposure_ms: int) -> None:
        """Go on after an alert without the surge, nor the guard gap before it."""
        self.pending.clear()
        self.folded_hour = exposure_ms // HOUR_MS + 1

    def rebase(self, exposure_ms: int, negatives: int, clusters: int, exposure_days: float, prior: Prior) -> None:
        """Start again from the level seen while the alert fired.

        What the prior weighs is taken out of that exposure: beside it, it would pull a level of two days down by a
        fifth, and what goes on would soon be a surge again.
        """
        self.thaw(exposure_ms)
        weight = max(1.0, prior.b0 / exposure_days)
        self.negatives, self.clusters = weight * negatives, weight * clusters
        self.exposure_days = weight * exposure_days - prior.b0
