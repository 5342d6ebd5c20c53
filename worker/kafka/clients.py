"""Kafka's clients as an input to the edge: aiokafka's, or those of a broker in memory."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from worker import kip447
from worker.kafka.connection import CLOSE_SECONDS, CONNECT_PAUSE_SECONDS, connection_settings
from worker.kafka.verdicts import KAFKA_ERRORS
from worker.kafka_settings import KafkaSettings
from worker.kip447 import FencedProducer, Membership
from worker.topics import MAX_MESSAGE_BYTES

MAX_BATCH_BYTES = 512 << 10  # aiokafka has one request in flight a node: a unit's run should fit in one batch


class Clients(Protocol):
    """Makes clients that behave as aiokafka's do, and knows of them what aiokafka has no public way to ask."""

    @property
    def settings(self) -> KafkaSettings:
        """Of the connection."""

    def make_consumer(self, **settings: Any) -> AIOKafkaConsumer:
        """A consumer that reads what is committed and commits nothing by itself."""

    def make_member(self, group: str, **settings: Any) -> AIOKafkaConsumer:
        """A consumer that lives in a group."""

    def make_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """A producer that writes each record once, in transactions if it has an id for them."""

    def membership_of(self, member: AIOKafkaConsumer) -> Membership:
        """Who a consumer is in its group at this moment; generation -1 while it is in none."""

    async def fetch_committed(
        self, member: AIOKafkaConsumer, places: Collection[TopicPartition], *, stable: bool
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets with their metadata; ``stable`` waits for transactions that are pending on them.

        A partition without a committed offset is missing from the answer. The caller bounds the time.
        """

    async def require_fencing(self, producer: AIOKafkaProducer) -> None:
        """Refuse what would not fence a stale member.

        Raises:
            Misconfigured: says what it is, and what to do.
        """

    async def abandon(self, producer: AIOKafkaProducer) -> bool:
        """Close a producer without flushing, which would wait for the broker; False when even that hung."""


class AiokafkaClients:
    """The clients of aiokafka."""

    consumer_class: type[AIOKafkaConsumer] = AIOKafkaConsumer

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    def make_consumer(self, **settings: Any) -> AIOKafkaConsumer:
        """See `Clients`."""
        return self.consumer_class(
            **connection_settings(self.settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            check_crcs=True,
            **settings,
        )

    def make_member(self, group: str, **settings: Any) -> AIOKafkaConsumer:
        """See `Clients`."""
        return self.make_consumer(
            group_id=group,
            session_timeout_ms=self.settings.session_timeout_ms,
            heartbeat_interval_ms=self.settings.heartbeat_interval_ms,
            max_poll_interval_ms=self.settings.max_poll_interval_ms,
            rebalance_timeout_ms=self.settings.rebalance_timeout_ms,  # aiokafka's default is the session time-out
            **settings,
        )

    def make_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """See `Clients`."""
        settings = connection_settings(self.settings) | {
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "lz4",  # on the event loop: gzip would hold it ten times as long as zstd, lz4 a tenth
            "max_batch_size": MAX_BATCH_BYTES,
            "max_request_size": MAX_MESSAGE_BYTES,
        }
        if transactional_id is None:
            return AIOKafkaProducer(**settings)
        return FencedProducer(
            **settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=self.settings.transaction_timeout_ms,
        )

    def membership_of(self, member: AIOKafkaConsumer) -> Membership:
        """See `Clients`."""
        return kip447.membership_of(member)

    async def fetch_committed(
        self, member: AIOKafkaConsumer, places: Collection[TopicPartition], *, stable: bool
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """See `Clients`."""
        if stable:
            return await kip447.fetch_committed(member, places)
        # The public way drops the metadata.
        found: dict[TopicPartition, OffsetAndMetadata] = await member._coordinator.fetch_committed_offsets(list(places))  # noqa: SLF001
        return found

    async def require_fencing(self, producer: AIOKafkaProducer) -> None:
        """See `Clients`."""
        await kip447.require_fencing(producer.client)

    async def abandon(self, producer: AIOKafkaProducer) -> bool:
        """See `Clients`."""
        producer._closed = True  # noqa: SLF001 -- aiokafka's own stop flushes
        sending = producer._sender.sender_task  # noqa: SLF001
        for _ in range(3):  # aiokafka's sender first waits for what it has begun
            if sending is None or sending.done():
                break
            sending.cancel()
            await asyncio.wait([sending], timeout=CONNECT_PAUSE_SECONDS)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await producer.client.close()
        except KAFKA_ERRORS:
            return False
        return True


MakeClients = Callable[[KafkaSettings], Clients]
