"""What a labeller holds of its partitions during one ownership epoch, and what it writes for them. Pure: takes ``now``.

A tenure ends with its epoch and is thrown away whole: what another may own by then is never carried over.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.events import DeadLetter, Progress, StackRef
from worker.codec import decode_clock, encode_clock, to_instant
from worker.kafka.connection import Committed, Place
from worker.kafka.sink import Delivery, Ending
from worker.kafka.source import End, Ownership
from worker.labeller import LabelledRun
from worker.records import OutRecord, PartitionClock
from worker.standstill import Stand
from worker.topics import MAX_MESSAGE_BYTES, Topics
from worker.units import Backlog

IDLE_MARK_SECONDS = 1.0
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES - 4096  # what a batch of one record adds


class Reached(NamedTuple):
    """How far a delivery brings a raw partition: the offset to commit, and the clock (None while it is unset)."""

    next_offset: int
    clock_ms: int | None


@dataclass(slots=True)
class Tenure:
    """Owned by the labeller's loop.

    ``clocks_ms`` are those after the last labelled record, committed or not; ``labelled_next_offsets`` those after the
    last committed event; ``committed`` the offsets committed last.
    """

    ownership: Ownership
    clocks_ms: dict[int, int | None]
    labelled_next_offsets: dict[int, int]
    committed: dict[int, int]
    backlog: Backlog = field(default_factory=Backlog)
    _marked_at_seconds: dict[int, float] = field(default_factory=dict)

    @classmethod
    def begin(cls, ownership: Ownership) -> "Tenure":
        """Go on from what was stored with the committed offsets.

        Raises:
            Fatal: another program, or a newer version of this one, has committed.
        """
        clocks = {partition: decode_clock(at.metadata) for partition, at in ownership.committed.items()}
        return cls(
            ownership,
            {partition: clock.clock_ms for partition, clock in clocks.items()},
            {partition: clock.labelled_next_offset for partition, clock in clocks.items()},
            {partition: at.offset for partition, at in ownership.committed.items()},
        )

    def advance(self, runs: Mapping[int, LabelledRun]) -> dict[int, Reached]:
        """Take note that these runs are labelled."""
        reached = {partition: Reached(run.next_offset, run.clock_ms) for partition, run in runs.items()}
        self.clocks_ms |= {partition: at.clock_ms for partition, at in reached.items()}
        return reached

    def mark_idle(
        self, ends: Mapping[int, End], busy: Collection[int], now_ms: int, now_seconds: float
    ) -> dict[int, Reached]:
        """The partitions that are drained and whose last mark is a second old; their clocks move to ``now_ms``.

        Args:
            ends: where the reader stands in each partition.
            busy: partitions of which records are being labelled or delivered.
            now_ms: wall time; the clock that is promised.
            now_seconds: of a clock that only counts seconds.
        """
        reached = {}
        for partition, end in ends.items():
            drained = is_drained(end) and partition not in busy and not self.backlog.holds(partition)
            due = now_seconds - self._marked_at_seconds.get(partition, -IDLE_MARK_SECONDS) >= IDLE_MARK_SECONDS
            if drained and due:
                clock_ms = max(now_ms, self.clocks_ms.get(partition) or now_ms)
                self.clocks_ms[partition] = clock_ms
                self._marked_at_seconds[partition] = now_seconds
                reached[partition] = Reached(end.position, clock_ms)
        return reached

    def stands(self, ends: Mapping[int, End], busy: Collection[int]) -> dict[int, Stand]:
        """Where the work on each partition stands; arguments as of `mark_idle`."""
        return {
            partition: Stand(
                end.position,
                self.committed[partition],
                not is_drained(end) or partition in busy or self.backlog.holds(partition),
            )
            for partition, end in ends.items()
            if partition in self.committed
        }


def is_drained(end: End) -> bool:
    """Whether all that can be read has been; transaction markers are offsets without a record."""
    return end.position >= end.last_stable_offset


def encode_runs(runs: Mapping[int, LabelledRun], topics: Topics) -> list[OutRecord]:
    """The events and dead letters of labelled runs, each partition's in order."""
    events = [
        OutRecord(topics.labelled, event.item_id.encode(), event.to_json(), partition)
        for partition, run in runs.items()
        for event in run.events
    ]
    dead = [_bury(letter, topics.dead) for run in runs.values() for letter in run.dead]
    return events + dead


def _bury(letter: DeadLetter, topic: str) -> OutRecord:
    """The letter, without the value where the topic could not hold it: one hostile record must not stop the worker."""
    if len(letter.value or b"") <= MAX_DEAD_LETTER_BYTES:  # else it is not even encoded, which would take long
        encoded = letter.to_json()
        if len(encoded) + len(letter.key or b"") <= MAX_DEAD_LETTER_BYTES:
            return OutRecord(topic, letter.key, encoded)
    reason = f"{letter.reason} (the value, {len(letter.value or b'')} bytes, is left out: read it at its coordinates)"
    left = letter.model_copy(update={"value": None, "headers": (), "key": None, "reason": reason})
    return OutRecord(topic, None, left.to_json())


@dataclass(slots=True)
class Shipment:
    """What one delivery of a labeller holds. ``finish`` may run again, for each attempt; ``settle`` once, after it."""

    tenure: Tenure
    topics: Topics
    stack: StackRef
    records: Sequence[OutRecord]
    reached: Mapping[int, Reached]
    ends: Mapping[int, End]
    _labelled_next_offsets: dict[int, int] = field(default_factory=dict)

    @property
    def delivery(self) -> Delivery:
        """What is written together, in the name of the member that fetched it."""
        return Delivery(self.records, self.finish, self.tenure.ownership.membership)

    def finish(self, written: Mapping[Place, int]) -> Ending:
        """The marks and input offsets, once it is known where the events stand."""
        marks = []
        offsets = {}
        for partition, at in self.reached.items():
            labelled = Place(self.topics.labelled, partition)
            next_offset = written.get(labelled, self.tenure.labelled_next_offsets.get(partition, 0))
            self._labelled_next_offsets[partition] = next_offset
            clock = PartitionClock(at.clock_ms, next_offset)
            offsets[Place(self.topics.raw, partition)] = Committed(at.next_offset, encode_clock(clock))
            if at.clock_ms is not None:
                marks.append(self._mark(partition, at.next_offset, at.clock_ms, next_offset))
        return Ending(marks, offsets)

    def settle(self) -> None:
        """Take note that it is committed."""
        self.tenure.labelled_next_offsets |= self._labelled_next_offsets
        self.tenure.committed |= {partition: at.next_offset for partition, at in self.reached.items()}

    def lag_of(self, partition: int) -> int:
        """Raw records behind the end, after this."""
        end = self.ends.get(partition)
        return max(0, end.last_stable_offset - self.reached[partition].next_offset) if end else 0

    def _mark(self, partition: int, raw_next_offset: int, clock_ms: int, labelled_next_offset: int) -> OutRecord:
        progress = Progress(
            partition=partition,
            clock=to_instant(clock_ms),
            labelled_next_offset=labelled_next_offset,
            raw_next_offset=raw_next_offset,
            lag=self.lag_of(partition),
            stack=self.stack,
        )
        return OutRecord(self.topics.progress, str(partition).encode(), progress.to_json(), partition)
