"""Writing: what belongs together is delivered together, in a transaction or at least once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, errors

from worker.errors import Abortable, Fenced, Retriable, WorkerError
from worker.kafka.clients import AiokafkaClients, Clients, MakeClients
from worker.kafka.connection import CLOSE_SECONDS, Committed, Place, close_client, connect, to_kafka
from worker.kafka.source import GroupSource
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka_settings import KafkaSettings
from worker.kip447 import Membership
from worker.log import get_logger
from worker.metrics import PRODUCER_REPLACED
from worker.records import OutRecord

log = get_logger()


@dataclass(frozen=True, slots=True)
class Ending:
    """What is written last: the marks, once the offsets of the records are known, and the input offsets."""

    marks: Sequence[OutRecord] = ()
    offsets: Mapping[Place, Committed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is written together, or not at all.

    ``end`` is told the next offset of each partition that ``records`` went to. ``membership`` is that of the fetch.
    """

    records: Sequence[OutRecord]
    end: Callable[[Mapping[Place, int]], Ending] = lambda _written: Ending()
    membership: Membership | None = None


class Sink(Protocol):
    """Delivers what belongs together, or says why it did not."""

    async def start(self) -> None:
        """Connect, also after a failed delivery; waits for the broker as long as it takes."""

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""

    async def deliver(self, delivery: Delivery) -> None:
        """Write all of it.

        Raises:
            Abortable: nothing of it will be visible; ``start`` and deliver the same again.
            Fenced: it is another's, or nobody knows; ``start`` if it is still ours, and go on from what is committed.
            Fatal: it will not come right by itself.
        """


async def _send_all(producer: AIOKafkaProducer, records: Sequence[OutRecord]) -> dict[Place, int]:
    """Send, and await every one: aiokafka commits a transaction although a send has failed."""
    waiting: list[asyncio.Future[Any]] = []
    try:
        for record in records:
            waiting.append(  # noqa: PERF401 -- what was sent must be known when a later one fails
                await producer.send(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    timestamp_ms=record.timestamp_ms,
                    headers=list(record.headers),
                )
            )
        return await _await_all(waiting)
    except BaseException:
        for future in waiting:
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen, so that nobody complains of it
        raise


async def _await_all(waiting: Sequence[asyncio.Future[Any]]) -> dict[Place, int]:
    """Wait for one after the other: those of a batch come together, so most need no waking up."""
    written: dict[Place, int] = {}
    for future in waiting:
        metadata = await future
        if metadata.offset < 0:  # a repeated request whose first answer was lost
            raise errors.DuplicateSequenceNumber(f"unknown offset in {metadata.topic}-{metadata.partition}")
        place = Place(metadata.topic, metadata.partition)
        written[place] = max(written.get(place, 0), metadata.offset + 1)
    return written


class _Producing:
    """A producer that is let go when it can no longer be trusted; ``start`` then makes the next one."""

    def __init__(self, clients: Clients, role: str, transactional_id: str | None = None) -> None:
        self.clients = clients
        self._role = role
        self._transactional_id = transactional_id
        self._producer: AIOKafkaProducer | None = None
        self._abandoned: set[asyncio.Task[bool]] = set()

    @property
    def producer(self) -> AIOKafkaProducer:
        assert self._producer is not None, "start it first, and again after a failed delivery"
        return self._producer

    async def start(self) -> None:
        if self._producer is None:
            self._producer = await connect(lambda: self.clients.make_producer(self._transactional_id), self._role)

    def discard(self, producer: AIOKafkaProducer, cause: Exception) -> None:
        PRODUCER_REPLACED.labels(self._role, type(cause).__name__).inc()
        log.warning("producer.discarded", role=self._role, cause=type(cause).__name__, error=str(cause))
        abandoning = asyncio.create_task(self.clients.abandon(producer))  # its successor need not wait for that
        self._abandoned.add(abandoning)
        abandoning.add_done_callback(self._abandoned.discard)
        if self._producer is producer:  # else it was stopped under its delivery
            self._producer = None

    async def stop(self) -> bool:
        closing = [close_client(self._producer)] if self._producer is not None else []
        self._producer = None
        return all(await asyncio.gather(*closing, *self._abandoned))


