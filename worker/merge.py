"""The deterministic merge of the labelled partitions on their clocks; pure, a clock is epoch milliseconds.

Owns which record comes next and how far the clock is known to have come. Knows nothing of what the records mean.
"""

from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush, heapreplace
from typing import Final, Generic, NamedTuple, TypeVar

UNKNOWN_CLOCK: Final = -1
"""Below every clock: what is known of a partition that has given neither a record nor a counted mark."""

NOTHING_KNOWN: Final = (UNKNOWN_CLOCK, -1)
NO_LIMIT: Final = (2**63, 0)

Item = TypeVar("Item")


class Position(NamedTuple):
    """Where to seek: the next offset of a labelled partition, and of the progress partition beside it."""

    labelled_next_offset: int
    progress_next_offset: int


class Merged(Generic[Item]):
    """A record in merge order. ``clock_ms`` is the merge's; ``late`` where the record's own was lower."""

    __slots__ = ("clock_ms", "item", "late", "offset", "partition")

    def __init__(self, clock_ms: int, partition: int, offset: int, item: Item, *, late: bool) -> None:
        self.clock_ms: Final = clock_ms
        self.partition: Final = partition
        self.offset: Final = offset
        self.item: Final = item
        self.late: Final = late


class _Record(Generic[Item]):
    __slots__ = ("clock_ms", "item", "offset")

    def __init__(self, clock_ms: int, offset: int, item: Item) -> None:
        self.clock_ms: Final = clock_ms
        self.offset: Final = offset
        self.item: Final = item


class _Mark(NamedTuple):
    clock_ms: int
    labelled_next_offset: int
    next_offset: int


class _Partition(Generic[Item]):
    def __init__(self, position: Position, marked_clock_ms: int) -> None:
        self.position = position.labelled_next_offset
        self.progress_next_offset = position.progress_next_offset
        self.marked_clock_ms = marked_clock_ms
        self.records: deque[_Record[Item]] = deque()
        self.marks: deque[_Mark] = deque()

    def next_offset(self) -> int:
        return self.records[0].offset if self.records else self.position

    def count_marks(self) -> bool:
        """Count the marks whose records have all been taken; true when the partition is known to have come further."""
        before = self.marked_clock_ms
        while self.marks and self.marks[0].labelled_next_offset <= self.next_offset():
            mark = self.marks.popleft()
            self.marked_clock_ms = max(self.marked_clock_ms, mark.clock_ms)
            self.progress_next_offset = mark.next_offset
        return self.marked_clock_ms > before


class Merge(Generic[Item]):
    """Merges the partitions by (clock, partition), each in its own order.

    A record (c, p) is taken once every other partition q has a head above (c, p), or a counted mark (T, q) above it.
    A mark counts once every record below its ``labelled_next_offset`` has been taken and the reader has come that
    far; while such a record waits it is the head and the mark would not be asked, so a restart from ``positions``
    and ``marked_clocks_ms`` continues exactly. The clock never falls. Owned by one thread.
    """

    def __init__(self, partitions: int) -> None:
        self._expected = partitions
        self._partitions: dict[int, _Partition[Item]] = {}
        self._heads: list[tuple[int, int]] = []
        self._known_limit: tuple[int, int] | None = None
        self.clock_ms = UNKNOWN_CLOCK

    def start(self, partition: int, position: Position, marked_clock_ms: int = UNKNOWN_CLOCK) -> None:
        """Say where the reader of a partition starts, once for each."""
        if not 0 <= partition < self._expected or partition in self._partitions:
            raise ValueError(f"partition {partition} of {self._expected} cannot start, or has started already")
        self._partitions[partition] = _Partition(position, marked_clock_ms)
        self._known_limit = None

    @property
    def positions(self) -> Mapping[int, Position]:
        """Of every started partition, the first record not taken and the first mark not counted: the frontier."""
        return {
            number: Position(partition.next_offset(), partition.progress_next_offset)
            for number, partition in self._partitions.items()
        }

    @property
    def marked_clocks_ms(self) -> Mapping[int, int]:
        """The highest counted mark of every started partition."""
        return {number: partition.marked_clock_ms for number, partition in self._partitions.items()}

    def buffered(self, partition: int) -> int:
        """How many records of a partition wait to be taken."""
        return len(self._partitions[partition].records)

    def add(self, partition: int, offset: int, clock_ms: int, item: Item) -> None:
        """Buffer a record; the offsets of a partition rise.

        Raises:
            ValueError: The reader has been at this offset before.
        """
        state = self._partitions[partition]
        if offset < state.position:
            raise ValueError(f"record {offset} of partition {partition} comes after position {state.position}")
        if not state.records:
            heappush(self._heads, (clock_ms, partition))
            self._known_limit = None
        state.records.append(_Record(clock_ms, offset, item))
        self.reach(partition, offset + 1)

    def mark(self, partition: int, offset: int, clock_ms: int, labelled_next_offset: int) -> None:
        """Buffer a promise: from ``labelled_next_offset`` on, clocks of this partition are at least ``clock_ms``."""
        state = self._partitions[partition]
        state.marks.append(_Mark(clock_ms, labelled_next_offset, offset + 1))
        self._count_marks(state)

    def reach(self, partition: int, position: int) -> None:
        """Say how far the reader of a partition has come; transaction markers are offsets without a record."""
        state = self._partitions[partition]
        state.position = max(state.position, position)
        if state.marks:
            self._count_marks(state)

    def take(self) -> Merged[Item] | None:
        """The next record in merge order, None while it is not yet known which one that is."""
        if not self._heads or self._heads[0] >= self._limit():
            return None
        clock_ms, number = self._heads[0]
        state = self._partitions[number]
        record = state.records.popleft()
        if state.records:
            heapreplace(self._heads, (state.records[0].clock_ms, number))
        else:
            heappop(self._heads)
            self._known_limit = None
        if state.marks:
            self._count_marks(state)
        late = clock_ms < self.clock_ms
        self.advance(clock_ms)
        return Merged(self.clock_ms, number, record.offset, record.item, late=late)

    def advance(self, clock_ms: int) -> None:
        """Move the merge clock on to a record or to a timer below the bound; it never falls."""
        self.clock_ms = max(self.clock_ms, clock_ms)

    def bound_ms(self) -> int:
        """All records still to come are at or above this clock: timers below it may fire, before the next record.

        ``UNKNOWN_CLOCK`` while a partition has given nothing.
        """
        limit_ms = self._limit()[0]
        return min(limit_ms, self._heads[0][0]) if self._heads else limit_ms

    def _count_marks(self, state: _Partition[Item]) -> None:
        if state.count_marks():
            self._known_limit = None

    def _limit(self) -> tuple[int, int]:
        """The least (counted mark, partition) among partitions without a record: what comes there is not below it."""
        if self._known_limit is None:
            if len(self._partitions) < self._expected:
                self._known_limit = NOTHING_KNOWN
            else:
                marks = ((p.marked_clock_ms, number) for number, p in self._partitions.items() if not p.records)
                self._known_limit = min(marks, default=NO_LIMIT)
        return self._known_limit
