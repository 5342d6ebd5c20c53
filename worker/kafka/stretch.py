"""A stretch of a topic: where it lies by time, and clients for which the topic is nothing but that stretch."""
# mypy: allow-subclassing-any

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from worker.errors import Misconfigured
from worker.kafka.clients import AiokafkaClients
from worker.kafka.connection import Place, close_client
from worker.kafka.reader import LogReader
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka.watermarks import read_high_watermarks
from worker.kafka_settings import KafkaSettings

FIRST_RECORD_SECONDS = 5.0
FETCH_RECORDS = 500
FETCH_SECONDS = 0.2


class Bounds(NamedTuple):
    """The offsets of a stretch in one partition, ``end`` not among them; transaction markers have offsets too."""

    start: int
    end: int


class Found(NamedTuple):
    """A stretch in one partition, and what of its log may be missing.

    ``stable`` is how far the log can be read. ``oldest_ms`` is the timestamp of the oldest record left, where the
    stretch begins with it and older ones have been deleted; else None.
    """

    bounds: Bounds
    stable: int
    oldest_ms: int | None


class _BoundedConsumer(AIOKafkaConsumer):
    """A place in ``bounds`` begins and ends there: records behind its end are not given, and no longer fetched."""

    bounds: Mapping[TopicPartition, Bounds] = {}

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]] = await super().getmany(
            *partitions, timeout_ms=timeout_ms, max_records=max_records
        )
        for place in found.keys() & self.bounds.keys():
            within = [record for record in found[place] if record.offset < self.bounds[place].end]
            if len(within) < len(found[place]) and place in self.assignment():
                self.pause(place)
            found[place] = within
        return found

    async def position(self, partition: TopicPartition) -> int:
        position: int = await super().position(partition)
        return min(position, self.bounds[partition].end) if partition in self.bounds else position

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        stable: int | None = super().last_stable_offset(partition)
        return stable if stable is None or partition not in self.bounds else self.bounds[partition].end

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        first: dict[TopicPartition, int] = await super().beginning_offsets(partitions)
        for place in first.keys() & self.bounds.keys():
            if first[place] > self.bounds[place].start:
                raise Misconfigured(
                    f"{place.topic}-{place.partition} begins at offset {first[place]} by now, the stretch at "
                    f"{self.bounds[place].start}: the difference has expired. Replay again from a later time"
                )
        return {place: self.bounds[place].start if place in self.bounds else at for place, at in first.items()}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = await super().end_offsets(partitions)
        return {place: self.bounds[place].end if place in self.bounds else at for place, at in ends.items()}


class StretchClients(AiokafkaClients):
    """Aiokafka's clients, but that members of groups see only ``bounds`` of the places in it, as if that were all."""

    consumer_class = _BoundedConsumer

    def __init__(self, settings: KafkaSettings, bounds: Mapping[Place, Bounds]) -> None:
        super().__init__(settings)
        self._bounds = {TopicPartition(*place): bounds for place, bounds in bounds.items()}

    def make_member(self, group: str, **settings: Any) -> AIOKafkaConsumer:
        """See `Clients`."""
        member = super().make_member(group, **settings)
        member.bounds = self._bounds
        return member


async def find_stretch(kafka: KafkaSettings, topic: str, partitions: int, from_ms: int, to_ms: int) -> list[Found]:
    """Of each partition, from the first record of ``from_ms`` or later up to the first of ``to_ms`` or later.

    Raises:
        WorkerError: as `translate` says.
    """
    places = [Place(topic, partition) for partition in range(partitions)]
    high = await read_high_watermarks(kafka, places)
    starts = await _find_times(kafka, places, from_ms)
    ends = await _find_times(kafka, places, to_ms)
    reader = LogReader(kafka, "replay")
    await reader.start()
    try:
        first, stable = await reader.first_offsets(places), await reader.stable_ends(places)
        found = []
        for place in places:
            start, end = starts.get(place, high[place]), high[place]
            if place in ends:
                end = await _find_record(reader, place, ends[place], stable[place], to_ms)
            cut = 0 < first[place] == start < high[place]
            oldest_ms = await _read_timestamp(reader, place, start) if cut else None
            found.append(Found(Bounds(start, end), stable[place], oldest_ms))
    finally:
        await reader.stop()
    return found


async def _find_times(kafka: KafkaSettings, places: list[Place], timestamp_ms: int) -> dict[Place, int]:
    """The first offset of that time or later; absent where there is none."""
    consumer = AiokafkaClients(kafka).make_consumer()
    try:
        await consumer.start()
        answer = await consumer.offsets_for_times({TopicPartition(*place): timestamp_ms for place in places})
    except KAFKA_ERRORS as error:
        raise translate(error) from error
    finally:
        await close_client(consumer)
    return {Place(*place): found.offset for place, found in answer.items() if found is not None}


async def _find_record(reader: LogReader, place: Place, offset: int, stable: int, timestamp_ms: int) -> int:
    """From ``offset`` on the first record of that time or later; the broker also finds markers, which have its time."""
    reader.assign({place: offset})
    while await reader.position(place) < stable:
        for record in await reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
            if record.timestamp_ms >= timestamp_ms:
                return record.offset
    return max(offset, stable)


async def _read_timestamp(reader: LogReader, place: Place, offset: int) -> int | None:
    reader.assign({place: offset})
    for record in await reader.fetch(1, FIRST_RECORD_SECONDS):
        return record.timestamp_ms
    return None
