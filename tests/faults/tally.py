"""What became of a campaign: did its faults hit, what is wrong with its outputs, and the lines that say so. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from verify import Violation

from .plan import Fault, Kind

RECOVERY_SECONDS = 120.0
"""Within which the work must go on after every fault."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that was carried out.

    Attributes:
        fault: which.
        victim: the worker or node.
        left_at_strike: records that waited for the victim when it was hit.
        left_at_mend: records that waited when the fault was mended.
        in_transaction: whether the victim was met with a transaction open.
        recovery_seconds: from the strike until the work that had waited went on, in every partition.
    """

    fault: Fault
    victim: str
    left_at_strike: int
    left_at_mend: int
    in_transaction: bool
    recovery_seconds: float

    @property
    def is_proven(self) -> bool:
        """Whether it hit under load."""
        return self.left_at_strike > 0 and self.left_at_mend > 0


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign at its end.

    Attributes:
        seed: of its plan.
        planned: how many faults of each kind were asked for.
        hits: those that were carried out.
        inputs: records that must each give one event or dead letter, as read from the raw topic.
        alerts: how many revisions of alerts were told.
        violations: what the verifier found.
        unfinished: traces of open transactions.
        exit_statuses: of the workers that SIGTERM ended, by name.
    """

    seed: int
    planned: Mapping[Kind, int]
    hits: Sequence[Hit]
    inputs: int
    alerts: int
    violations: Sequence[Violation]
    unfinished: Mapping[str, object]
    exit_statuses: Mapping[str, int]

    @property
    def proven(self) -> dict[str, int]:
        """How many faults of each kind hit under load."""
        counted = Counter(hit.fault.kind for hit in self.hits if hit.is_proven)
        return {kind.value: counted[kind] for kind in Kind}

    def count(self, what: str) -> int:
        """How many events and dead letters are ``lost``, or ``duplicated``."""
        return sum(each.what == what and not _is_of_alerts(each) for each in self.violations)

    @property
    def tally(self) -> str:
        """The last line."""
        equal = "no" if any(map(_is_of_alerts, self.violations)) or not self.alerts else "yes"
        return (
            f"records {self.inputs} lost {self.count('lost')} duplicated {self.count('duplicated')} "
            f"alerts-equal {equal} faults {self.proven}"
        )

    @property
    def recoveries(self) -> str:
        """The line before it: the seed, and how long the work stood still."""
        told = [f"{kind} {_describe_seconds(seconds)}" for kind in Kind if (seconds := self._seconds(kind))]
        met = sum(hit.in_transaction for hit in self.hits)
        return (
            f"seed {self.seed} recovery seconds: {', '.join(told) or 'none'}; "
            f"{met} workers were hit in an open transaction; {self.alerts} revisions of alerts"
        )

    def find_faults(self) -> Iterator[str]:
        """All that keeps this from being a success."""
        for kind, count in self.planned.items():
            if self.proven[kind] != count:
                yield f"{self.proven[kind]} of {count} faults of kind {kind} hit under load"
        yield from (
            f"{hit.fault.kind} of {hit.victim}: {hit.recovery_seconds:.0f} s" for hit in self.hits if is_slow(hit)
        )
        yield from map(str, self.violations)
        yield from (f"unfinished: {name} {what}" for name, what in self.unfinished.items())
        yield from (f"{name} ended with status {status}" for name, status in self.exit_statuses.items() if status)
        if not self.alerts:
            yield "no alert was told, so none was compared"
        if not self.inputs:
            yield "nothing was fed"

    def _seconds(self, kind: Kind) -> list[float]:
        return [hit.recovery_seconds for hit in self.hits if hit.fault.kind is kind]


def is_slow(hit: Hit) -> bool:
    """Whether the work stood still for longer than is promised."""
    return hit.recovery_seconds > RECOVERY_SECONDS


def _describe_seconds(seconds: Sequence[float]) -> str:
    return f"median {median(seconds):.1f} max {max(seconds):.1f}"


def _is_of_alerts(violation: Violation) -> bool:
    return violation.where.startswith("alert ")
