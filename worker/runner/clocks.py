"""Finding the clock of a raw partition that no committed offset tells: from what was last written for it."""

from collections.abc import Collection

from schemas.events import LabelledEvent, Progress
from worker.codec import decode_event, encode_clock, to_ms
from worker.kafka.clients import AiokafkaClients, MakeClients
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.kafka_settings import KafkaSettings
from worker.records import PartitionClock, Record
from worker.topics import Topics


async def recall_clocks(
    kafka: KafkaSettings, topics: Topics, partitions: Collection[int], make_clients: MakeClients = AiokafkaClients
) -> dict[int, str]:
    """By partition, its clock as the metadata of a committed offset: the larger of the last event's and last mark's.

    A partition for which nothing was ever written is absent.

    Raises:
        WorkerError: the broker does not answer, or a record is not ours.
    """
    if not partitions:
        return {}
    places = [Place(topic, number) for topic in (topics.labelled, topics.progress) for number in partitions]
    reader = LogReader(kafka, "clocks", make_clients)
    await reader.start()
    try:
        last = await reader.read_last(places)
    finally:
        await reader.stop()
    clocks = {
        number: _choose_clock(last.get(Place(topics.labelled, number)), last.get(Place(topics.progress, number)))
        for number in partitions
    }
    return {number: encode_clock(clock) for number, clock in clocks.items() if clock.clock_ms is not None}


def _choose_clock(event: Record | None, mark: Record | None) -> PartitionClock:
    clocks_ms = []
    if event is not None:
        clocks_ms.append(to_ms(decode_event(LabelledEvent, event).clock))
    if mark is not None:
        clocks_ms.append(to_ms(decode_event(Progress, mark).clock))
    return PartitionClock(max(clocks_ms, default=None), 0 if event is None else event.offset + 1)
