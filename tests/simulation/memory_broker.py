"""Apache Kafka in memory: logs, transactions and groups as far as delivery depends on them, with clocks of asyncio.

What it models: last stable offsets, aborted records, transaction markers that take their time, producer epochs,
transaction time-outs, generations, members that are expelled, offsets that are pending in a transaction. What it leaves
out: replication, retention, the wire. Requests are plain calls and take effect at once; who calls late is late.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from worker.kip447 import Membership, UnstableOffsetCommit
from worker.records import OutRecord

TICK_SECONDS = 0.1
JOIN_SECONDS = 0.05
"""How long a group waits for others before it makes its first generation."""
MARKER_SECONDS = 0.2
"""How long a marker may take to reach a partition after its transaction has ended."""

Offsets = Mapping[TopicPartition, OffsetAndMetadata]


@dataclass(eq=False, slots=True)
class Transaction:
    """What a producer writes together, and how that ended."""

    timeout_at: float
    places: set[TopicPartition] = field(default_factory=set)
    offsets: dict[str, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)
    committed: bool | None = None


class Entry(NamedTuple):
    """An offset of a log; a marker has no record."""

    record: OutRecord | None
    transaction: Transaction | None


class Chunk(NamedTuple):
    """What a fetch found: committed records, and the position behind all that it has passed."""

    records: list[ConsumerRecord]
    next_position: int
    last_stable_offset: int


class Bell:
    """Wakes all who wait for something to change."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, most_seconds: float) -> None:
        """Wait for the bell, or for so long."""
        rung = self._rung
        try:
            async with asyncio.timeout(most_seconds):
                await rung.wait()
        except TimeoutError:
            return


class Log:
    """One partition; rings when there is something to read."""

    def __init__(self, place: TopicPartition, bell: Bell) -> None:
        self.place = place
        self._bell = bell
        self.entries: list[Entry] = []
        self._open: dict[Transaction, int] = {}

    @property
    def last_stable_offset(self) -> int:
        """Below it every transaction has ended here."""
        return min(self._open.values(), default=len(self.entries))

    def append(self, record: OutRecord, transaction: Transaction | None = None) -> int:
        """Write a record; its offset."""
        if transaction is not None:
            self._open.setdefault(transaction, len(self.entries))
        self.entries.append(Entry(record, transaction))
        self._bell.ring()
        return len(self.entries) - 1

    def mark_end(self, transaction: Transaction) -> None:
        """Write the marker of a transaction that has ended."""
        del self._open[transaction]
        self.entries.append(Entry(None, None))
        self._bell.ring()

    def read(self, position: int, most: int) -> Chunk:
        """Committed records from a position on.

        Raises:
            OffsetOutOfRangeError: the log ends before the position.
        """
        if position > len(self.entries):
            raise errors.OffsetOutOfRangeError({self.place: position})
        records: list[ConsumerRecord] = []
        stable = self.last_stable_offset
        while position < stable and len(records) < most:
            record, transaction = self.entries[position]
            if record is not None and (transaction is None or transaction.committed):
                records.append(_as_read(self.place, position, record))
            position += 1
        return Chunk(records, position, stable)


def _as_read(place: TopicPartition, offset: int, record: OutRecord) -> ConsumerRecord:
    timestamp_ms = -1 if record.timestamp_ms is None else record.timestamp_ms
    return ConsumerRecord(
        *place, offset, timestamp_ms, 0, record.key, record.value, None, -1, -1, tuple(record.headers)
    )


@dataclass(slots=True)
class _Producer:
    epoch: int = -1
    transaction: Transaction | None = None
    ending: bool = False


@dataclass(slots=True)
class _Member:
    session_seconds: float
    seen_at: float
    assigned: frozenset[TopicPartition] = frozenset()
    joining: asyncio.Future[int] | None = None


