"""Following what people do about alerts, on ``news.actions``."""

import asyncio

from worker.actions import Actions, decode_action
from worker.errors import Fenced, Retriable
from worker.kafka.connection import Place
from worker.log import get_logger
from worker.records import Record
from worker.settings import Settings
from worker.sinks.tail import open_reader

FETCH_RECORDS = 500
FETCH_SECONDS = 0.5
PAUSE_SECONDS = 1.0

log = get_logger()


async def follow_actions(settings: Settings, actions: Actions, known: asyncio.Event, stop: asyncio.Event) -> None:
    """Keep ``actions`` as the topic is; ``known`` is set once all that was there at the start is in it."""
    place = Place(settings.topic_names.actions, 0)
    next_offset: int | None = None
    while not stop.is_set():
        try:
            async with open_reader(settings, "notify actions") as reader:
                first = (await reader.first_offsets([place]))[place]
                end = (await reader.stable_ends([place]))[place]
                reader.assign({place: first if next_offset is None else max(first, next_offset)})
                while not stop.is_set():
                    if await reader.position(place) >= end:
                        known.set()
                    for record in await reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
                        _apply(record, actions)
                        next_offset = record.offset + 1
        except (Fenced, Retriable) as error:
            log.warning("notify.actions_waiting", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)


def _apply(record: Record, actions: Actions) -> None:
    """What cannot be read counts as undone, so that it silences nothing."""
    action_id = (record.key or b"").decode(errors="replace")
    action = decode_action(record.value)
    if action is None and record.value is not None:
        log.error("notify.action_unreadable", action_id=action_id, offset=record.offset)
    actions.apply(action_id, action)
