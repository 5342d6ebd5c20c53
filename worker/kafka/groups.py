"""Who owns what in a consumer group."""

from typing import NamedTuple

from aiokafka import errors
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from worker.kafka.admin import administration
from worker.kafka.verdicts import DENIALS, translate
from worker.kafka_settings import KafkaSettings

ERROR_CODE, MEMBERS = 0, 5  # fields of a described group


class Owner(NamedTuple):
    """A member of a group."""

    client_id: str
    host: str


async def read_owners(kafka: KafkaSettings, group: str, topic: str) -> dict[int, Owner]:
    """By partition of ``topic``, the member of ``group`` that owns it; a partition without one is absent.

    Raises:
        WorkerError: as `translate` says.
    """
    async with administration(kafka) as admin:
        (answer,) = await admin.describe_consumer_groups([group])
    owners: dict[int, Owner] = {}
    (described,) = answer.groups
    if (error := errors.for_code(described[ERROR_CODE])) in DENIALS:
        raise translate(error(group))
    for _member_id, client_id, client_host, _metadata, assignment, *_ in described[MEMBERS]:
        if assignment:
            for partition in _owned(assignment, topic):
                owners[partition] = Owner(client_id, client_host.lstrip("/"))
    return owners


def _owned(assignment: bytes, topic: str) -> list[int]:
    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
    return [partition for name, partitions in decoded.assignment for partition in partitions if name == topic]
