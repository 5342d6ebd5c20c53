"""Which contiguous records form the next transaction unit. Pure: takes ``now`` and facts, gives values.

A unit is a contiguous run of each partition. Batches for the device are cut inside it, by the engine.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from worker.records import Record

FIRST_BYTES = 64 << 10  # of units before one was timed
LEARNT_SHARE = 0.2  # of a unit's pace that enters the estimate when it was faster


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """When a unit is full. It is taken as soon as the labeller is free, unless ``max_delay_seconds`` lets it grow."""

    max_records: int = 2000
    max_bytes: int = 1 << 20
    max_delay_seconds: float = 0.0
    max_seconds: float = 5.0


@dataclass(slots=True)
class Pace:
    """What a record takes to label, estimated from the units so far: a slower unit counts at once, a faster by a part.

    Owned by the labeller's loop.
    """

    seconds_per_record: float | None = None

    def observe(self, records: int, seconds: float) -> None:
        """Take note of a labelled unit."""
        taken, before = seconds / records, self.seconds_per_record
        faster = before is not None and taken < before
        self.seconds_per_record = before + LEARNT_SHARE * (taken - before) if before and faster else taken

    def narrow(self, limits: UnitLimits) -> UnitLimits:
        """Limits of a unit that takes ``max_seconds`` at most, as far as is known; one record is always allowed."""
        if self.seconds_per_record is None:
            return replace(limits, max_bytes=min(limits.max_bytes, FIRST_BYTES))
        most = limits.max_seconds / self.seconds_per_record if self.seconds_per_record else limits.max_records
        return replace(limits, max_records=max(1, int(min(limits.max_records, most))))


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Fetching stops where either high mark is passed, and goes on where both low marks are not."""

    high_bytes: int = 8 << 20
    low_bytes: int = 4 << 20
    high_records: int = 20_000
    low_records: int = 10_000


@dataclass(frozen=True, slots=True)
class Run:
    """Contiguous records of one partition, never empty."""

    records: tuple[Record, ...]

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return self.records[0].offset

    @property
    def next_offset(self) -> int:
        """Offset after the last record: what is committed."""
        return self.records[-1].offset + 1


@dataclass(frozen=True, slots=True)
class Unit:
    """What one transaction moves: a run of each partition."""

    runs: Mapping[int, Run]

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(len(run.records) for run in self.runs.values())


@dataclass(slots=True)
class Backlog:
    """Records fetched and not yet in a unit, oldest first, for the partitions of one ownership epoch.

    Owned by the labeller's loop; not thread-safe. The caller stops fetching while it ``is_full``.
    """

    _queues: dict[int, deque[Record]] = field(default_factory=dict)
    _last_partition: int = -1
    _since_seconds: float = 0.0
    size_bytes: int = 0
    count: int = 0

    def add(self, records: Iterable[Record], now_seconds: float) -> None:
        """Append records of any partitions, each partition's in offset order."""
        if not self.count:
            self._since_seconds = now_seconds
        for record in records:
            self._queues.setdefault(record.partition, deque()).append(record)
            self.size_bytes += record.size_bytes
            self.count += 1

    def is_full(self, limits: BacklogLimits, *, was_full: bool) -> bool:
        """Whether no more should be fetched."""
        if was_full:
            return self.size_bytes > limits.low_bytes or self.count > limits.low_records
        return self.size_bytes > limits.high_bytes or self.count > limits.high_records

    def holds(self, partition: int) -> bool:
        """Whether records of this partition wait here."""
        return bool(self._queues.get(partition))

    def drop(self, partitions: Collection[int] | None = None) -> None:
        """Forget the records of these partitions (of all, without an argument): they are no longer ours."""
        for partition in list(self._queues if partitions is None else partitions):
            for record in self._queues.pop(partition, ()):
                self.size_bytes -= record.size_bytes
                self.count -= 1

    def take_unit(self, limits: UnitLimits, now_seconds: float) -> Unit | None:
        """The next unit, or None while there is nothing, or not enough and ``max_delay_seconds`` has not passed.

        Partitions give in turn, one record each, from unit to unit, so that none starves; a unit has a record whatever
        its size.
        """
        full = self.count >= limits.max_records or self.size_bytes >= limits.max_bytes
        if not self.count or not (full or now_seconds - self._since_seconds >= limits.max_delay_seconds):
            return None
        taken = self._take_in_turn(limits)
        self._since_seconds = now_seconds
        return Unit({partition: Run(tuple(records)) for partition, records in taken.items()})

    def _take_in_turn(self, limits: UnitLimits) -> dict[int, list[Record]]:
        taken: dict[int, list[Record]] = {}
        count = size_bytes = 0
        turn = self._line_up()
        while turn and count < limits.max_records:
            queue = self._queues[turn[0]]
            if count and size_bytes + queue[0].size_bytes > limits.max_bytes:
                break
            record = queue.popleft()
            self._last_partition = record.partition
            taken.setdefault(record.partition, []).append(record)
            count, size_bytes = count + 1, size_bytes + record.size_bytes
            turn.rotate(-1)
            if not queue:
                turn.pop()
        self.count -= count
        self.size_bytes -= size_bytes
        return taken

    def _line_up(self) -> deque[int]:
        """The partitions that have records, those behind the one that gave last first."""
        waiting = sorted(partition for partition, queue in self._queues.items() if queue)
        behind = [partition for partition in waiting if partition > self._last_partition]
        return deque(behind + waiting[: len(waiting) - len(behind)])