class Group:
    """A consumer group: eager rebalances, one generation after another."""

    def __init__(self, logs: Collection[TopicPartition]) -> None:
        self._logs = logs
        self._topic = ""
        self._rebalance_seconds = 0.0
        self.generation = 0
        self.members: dict[str, _Member] = {}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.pending: dict[TopicPartition, set[Transaction]] = {}
        self._joined = Bell()
        self._rebalance: asyncio.Task[None] | None = None
        self._joined_ever = 0

    async def join(self, member_id: str, topic: str, session_seconds: float, rebalance_seconds: float) -> str:
        """Be a member of the next generation; the member's id.

        Raises:
            UnknownMemberIdError: it was expelled.
        """
        self._topic, self._rebalance_seconds = topic, rebalance_seconds
        if not member_id:
            self._joined_ever += 1
            member_id = f"member-{self._joined_ever}"
            self.members[member_id] = _Member(session_seconds, _now())
        member = self._known(member_id)
        member.joining = joining = asyncio.get_running_loop().create_future()
        self._start_rebalance()
        self._joined.ring()
        await joining
        return member_id

    def assignment_of(self, member_id: str) -> frozenset[TopicPartition]:
        """What a member owns."""
        return self._known(member_id).assigned

    def heartbeat(self, member_id: str, generation: int) -> None:
        """Say that a member lives.

        Raises:
            UnknownMemberIdError: it was expelled.
            IllegalGenerationError: the group has gone on without it.
            RebalanceInProgressError: it is to join again.
        """
        member = self._known(member_id)
        member.seen_at = _now()
        if generation != self.generation:
            raise errors.IllegalGenerationError(member_id)
        if self._rebalance is not None:
            raise errors.RebalanceInProgressError(member_id)

    def leave(self, member_id: str) -> None:
        """Let a member go."""
        if self.members.pop(member_id, None) is not None and self.members:
            self._start_rebalance()

    def expel_silent(self) -> None:
        """Let those go that have not been heard of within their session."""
        for member_id, member in list(self.members.items()):
            if member.joining is None and _now() - member.seen_at > member.session_seconds:
                self.leave(member_id)

    def refuse_stale(self, membership: Membership) -> None:
        """Check that an offset commit is made in the name of a current member.

        Raises:
            CommitFailedError: it is not.
        """
        if membership.member_id not in self.members or membership.generation != self.generation:
            raise errors.CommitFailedError(f"{membership.member_id} of generation {membership.generation}")

    def fetch_committed(self, places: Collection[TopicPartition], *, stable: bool) -> dict[
        TopicPartition, OffsetAndMetadata
    ]:  # fmt: skip
        """Committed offsets.

        Raises:
            UnstableOffsetCommit: a transaction on them is pending.
        """
        if stable and any(self.pending.get(place) for place in places):
            raise UnstableOffsetCommit
        return {place: self.committed[place] for place in places if place in self.committed}

    def _known(self, member_id: str) -> _Member:
        if member_id not in self.members:
            raise errors.UnknownMemberIdError(member_id)
        return self.members[member_id]

    def _start_rebalance(self) -> None:
        if self._rebalance is None:
            self._rebalance = asyncio.create_task(self._wait_and_assign())

    async def _wait_and_assign(self) -> None:
        """Wait for all to join, expel who does not in time, and deal the partitions out."""
        deadline = _now() + self._rebalance_seconds
        await asyncio.sleep(JOIN_SECONDS)
        while any(member.joining is None for member in self.members.values()) and _now() < deadline:
            await self._joined.wait(JOIN_SECONDS)
        self.members = {name: member for name, member in self.members.items() if member.joining is not None}
        self.generation += 1
        self._rebalance = None
        places = sorted(place for place in self._logs if place.topic == self._topic)
        for number, (_, member) in enumerate(sorted(self.members.items())):
            member.assigned = frozenset(places[number :: len(self.members)])
            member.seen_at = _now()
            assert member.joining is not None
            if not member.joining.done():
                member.joining.set_result(self.generation)
            member.joining = None


