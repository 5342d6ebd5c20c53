"""Making and starting aiokafka's clients: where settings become clients, and where a broker is waited for."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from worker.errors import Fatal
from worker.kafka.refusal import find_refusal
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka_settings import KafkaSettings
from worker.log import get_logger
from worker.records import Record

CONNECT_ATTEMPT_SECONDS = 15.0
CONNECT_PAUSE_SECONDS = 1.0
CLOSE_SECONDS = 5.0
SAID_EVERY_ATTEMPTS = 30

log = get_logger()


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset, the next to be read, and what was stored with it."""

    offset: int
    metadata: str = ""


def connection_settings(kafka: KafkaSettings) -> dict[str, Any]:
    """What every client is told; secrets and certificates as their files are now.

    Raises:
        Misconfigured: one of these files cannot be used.
    """
    login = {
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.read_password(),
    }
    return {
        "security_protocol": kafka.security_protocol,
        "ssl_context": kafka.make_ssl_context() if kafka.encrypts else None,
        **(login if kafka.logs_in else {}),
        "bootstrap_servers": kafka.bootstrap_servers.split(","),
        "client_id": kafka.client_id,
        "request_timeout_ms": kafka.request_timeout_ms,
        "metadata_max_age_ms": 60_000,
    }


class Client(Protocol):
    """Any of aiokafka's clients."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


AnyClient = TypeVar("AnyClient", bound=Client)


async def connect(make: Callable[[], AnyClient], role: str) -> AnyClient:
    """Start a client; while the broker is away say so and try again, for ever.

    Raises:
        Fatal: it will not come right by waiting, such as a broker that is there and refuses us.
    """
    attempt = 0
    while True:
        client = make()
        attempt += 1
        try:
            async with asyncio.timeout(CONNECT_ATTEMPT_SECONDS):
                await client.start()
        except KAFKA_ERRORS as error:
            await close_client(client)
            verdict = await find_refusal(client) or translate(error)
            if isinstance(verdict, Fatal):
                raise verdict from error
            if attempt & (attempt - 1) == 0 or attempt % SAID_EVERY_ATTEMPTS == 0:
                log.warning("kafka.waiting", role=role, attempt=attempt, error=str(verdict))
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)
        except BaseException:
            await close_client(client)
            raise
        else:
            return client


async def await_broker(kafka: KafkaSettings) -> None:
    """Return once a broker answers; says so while none does.

    Raises:
        Fatal: it will not come right by waiting.
    """
    await close_client(await connect(lambda: AIOKafkaConsumer(**connection_settings(kafka)), "start"))


async def close_client(client: Client) -> bool:
    """Stop a client; False when it hung, which aiokafka's do while a broker is away."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.stop()
    except asyncio.CancelledError:  # a client stopped right after its start raises its own task's
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
    except (AssertionError, *KAFKA_ERRORS) as error:
        log.warning("kafka.close_failed", client=type(client).__name__, error=str(error) or "time-out")
        return False
    return True


def to_record(record: ConsumerRecord) -> Record:
    """Aiokafka's record as ours."""
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def to_kafka(offsets: Mapping[Place, Committed]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as aiokafka wants them."""
    return {
        TopicPartition(*place): OffsetAndMetadata(committed.offset, committed.metadata)
        for place, committed in offsets.items()
    }