class TransactionalSink:
    """One transactional producer; each delivery is a transaction, and its offsets commit in their member's name.

    Starting it fences every other producer with this id and finishes what that had begun. After any failure but a
    refused membership the producer is let go: aiokafka leaves sequence gaps, and may not tell the broker of an abort.
    """

    def __init__(
        self, kafka: KafkaSettings, transactional_id: str, role: str, make_clients: MakeClients = AiokafkaClients
    ) -> None:
        self._timeout_seconds = kafka.transaction_timeout_ms / 1000
        self._producing = _Producing(make_clients(kafka), role, transactional_id)

    async def start(self) -> None:
        """Connect, and fence; waits for the broker as long as it takes.

        Raises:
            Misconfigured: the broker is too old to fence stale members.
        """
        await self._producing.start()
        await self._producing.clients.require_fencing(self._producing.producer)

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""
        return await self._producing.stop()

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink`."""
        producer = self._producing.producer
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._fill(producer, delivery)
        except errors.CommitFailedError as error:
            await self._abort(producer)
            raise Fenced(str(error)) from error
        except (AssertionError, *KAFKA_ERRORS) as error:
            cause = producer.failure or error
            self._producing.discard(producer, cause)
            raise _before_commit(cause) from error
        await self._commit(producer)

    async def _fill(self, producer: AIOKafkaProducer, delivery: Delivery) -> None:
        await producer.begin_transaction()
        written = await _send_all(producer, delivery.records)
        ending = delivery.end(written)
        await _send_all(producer, ending.marks)
        if ending.offsets:
            await producer.send_offsets_to_transaction(to_kafka(ending.offsets), delivery.membership)

    async def _commit(self, producer: AIOKafkaProducer) -> None:
        """Never cancelled by us: a commit that was cancelled has an unknown outcome."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await producer.commit_transaction()
        except (AssertionError, *KAFKA_ERRORS) as error:
            cause = producer.failure or error
            self._producing.discard(producer, cause)
            raise Fenced(f"the outcome of the commit is unknown: {translate(cause)}") from error

    async def _abort(self, producer: AIOKafkaProducer) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await producer.abort_transaction()
        except (AssertionError, *KAFKA_ERRORS) as error:
            self._producing.discard(producer, error)


def _before_commit(cause: Exception) -> WorkerError:
    if isinstance(cause, AssertionError):  # aiokafka asserts its own states
        return Fenced(f"aiokafka: {cause}")
    verdict = translate(cause)
    return Abortable(str(verdict)) if isinstance(verdict, Retriable) else verdict


class AtLeastOnceSink:
    """The same face without transactions: outputs, then offsets, then marks; a crash between them repeats outputs."""

    def __init__(
        self, kafka: KafkaSettings, source: GroupSource, role: str, make_clients: MakeClients = AiokafkaClients
    ) -> None:
        self._source = source
        self._timeout_seconds = kafka.transaction_timeout_ms / 1000
        self._producing = _Producing(make_clients(kafka), role)

    async def start(self) -> None:
        """Connect; waits for the broker as long as it takes."""
        await self._producing.start()

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""
        return await self._producing.stop()

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink`."""
        producer = self._producing.producer
        try:
            async with asyncio.timeout(self._timeout_seconds):
                written = await _send_all(producer, delivery.records)
                ending = delivery.end(written)
                if delivery.membership is not None:
                    await self._source.commit(ending.offsets, delivery.membership)
                await _send_all(producer, ending.marks)
        except KAFKA_ERRORS as error:
            self._producing.discard(producer, error)
            raise _before_commit(error) from error
        except Retriable as error:
            raise Abortable(str(error)) from error


class Writer:
    """Writes records without a transaction, in order, each once as far as the broker can tell: for feeds."""

    def __init__(self, kafka: KafkaSettings, role: str) -> None:
        self._producing = _Producing(AiokafkaClients(kafka), role)

    async def start(self) -> None:
        """Connect; waits for the broker as long as it takes."""
        await self._producing.start()

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""
        return await self._producing.stop()

    async def write(self, records: Sequence[OutRecord]) -> None:
        """Write all and wait until the broker has them.

        Raises:
            WorkerError: as `translate` says; some may have been written. ``start`` again before the next.
        """
        producer = self._producing.producer
        try:
            await _send_all(producer, records)
        except KAFKA_ERRORS as error:
            self._producing.discard(producer, error)
            raise translate(error) from error