class MemoryBroker:
    """The broker: made in a running event loop, to be stopped in it.

    Args:
        topics: partitions of each topic.
        random: what markers take.
        fences_members: whether offsets of a transaction are refused from a member that is not current (KIP-447).
    """

    def __init__(self, topics: Mapping[str, int], random: Random, *, fences_members: bool = True) -> None:
        self.changed = Bell()
        self.logs = {
            place: Log(place, self.changed)
            for topic, partitions in topics.items()
            for place in (TopicPartition(topic, number) for number in range(partitions))
        }
        self.groups: dict[str, Group] = {}
        self.up = True
        self._random = random
        self._fences_members = fences_members
        self._producers: dict[str, _Producer] = {}
        self._tasks = {asyncio.create_task(self._keep_time())}

    async def stop(self) -> None:
        """End all that goes on by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def group(self, name: str) -> Group:
        """A group, made when it is first asked for."""
        return self.groups.setdefault(name, Group(self.logs))

    def has_open_transactions(self) -> bool:
        """Whether any transaction has not ended everywhere."""
        return any(producer.transaction is not None for producer in self._producers.values())

    # Transactions

    def init_producer(self, transactional_id: str) -> int:
        """Fence whoever has the id, end what that had begun, and give the next epoch.

        Raises:
            ConcurrentTransactions: the end of the former transaction takes its time; ask again.
        """
        producer = self._producers.setdefault(transactional_id, _Producer())
        if producer.transaction is not None:
            if not producer.ending:
                producer.epoch += 1
                self._end(producer, commit=False)
            raise errors.ConcurrentTransactions(transactional_id)
        producer.epoch += 1
        return producer.epoch

    def produce(
        self, place: TopicPartition, records: Collection[OutRecord], writer: tuple[str, int, float] | None
    ) -> int:
        """Append records; the offset of the first.

        Args:
            place: the partition.
            records: in order.
            writer: transactional id, epoch and transaction time-out; None without a transaction.
        """
        transaction = None if writer is None else self._transaction(*writer)
        if transaction is not None:
            transaction.places.add(place)
        offsets = [self.logs[place].append(record, transaction) for record in records]
        return offsets[0]

    def add_offsets(self, writer: tuple[str, int, float], membership: Membership, offsets: Offsets) -> None:
        """Commit offsets in a transaction.

        Raises:
            CommitFailedError: the member is not current.
        """
        group = self.group(str(membership))
        transaction = self._transaction(*writer)
        if self._fences_members:
            group.refuse_stale(membership)
        transaction.offsets.setdefault(str(membership), {}).update(offsets)
        for place in offsets:
            group.pending.setdefault(place, set()).add(transaction)

    def end_transaction(self, transactional_id: str, epoch: int, *, commit: bool) -> None:
        """Decide how the open transaction ends; its markers follow.

        Raises:
            InvalidProducerEpoch: another has the id.
            InvalidTxnState: there is nothing to end.
        """
        producer = self._current(transactional_id, epoch)
        if producer.transaction is None or producer.ending:
            raise errors.InvalidTxnState(transactional_id)
        self._end(producer, commit=commit)

    def _current(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers[transactional_id]
        if producer.epoch != epoch:
            raise errors.InvalidProducerEpoch(transactional_id)
        return producer

    def _transaction(self, transactional_id: str, epoch: int, timeout_seconds: float) -> Transaction:
        producer = self._current(transactional_id, epoch)
        if producer.ending:
            raise errors.ConcurrentTransactions(transactional_id)
        if producer.transaction is None:
            producer.transaction = Transaction(_now() + timeout_seconds)
        return producer.transaction

    def _end(self, producer: _Producer, *, commit: bool) -> None:
        assert producer.transaction is not None
        producer.ending = True
        producer.transaction.committed = commit
        self.spawn(self._write_markers(producer, producer.transaction))

    async def _write_markers(self, producer: _Producer, transaction: Transaction) -> None:
        await asyncio.gather(
            *(self._mark_log(self.logs[place], transaction) for place in sorted(transaction.places)),
            *(self._mark_offsets(name, transaction) for name in transaction.offsets),
        )
        producer.transaction, producer.ending = None, False

    async def _mark_log(self, log: Log, transaction: Transaction) -> None:
        await asyncio.sleep(self._random.random() * MARKER_SECONDS)
        log.mark_end(transaction)

    async def _mark_offsets(self, name: str, transaction: Transaction) -> None:
        await asyncio.sleep(self._random.random() * MARKER_SECONDS)
        group = self.group(name)
        for place, at in transaction.offsets[name].items():
            group.pending[place].discard(transaction)
            if transaction.committed:
                group.committed[place] = at

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on by itself, whoever asked for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for group in self.groups.values():
                group.expel_silent()
            for producer in self._producers.values():
                transaction = producer.transaction
                if transaction is not None and not producer.ending and _now() > transaction.timeout_at:
                    producer.epoch += 1
                    self._end(producer, commit=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
