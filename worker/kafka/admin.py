"""Making and describing topics, and how far a group is behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from worker.errors import Fatal, Misconfigured
from worker.kafka.clients import AiokafkaClients
from worker.kafka.connection import close_client, connection_settings
from worker.kafka.refusal import find_refusal
from worker.kafka.verdicts import DENIALS, KAFKA_ERRORS, MEND_OF_DENIAL, translate
from worker.kafka_settings import KafkaSettings
from worker.topics import TopicSpec, TopicState

PROPAGATION_SECONDS = 30.0


@contextlib.asynccontextmanager
async def administration(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for questions about the cluster; its errors are ours."""
    admin = AIOKafkaAdminClient(**connection_settings(kafka))
    try:
        await admin.start()
        yield admin
    except KAFKA_ERRORS as error:
        verdict = translate(error)
        raise (verdict if isinstance(verdict, Fatal) else await find_refusal(admin) or verdict) from error
    finally:
        await admin.close()


async def create_topics(kafka: KafkaSettings, specs: Iterable[TopicSpec], replication_factor: int) -> list[str]:
    """Make the topics that do not exist, and wait until they can be used; their names. Existing ones stay as they are.

    Raises:
        WorkerError: as `translate` says.
    """
    topics = [
        NewTopic(spec.name, spec.partitions, replication_factor, topic_configs=dict(spec.config)) for spec in specs
    ]
    async with administration(kafka) as admin:
        await admin.describe_cluster()  # else a controller under a name that cannot be dialled is waited for
        answer = await admin.create_topics(topics)
        _refuse_denied({name: code for name, code, _ in answer.topic_errors}, "Create")
        created = []
        for name, code, message in answer.topic_errors:
            kind = errors.for_code(code)
            if kind is errors.NoError:
                created.append(name)
            elif kind is not errors.TopicAlreadyExistsError:
                raise kind(f"cannot create topic {name}: {message}")
        async with asyncio.timeout(PROPAGATION_SECONDS):
            while not await _are_known(admin, created):  # noqa: ASYNC110 -- brokers learn of it one by one
                await asyncio.sleep(0.1)
        return created


async def _are_known(admin: AIOKafkaAdminClient, names: Sequence[str]) -> bool:
    described = await admin.describe_topics(list(names)) if names else []
    return all(
        not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
        for topic in described
    )


async def describe_topics(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, TopicState]:
    """How these topics are; those that do not exist are absent.

    Raises:
        WorkerError: as `translate` says.
    """
    async with administration(kafka) as admin:
        answered = await admin.describe_topics(list(names))
        _refuse_denied({topic["topic"]: topic["error_code"] for topic in answered}, "Describe")
        described = [topic for topic in answered if not topic["error_code"]]
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic["topic"]) for topic in described]
        config: dict[str, dict[str, str]] = {}
        for answer in await admin.describe_configs(resources):
            _refuse_denied({name: code for code, _, _, name, _ in answer.resources}, "DescribeConfigs")
            for _, _, _, name, entries in answer.resources:
                config[name] = {entry[0]: entry[1] for entry in entries}
        return {
            topic["topic"]: TopicState(
                name=topic["topic"],
                partitions=len(topic["partitions"]),
                replication_factor=min(len(partition["replicas"]) for partition in topic["partitions"]),
                config=config[topic["topic"]],
            )
            for topic in described
        }


def _refuse_denied(codes: Mapping[str, int], operation: str) -> None:
    denied = [name for name, code in codes.items() if errors.for_code(code) in DENIALS]
    if denied:
        raise Misconfigured(f"not authorised to {operation} topic {', '.join(sorted(denied))}; {MEND_OF_DENIAL}")


class Lag(NamedTuple):
    """How far a group is behind in a partition: what it has committed, and the log's bounds."""

    committed: int | None
    first: int
    last_stable_offset: int

    @property
    def records(self) -> int:
        """Records to be read yet, transaction markers counted as records."""
        return self.last_stable_offset - max(self.first, self.committed or 0)


async def read_lag(kafka: KafkaSettings, group: str, topic: str, partitions: int) -> dict[int, Lag]:
    """By partition, how far the group is behind; does not join it.

    Raises:
        WorkerError: as `translate` says.
    """
    places = [TopicPartition(topic, partition) for partition in range(partitions)]
    clients = AiokafkaClients(kafka)
    consumer = clients.make_consumer(group_id=group)
    try:
        await consumer.start()
        committed = await clients.fetch_committed(consumer, places, stable=False)
        first = await consumer.beginning_offsets(places)
        last = await consumer.end_offsets(places)
    except KAFKA_ERRORS as error:
        raise translate(error) from error
    finally:
        await close_client(consumer)
    return {
        place.partition: Lag(committed[place].offset if place in committed else None, first[place], last[place])
        for place in places
    }
