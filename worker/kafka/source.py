"""Reading as a member of a group: a topic's records behind a gate, or a lease on the numbers of its partitions."""
# mypy: allow-subclassing-any

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from worker.errors import Fatal, Fenced, Misconfigured, WorkerError
from worker.kafka.clients import AiokafkaClients, MakeClients
from worker.kafka.connection import (
    CONNECT_ATTEMPT_SECONDS,
    CONNECT_PAUSE_SECONDS,
    Committed,
    Place,
    close_client,
    connect,
    to_kafka,
    to_record,
)
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka_settings import KafkaSettings
from worker.kip447 import Membership
from worker.log import get_logger
from worker.records import Record

NOWHERE = TopicPartition("nowhere", 0)
ANSWER_SECONDS = 5.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class Ownership:
    """What this member owns between two changes, and in whose name it commits. ``committed`` is by partition."""

    epoch: int
    membership: Membership
    committed: Mapping[int, Committed]


class End(NamedTuple):
    """Where a reader stands in a partition, and how far it could read now. Transaction markers are offsets too."""

    position: int
    last_stable_offset: int


def choose_start(place: Place, stored: Committed | None, first: int, last: int) -> Committed:
    """Where to read on: at the committed offset if it is in the log, else at the log's start.

    Raises:
        Misconfigured: the log ends before the committed offset, so it is not the log that the offset is of.
    """
    if stored is None:
        return Committed(first)
    if stored.offset > last:
        raise Misconfigured(
            f"the group has committed offset {stored.offset} of {place.topic}-{place.partition}, which ends at {last}: "
            "was the topic made anew? Reset the group's offsets, or use another group_prefix"
        )
    if stored.offset < first:
        log.error("source.records_expired", partition=place.partition, lost=first - stored.offset)
        return Committed(first, stored.metadata)
    return stored


