"""Writing: what belongs together is delivered together, in a transaction or at least once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, errors

from worker import kip447
from worker.errors import Abortable, Fenced, Retriable, WorkerError
from worker.kafka.connection import (
    CLOSE_SECONDS,
    Committed,
    Place,
    abandon_producer,
    close_client,
    connect,
    connection_settings,
    to_kafka,
)
from worker.kafka.source import GroupSource
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kip447 import FencedProducer, Membership
from worker.log import get_logger
from worker.metrics import PRODUCER_REPLACED
from worker.records import OutRecord
from worker.settings import KafkaSettings
from worker.topics import MAX_MESSAGE_BYTES

MAX_BATCH_BYTES = 512 << 10  # aiokafka has one request in flight a node: a unit's run should fit in one batch

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


def _producer_settings(kafka: KafkaSettings) -> dict[str, Any]:
    return connection_settings(kafka) | {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": "lz4",  # on the event loop: gzip would hold it ten times as long as zstd, lz4 a tenth
        "max_batch_size": MAX_BATCH_BYTES,
        "max_request_size": MAX_MESSAGE_BYTES,
    }


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
    except BaseException:
        for future in waiting:
            future.cancel()
        raise
    written: dict[Place, int] = {}
    for metadata in await asyncio.gather(*waiting):
        if metadata.offset < 0:  # a repeated request whose first answer was lost
            raise errors.DuplicateSequenceNumber(f"unknown offset in {metadata.topic}-{metadata.partition}")
        place = Place(metadata.topic, metadata.partition)
        written[place] = max(written.get(place, 0), metadata.offset + 1)
    return written


class _Producing:
    """A producer that is let go when it can no longer be trusted; ``start`` then makes the next one."""

    def __init__(self, make: Callable[[], AIOKafkaProducer], role: str) -> None:
        self._make = make
        self._role = role
        self._producer: AIOKafkaProducer | None = None
        self._abandoned: set[asyncio.Task[bool]] = set()

    @property
    def producer(self) -> AIOKafkaProducer:
        assert self._producer is not None, "start it first, and again after a failed delivery"
        return self._producer

    async def start(self) -> None:
        if self._producer is None:
            self._producer = await connect(self._make, self._role)

    def discard(self, cause: Exception) -> None:
        PRODUCER_REPLACED.labels(self._role, type(cause).__name__).inc()
        log.warning("producer.discarded", role=self._role, cause=type(cause).__name__, error=str(cause))
        abandoning = asyncio.create_task(abandon_producer(self.producer))  # its successor need not wait for that
        self._abandoned.add(abandoning)
        abandoning.add_done_callback(self._abandoned.discard)
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

    def __init__(self, kafka: KafkaSettings, transactional_id: str, role: str) -> None:
        self._timeout_seconds = kafka.transaction_timeout_ms / 1000
        self._producing = _Producing(
            lambda: FencedProducer(
                **_producer_settings(kafka),
                transactional_id=transactional_id,
                transaction_timeout_ms=kafka.transaction_timeout_ms,
            ),
            role,
        )

    async def start(self) -> None:
        """Connect, and fence; waits for the broker as long as it takes.

        Raises:
            Misconfigured: the broker is too old to fence stale members.
        """
        await self._producing.start()
        await kip447.require_fencing(self._producing.producer.client)

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""
        return await self._producing.stop()

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink`."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._fill(delivery)
        except errors.CommitFailedError as error:
            await self._abort()
            raise Fenced(str(error)) from error
        except (AssertionError, *KAFKA_ERRORS) as error:
            cause = self._producing.producer.fatal_error or error
            self._producing.discard(cause)
            raise _before_commit(cause) from error
        await self._commit()

    async def _fill(self, delivery: Delivery) -> None:
        producer = self._producing.producer
        await producer.begin_transaction()
        written = await _send_all(producer, delivery.records)
        ending = delivery.end(written)
        await _send_all(producer, ending.marks)
        if ending.offsets:
            await producer.send_offsets_to_transaction(to_kafka(ending.offsets), delivery.membership)

    async def _commit(self) -> None:
        """Never cancelled by us: a commit that was cancelled has an unknown outcome."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._producing.producer.commit_transaction()
        except (AssertionError, *KAFKA_ERRORS) as error:
            cause = self._producing.producer.fatal_error or error
            self._producing.discard(cause)
            raise Fenced(f"the outcome of the commit is unknown: {translate(cause)}") from error

    async def _abort(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._producing.producer.abort_transaction()
        except (AssertionError, *KAFKA_ERRORS) as error:
            self._producing.discard(error)


def _before_commit(cause: Exception) -> WorkerError:
    if isinstance(cause, AssertionError):  # aiokafka asserts its own states
        return Fenced(f"aiokafka: {cause}")
    verdict = translate(cause)
    return Abortable(str(verdict)) if isinstance(verdict, Retriable) else verdict


class AtLeastOnceSink:
    """The same face without transactions: outputs, then offsets, then marks; a crash between them repeats outputs."""

    def __init__(self, kafka: KafkaSettings, source: GroupSource, role: str) -> None:
        self._source = source
        self._timeout_seconds = kafka.transaction_timeout_ms / 1000
        self._producing = _Producing(lambda: AIOKafkaProducer(**_producer_settings(kafka)), role)

    async def start(self) -> None:
        """Connect; waits for the broker as long as it takes."""
        await self._producing.start()

    async def stop(self) -> bool:
        """Disconnect; False when that hung."""
        return await self._producing.stop()

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink`."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                written = await _send_all(self._producing.producer, delivery.records)
                ending = delivery.end(written)
                if delivery.membership is not None:
                    await self._source.commit(ending.offsets, delivery.membership)
                await _send_all(self._producing.producer, ending.marks)
        except KAFKA_ERRORS as error:
            self._producing.discard(error)
            raise _before_commit(error) from error
        except Retriable as error:
            raise Abortable(str(error)) from error


class Writer:
    """Writes records without a transaction, in order, each once as far as the broker can tell: for feeds."""

    def __init__(self, kafka: KafkaSettings, role: str) -> None:
        self._producing = _Producing(lambda: AIOKafkaProducer(**_producer_settings(kafka)), role)

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
        try:
            await _send_all(self._producing.producer, records)
        except KAFKA_ERRORS as error:
            self._producing.discard(error)
            raise translate(error) from error
