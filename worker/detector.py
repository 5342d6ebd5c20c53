"""One shard of the detector: merge, surge state and frontier; pure, wall time is an argument.

Owns what a transaction of the detector holds: its alerts and trends, one changelog record for each state that changed,
and one frontier record. When a batch is not committed the whole detector is thrown away and restored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec import json

from schemas.events import AlertEvent, LabelledEvent, Progress, StackRef
from worker.labelled import News
from worker.merge import UNKNOWN_CLOCK, Merge, Position
from worker.surge.baseline import DAY_MS
from worker.surge.keys import Key
from worker.surge.ownership import WHOLE, Ownership
from worker.surge.revision import clock_of, instant_of
from worker.surge.rules import Rules
from worker.surge.shard import Shard
from worker.surge.trends import TrendRecord, Trends
from worker.surge.versions import STATE, Versions

__all__ = ["Batch", "Detector", "Facts", "Position", "detect"]

FRONTIER_KEY: Final = b"frontier"

FRONTIER_EVERY_MS: Final = 10_000
"""How far marks alone must carry the merge before they are worth a transaction; a restart reads them again."""

_read_frontier: Final[json.Decoder[dict[str, Any]]] = json.Decoder(dict[str, Any])

Changelog = tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes; ``applied`` records are behind it."""

    alerts: tuple[AlertEvent, ...]
    changelog: Changelog
    applied: int
    trends: tuple[TrendRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``status`` says of a shard. ``late`` counts records below the merge clock since the start."""

    keys: int
    keys_learning: int
    learning: bool
    exposure_days: float
    clock: datetime | None
    firing: int
    late: int


def is_compiled() -> bool:
    """Whether this module and those that it leans on run as machine code (hatch_build.py), else as Python."""
    return not __file__.endswith(".py")


def combine_facts(shards: Sequence[Facts]) -> Facts:
    """Of all shards together: their keys and alerts summed, and where the last of them stands."""
    clocks = [facts.clock for facts in shards if facts.clock is not None]
    return Facts(
        keys=sum(facts.keys for facts in shards),
        keys_learning=sum(facts.keys_learning for facts in shards),
        learning=any(facts.learning for facts in shards),
        exposure_days=min(facts.exposure_days for facts in shards),
        clock=min(clocks) if len(clocks) == len(shards) else None,
        firing=sum(facts.firing for facts in shards),
        late=max(facts.late for facts in shards),
    )


class Detector:
    """Takes what is read from the labelled and progress partitions and gives batches to commit.

    Its alerts and trends are a function of the log alone: neither the interleaving of the partitions nor the cuts
    between batches change them. Owned by one thread.
    """

    def __init__(
        self,
        rules: Rules,
        partitions: int,
        versions: Versions = STATE,
        *,
        trends: bool = False,
        ownership: Ownership = WHOLE,
    ) -> None:
        self._partitions = partitions
        self._ownership = ownership
        self._versions = versions
        self._merge: Merge[News] = Merge(partitions)
        self._counts_trends = trends
        self._trends = Trends(rules.version, versions, ownership)
        self._shard = Shard(rules, versions, self._trends if trends else None, ownership)
        self._raw_next_offset: dict[int, int] = {}
        self._written_bound_ms = UNKNOWN_CLOCK
        self._late = 0

    @classmethod
    def restore(
        cls,
        rules: Rules,
        partitions: int,
        changelog: Iterable[tuple[bytes, bytes | None]],
        versions: Versions = STATE,
        *,
        trends: bool = False,
        ownership: Ownership = WHOLE,
    ) -> "Detector":
        """The detector as its committed changelog, in order, left it; a new one if that is empty.

        Raises:
            ValueError: A record is of a version that is not read, or the state is of another number of partitions or
                of another shard.
        """
        detector = cls(rules, partitions, versions, trends=trends, ownership=ownership)
        newest = dict(changelog)
        frontier = newest.pop(FRONTIER_KEY, None)
        if frontier is not None:
            records = {key.decode(): value for key, value in newest.items() if value is not None}
            detector._restore_from(versions.open(FRONTIER_KEY.decode(), frontier, _read_frontier), records)
        return detector

    def _restore_from(self, frontier: dict[str, Any], records: Mapping[str, bytes]) -> None:
        if (problem := _stamp_of(frontier).compare(Stamp(self._partitions, self._ownership))) is not None:
            raise ValueError(problem)
        for number, labelled, progress, marked_clock_ms, raw in frontier["partitions"]:
            self._merge.start(number, Position(labelled, progress), marked_clock_ms)
            self._raw_next_offset[number] = raw
        self._merge.advance(frontier["clock_ms"])
        self._shard.restore(frontier["totals"], records.items())
        self._trends.restore(frontier.get("trends") if self._counts_trends else None, records.items())
        self._written_bound_ms = self._merge.bound_ms()

    @property
    def positions(self) -> Mapping[int, Position]:
        """Where to seek each partition: the frontier. A partition that has not begun is absent."""
        return self._merge.positions

    def begin(self, positions: Mapping[int, Position]) -> Batch:
        """Say where partitions without a position start; the batch writes the frontier before the first record.

        Raises:
            ValueError: A partition has a position already, or is not one of this detector's.
        """
        for number in sorted(positions):
            self._merge.start(number, positions[number])
            self._raw_next_offset[number] = 0
        return self._batch([], 0)

    def add_event(self, partition: int, offset: int, event: News) -> None:
        """Take a record of a labelled partition; offsets rise."""
        self._merge.add(partition, offset, clock_of(event.clock), event)

    def add_mark(self, partition: int, offset: int, mark: Progress) -> None:
        """Take a record of a progress partition; offsets rise."""
        self._merge.mark(partition, offset, clock_of(mark.clock), mark.labelled_next_offset)

    def reach(self, partition: int, position: int) -> None:
        """The reader of labelled ``partition`` has come to ``position``; transaction markers are offsets too."""
        self._merge.reach(partition, position)

    def buffered(self, partition: int) -> int:
        """Events of a partition that wait for the merge."""
        return self._merge.buffered(partition)

    @property
    def bound_ms(self) -> int:
        """All records still to come are at or above this clock; -1 while that is unknown of a partition."""
        return self._merge.bound_ms()

    def step(self, max_records: int, emitted_at: datetime) -> Batch | None:
        """Apply what the merge allows, up to ``max_records`` records and timers; None if there is nothing to commit."""
        alerts: list[AlertEvent] = []
        trends: list[TrendRecord] = []
        applied = 0
        for _ in range(max_records):
            bound_ms, due_ms = self._merge.bound_ms(), self._trends.due_ms
            fired = self._shard.fire_timer(min(bound_ms, due_ms), emitted_at)
            if fired is not None:
                clock_ms, revisions = fired
                self._merge.advance(clock_ms)
                alerts += revisions
                continue
            if due_ms <= bound_ms:  # unlike a timer of the shard before a record of the same instant
                self._merge.advance(due_ms)
                trends += self._tell_trends()
                continue
            merged = self._merge.take()
            if merged is None:
                break
            applied += 1
            self._late += merged.late
            if self._is_new(merged.partition, merged.item):
                alerts += self._shard.apply(merged.item, merged.clock_ms, emitted_at)
        else:
            self._shard.sweep(self._merge.clock_ms)
            return self._batch(alerts, applied, trends)
        self._shard.sweep(max(self._merge.clock_ms, self._merge.bound_ms()))  # all timers below it have fired
        marked = self._merge.bound_ms() - self._written_bound_ms >= FRONTIER_EVERY_MS
        changed = self._shard.changed or self._trends.changed
        return self._batch(alerts, applied, trends) if applied or trends or changed or marked else None

    def _tell_trends(self) -> list[TrendRecord]:
        stack = self._shard.learning.stack
        assert stack is not None, "an item was counted, and no stack labelled it"
        return self._trends.tell(stack)

    def _is_new(self, partition: int, event: News) -> bool:
        """Whether this raw record is met for the first time; a labelled partition holds one raw partition in order."""
        offset = event.input.offset
        if offset < self._raw_next_offset[partition]:
            return False
        self._raw_next_offset[partition] = offset + 1
        return True

    def _batch(self, alerts: list[AlertEvent], applied: int, trends: Sequence[TrendRecord] = ()) -> Batch:
        marked_clocks_ms = self._merge.marked_clocks_ms
        frontier: dict[str, Any] = {
            "clock_ms": self._merge.clock_ms,
            "partitions": [
                (number, *position, marked_clocks_ms[number], self._raw_next_offset[number])
                for number, position in sorted(self._merge.positions.items())
            ],
            "totals": self._shard.totals(),
        }
        if self._counts_trends:
            frontier["trends"] = self._trends.told
        if not self._ownership.whole:
            frontier["shard"] = list(self._ownership)
        self._written_bound_ms = self._merge.bound_ms()
        sealed = (FRONTIER_KEY, self._versions.seal(FRONTIER_KEY.decode(), frontier))
        changes = (*self._shard.take_changes(), *self._trends.take_changes(), sealed)
        return Batch(tuple(self._own(alerts)), changes, applied, tuple(trends))

    def _own(self, alerts: Sequence[AlertEvent]) -> Iterable[AlertEvent]:
        """Those that are published here: all shards keep the common keys, and one speaks of each."""
        owns = self._ownership.owns
        return alerts if self._ownership.whole else [alert for alert in alerts if owns(str(Key.of(alert)))]

    @property
    def learning(self) -> bool:
        """Whether nothing fires yet, because there has been too little exposure under this stack."""
        return self._shard.learning.at(self._shard.exposures.flat.total_ms)

    def baselines(self) -> dict[str, tuple[float, float, float]]:
        """What a primer would know of the keys (see `worker.surge.rules.Primed`); looks at every key."""
        return self._shard.baselines()

    @property
    def stack(self) -> StackRef | None:
        """The newest stack heard."""
        return self._shard.learning.stack

    def facts(self) -> Facts:
        """Where this shard stands with the keys that it owns, as of the last batch."""
        shard, learning = self._shard, self.learning
        keys, young, firing = shard.count_keys()
        clock_ms = self._merge.clock_ms
        return Facts(
            keys=keys,
            keys_learning=keys if learning else young,
            learning=learning,
            exposure_days=shard.exposures.flat.total_ms / DAY_MS,
            clock=None if clock_ms == UNKNOWN_CLOCK else instant_of(clock_ms),
            firing=firing,
            late=self._late,
        )


class Stamp(NamedTuple):
    """What the state of a shard is of, beside its records."""

    partitions: int
    ownership: Ownership

    def compare(self, given: "Stamp") -> str | None:
        """What is wrong where other settings are given, with its mend; None where nothing is."""
        if self.partitions != given.partitions:
            return describe_partitions(self.partitions, given.partitions)
        if self.ownership != given.ownership:
            return describe_shards(self.ownership, given.ownership)
        return None


def read_stamp(frontier: bytes, versions: Versions = STATE) -> Stamp:
    """What the state is of.

    Raises:
        ValueError: The record is of a version that is not read.
    """
    return _stamp_of(versions.open(FRONTIER_KEY.decode(), frontier, _read_frontier))


def _stamp_of(frontier: dict[str, Any]) -> Stamp:
    return Stamp(len(frontier["partitions"]), Ownership(*frontier.get("shard", WHOLE)))


def describe_partitions(stamped: int, given: int) -> str:
    """What is wrong when the state is of another number of partitions, with its mend."""
    return (
        f"it is of {stamped} partitions, and topics.partitions is {given}: set topics.partitions = {stamped}, or, "
        "where topics were given more partitions, which Kafka cannot take back, begin anew under another topics.prefix "
        "and group_prefix, with topics.raw (docs/operations.md)"
    )


def describe_shards(stamped: Ownership, given: Ownership) -> str:
    """What is wrong when the state is of another number of shards, with its mend."""
    return (
        f"it is of {stamped}, and with surge.shards = {given.shards} this is {given}: set surge.shards = "
        f"{stamped.shards}, or begin anew under another topics.prefix and group_prefix, with topics.raw "
        "(docs/operations.md)"
    )


def detect(
    rules: Rules, *partitions: Sequence[LabelledEvent], emitted_at: datetime, run_out: bool = False
) -> list[AlertEvent]:
    """The alerts of an archive: see `run_through`."""
    batches = run_through(rules, *partitions, emitted_at=emitted_at, run_out=run_out)
    return [alert for batch in batches for alert in batch.alerts]


def run_through(
    rules: Rules,
    *partitions: Sequence[LabelledEvent],
    emitted_at: datetime,
    run_out: bool = False,
    trends: bool = False,
) -> Iterator[Batch]:
    """What comes of an archive: the events of each labelled partition, in order, without Kafka.

    Args:
        rules: The rule version.
        partitions: The events of each labelled partition; the clock does not fall within one.
        emitted_at: Wall time for every alert.
        run_out: Whether time goes on after the last event until every alert has resolved and every window has ended.
        trends: Whether windows are counted.
    """
    detector = Detector(rules, len(partitions), trends=trends)
    detector.begin({number: Position(0, 0) for number in range(len(partitions))})
    last = max((event.clock for events in partitions for event in events), default=None)
    if last is None:
        return
    end = last + timedelta(days=run_out, hours=rules.max_frozen_hours * run_out, milliseconds=1)
    for number, events in enumerate(partitions):
        for offset, event in enumerate(events):
            detector.add_event(number, offset, event)
        detector.add_mark(number, 0, _final_mark(number, len(events), end))
    while (batch := detector.step(10_000, emitted_at)) is not None:
        yield batch


def _final_mark(partition: int, next_offset: int, clock: datetime) -> Progress:
    return Progress(
        partition=partition,
        clock=clock,
        labelled_next_offset=next_offset,
        raw_next_offset=next_offset,
        lag=0,
        stack=StackRef(name="archive", digest=""),
    )