class _Listener(ConsumerRebalanceListener):
    """aiokafka swallows what a listener raises, and sends no heartbeat while ``on_partitions_assigned`` runs."""

    def __init__(
        self,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 -- eager: all
        await self._revoked()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._assigned(assigned)


class GroupSource:
    """The partitions of a topic that a group gives to this member, behind a gate.

    The gate closes and the epoch rises whenever partitions are taken, given, or ``reopen`` is called; it opens when the
    committed offsets have been read and sought. Records come only through an open gate. Owned by one event loop; one
    task fetches. ``polls`` counts when a fetch began or ended, and is None while the member joins anew: aiokafka's own
    guard against a member that does not fetch fails once a fetch has raised.

    Args:
        kafka: the connection.
        topic: what is read.
        group: in whose name.
        stable: whether to wait for transactions that are pending on the offsets.
        when_revoked: awaited before partitions are let go; must not raise, and be done well within the rebalance
            time-out.
        recall: asked for the metadata of partitions that have none stored.
        make_clients: where the connection's clients come from.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        group: str,
        *,
        stable: bool,
        when_revoked: Callable[[], Awaitable[None]],
        recall: Callable[[Collection[int]], Awaitable[Mapping[int, str]]],
        make_clients: MakeClients = AiokafkaClients,
    ) -> None:
        self._clients = make_clients(kafka)
        self._topic = topic
        self._group = group
        self._stable = stable
        self._when_revoked = when_revoked
        self._recall = recall
        self._client: AIOKafkaConsumer | None = None
        self._epoch = 0
        self._ownership: Ownership | None = None
        self._opening: asyncio.Task[None] | None = None
        self.polls: int | None = None

    async def start(self) -> None:
        """Join the group; waits for the broker as long as it takes."""
        self._client = await connect(self._make, f"source {self._topic}")
        self._consumer.subscribe([self._topic], listener=_Listener(self._on_revoked, self._on_assigned))

    async def stop(self) -> bool:
        """Leave the group, if it was joined; False when that hung."""
        self._close_gate()
        return self._client is None or await close_client(self._client)

    @property
    def ownership(self) -> Ownership | None:
        """What is owned now; None while the gate is closed."""
        return self._ownership

    async def fetch(self, max_records: int, timeout_seconds: float, *, hold: bool = False) -> list[Record]:
        """Records that have come, of the present ownership; none while the gate is closed.

        With ``hold`` none are taken, but the member goes on living. Never cancel a fetch that should be repeated.

        Raises:
            Fatal: it will not come right by itself.
        """
        self._raise_failure()
        self.polls = (self.polls or 0) + 1
        try:
            found = await self._consumer.getmany(
                *((NOWHERE,) if hold else ()), timeout_ms=int(timeout_seconds * 1000), max_records=max_records
            )
        except (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError):  # retention overtook us
            self.reopen()
            return []
        except KAFKA_ERRORS as error:
            await self._rejoin(error)
            return []
        finally:
            self.polls = (self.polls or 0) + 1
        if self._ownership is None:
            return []
        return [to_record(record) for records in found.values() for record in records]

    async def ends(self) -> dict[int, End]:
        """By owned partition, where the next fetch reads and how far it could; absent until a first answer came."""
        ends = {}
        for partition in self._ownership.committed if self._ownership else ():
            place = TopicPartition(self._topic, partition)
            last_stable_offset = self._consumer.last_stable_offset(place)
            if last_stable_offset is not None:
                ends[partition] = End(await self._consumer.position(place), last_stable_offset)
        return ends

    async def answers(self) -> bool:
        """Whether the brokers of the owned partitions answer."""
        owned = self._ownership.committed if self._ownership else ()
        places = [TopicPartition(self._topic, partition) for partition in owned]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._consumer.end_offsets(places)
        except KAFKA_ERRORS:
            return False
        return True

    def reopen(self) -> None:
        """Read the committed offsets anew and go on from there, in a new epoch."""
        self._on_assigned(self._consumer.assignment())

    async def commit(self, offsets: Mapping[Place, Committed], membership: Membership) -> None:
        """Commit without a transaction.

        Raises:
            Fenced: the membership is no longer ours.
            Retriable: the broker does not answer.
        """
        current = self._clients.membership_of(self._consumer)
        if (current.generation, current.member_id) != (membership.generation, membership.member_id):
            raise Fenced(f"member {membership.member_id} of generation {membership.generation} is not current")
        try:
            await self._consumer.commit(to_kafka(offsets))
        except errors.IllegalStateError as error:
            raise Fenced(str(error)) from error
        except KAFKA_ERRORS as error:
            raise translate(error) from error

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        assert self._client is not None, "start it first"
        return self._client

    def _make(self) -> AIOKafkaConsumer:
        return self._clients.make_member(self._group, auto_offset_reset="none")

    async def _on_revoked(self) -> None:
        self._close_gate()
        await self._when_revoked()

    def _on_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._close_gate()
        self._consumer.pause(*assigned)
        for place in assigned:  # any position keeps aiokafka from choosing one by itself
            self._consumer.seek(place, 0)
        membership = self._clients.membership_of(self._consumer)
        self._opening = asyncio.create_task(self._open_gate(self._epoch, membership, frozenset(assigned)))

    def _close_gate(self) -> None:
        self._epoch += 1
        self._ownership = None
        if self._opening is not None:
            self._opening.cancel()

    async def _open_gate(self, epoch: int, membership: Membership, places: frozenset[TopicPartition]) -> None:
        committed = await self._read_committed(places)
        if epoch != self._epoch:
            return
        for place in places:
            self._consumer.seek(place, committed[place.partition].offset)
        self._consumer.resume(*places)
        self._ownership = Ownership(epoch, membership, committed)
        log.info("source.owned", epoch=epoch, generation=membership.generation, partitions=sorted(committed))

    async def _read_committed(self, places: frozenset[TopicPartition]) -> dict[int, Committed]:
        while True:
            try:
                async with asyncio.timeout(CONNECT_ATTEMPT_SECONDS):
                    return await self._locate(places)
            except (WorkerError, *KAFKA_ERRORS) as error:
                verdict = error if isinstance(error, WorkerError) else translate(error)
                if isinstance(verdict, Fatal):
                    raise verdict from error
                log.warning("source.waiting", error=str(verdict), partitions=sorted(p.partition for p in places))
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)

    async def _locate(self, places: frozenset[TopicPartition]) -> dict[int, Committed]:
        stored = await self._clients.fetch_committed(self._consumer, places, stable=self._stable)
        first = await self._consumer.beginning_offsets(places)
        last = await self._consumer.end_offsets(places)  # read_committed: the last stable offset
        found = {
            place.partition: choose_start(
                Place(*place), Committed(*stored[place]) if place in stored else None, first[place], last[place]
            )
            for place in places
        }
        forgotten = await self._recall([partition for partition, at in found.items() if not at.metadata])
        return found | {partition: Committed(found[partition].offset, text) for partition, text in forgotten.items()}

    def _raise_failure(self) -> None:
        if self._opening is not None and self._opening.done() and not self._opening.cancelled():
            error = self._opening.exception()
            if error is not None:
                raise error

    async def _rejoin(self, error: Exception) -> None:
        """Become a new member: after a fetch that raised, nothing says what still works in the old one."""
        verdict = translate(error)
        if isinstance(verdict, Fatal):
            raise verdict from error
        log.warning("source.rejoining", error=str(verdict))
        self.polls = None
        await self.stop()
        await self.start()


class GroupLease:
    """Membership in a group for the sake of its partitions' numbers alone: who owns number s, does job s.

    The partitions stay paused. Owned by one event loop. ``polls`` as in `GroupSource`.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: str, group: str, make_clients: MakeClients = AiokafkaClients
    ) -> None:
        self._clients = make_clients(kafka)
        self._topic = topic
        self._group = group
        self._client: AIOKafkaConsumer | None = None
        self.polls: int | None = None
        self.owned: frozenset[int] = frozenset()

    async def start(self) -> None:
        """Join the group; waits for the broker as long as it takes."""
        self._client = await connect(self._make, f"lease {self._topic}")
        self._consumer.subscribe([self._topic], listener=_Listener(self._on_revoked, self._on_assigned))

    async def stop(self) -> bool:
        """Leave the group, if it was joined; False when that hung."""
        self.owned = frozenset()
        return self._client is None or await close_client(self._client)

    async def keep(self, timeout_seconds: float) -> None:
        """Go on living as a member; to be called again and again, by one task."""
        self.polls = (self.polls or 0) + 1
        try:
            await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000))
        except KAFKA_ERRORS as error:
            verdict = translate(error)
            if isinstance(verdict, Fatal):
                raise verdict from error
            log.warning("lease.rejoining", error=str(verdict))
            self.polls = None
            await self.stop()
            await self.start()

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        assert self._client is not None, "start it first"
        return self._client

    def _make(self) -> AIOKafkaConsumer:
        return self._clients.make_member(self._group, auto_offset_reset="latest")

    async def _on_revoked(self) -> None:
        self.owned = frozenset()

    def _on_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._consumer.pause(*assigned)
        self.owned = frozenset(place.partition for place in assigned)
        log.info("lease.owned", topic=self._topic, numbers=sorted(self.owned))
