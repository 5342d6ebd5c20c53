"""Which contiguous records form the next transaction unit. Pure: takes ``now`` and facts, gives values.

A unit is a contiguous run of each partition. Batches for the device are cut inside it, by the engine.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from worker.records import Record


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """When a unit is full. It is taken as soon as the labeller is free, unless ``max_delay_seconds`` lets it grow."""

    max_records: int = 500
    max_bytes: int = 1 << 20
    max_delay_seconds: float = 0.0


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

    Owned by the labeller's loop; not thread-safe. The caller stops fetching while ``size_bytes`` is above its mark.
    """

    _queues: dict[int, deque[Record]] = field(default_factory=dict)
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

        Partitions give in turn, one record each, so that none starves; a unit has a record whatever its size.
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
        turn = deque(partition for partition, queue in sorted(self._queues.items()) if queue)
        while turn and count < limits.max_records:
            queue = self._queues[turn[0]]
            if count and size_bytes + queue[0].size_bytes > limits.max_bytes:
                break
            record = queue.popleft()
            taken.setdefault(record.partition, []).append(record)
            count, size_bytes = count + 1, size_bytes + record.size_bytes
            turn.rotate(-1)
            if not queue:
                turn.pop()
        self.count -= count
        self.size_bytes -= size_bytes
        return taken
