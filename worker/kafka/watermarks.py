"""Where logs really end, open transactions included."""

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from worker.kafka.connection import Place, close_client, connection_settings
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka_settings import KafkaSettings


async def read_high_watermarks(kafka: KafkaSettings, places: Iterable[Place]) -> dict[Place, int]:
    """The offset after the last record of each log, committed or not.

    Raises:
        WorkerError: as `translate` says.
    """
    consumer = AIOKafkaConsumer(**connection_settings(kafka))  # one that reads what is committed is told less
    try:
        await consumer.start()
        found = await consumer.end_offsets([TopicPartition(*place) for place in places])
    except KAFKA_ERRORS as error:
        raise translate(error) from error
    finally:
        await close_client(consumer)
    return {Place(*place): offset for place, offset in found.items()}
