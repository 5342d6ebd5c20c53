"""Following labels, alerts and trends as they are committed. Reads without a group, so that any number may look."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from schemas.events import AlertEvent, AlertStatus, LabelledEvent, TrendEvent
from worker.codec import decode_event
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.records import Record
from worker.settings import Settings

FETCH_RECORDS = 500
FETCH_SECONDS = 0.2


@asynccontextmanager
async def open_reader(settings: Settings, role: str) -> AsyncIterator[LogReader]:
    """A reader that is stopped at the end."""
    reader = LogReader(settings.kafka, role)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


def output_places(settings: Settings, *, labels: bool = True, alerts: bool = True) -> list[Place]:
    """The partitions of the output topics."""
    topics = settings.topic_names
    labelled = [Place(topics.labelled, partition) for partition in range(settings.topics.partitions)] if labels else []
    return [*labelled, *([Place(topics.alerts, 0)] if alerts else [])]


async def follow(
    settings: Settings, places: Iterable[Place], *, from_start: bool, stop: asyncio.Event
) -> AsyncIterator[Record]:
    """Committed records of these partitions, as they come, until ``stop``."""
    places = list(places)
    async with open_reader(settings, "tail") as reader:
        starts = await (reader.first_offsets(places) if from_start else reader.stable_ends(places))
        reader.assign(starts)
        while not stop.is_set():
            for record in await reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
                yield record


def decode_output(settings: Settings, record: Record) -> LabelledEvent | AlertEvent:
    """The event in a record of an output topic."""
    if record.topic == settings.topic_names.alerts:
        return decode_event(AlertEvent, record)
    return decode_event(LabelledEvent, record)


async def follow_trends(settings: Settings, *, from_start: bool, stop: asyncio.Event) -> AsyncIterator[TrendEvent]:
    """Trends as they are committed, until ``stop``."""
    async for record in follow(settings, [Place(settings.topic_names.trends, 0)], from_start=from_start, stop=stop):
        yield decode_event(TrendEvent, record)


async def read_active(settings: Settings) -> list[AlertEvent]:
    """The alerts that are firing now, the strongest first."""
    async with open_reader(settings, "tail") as reader:
        newest = await reader.read_newest(Place(settings.topic_names.alerts, 0))
    alerts = [AlertEvent.model_validate_json(value) for value in newest.values() if value is not None]
    firing = [alert for alert in alerts if alert.status is AlertStatus.firing]
    return sorted(firing, key=lambda alert: -alert.W / alert.h)
