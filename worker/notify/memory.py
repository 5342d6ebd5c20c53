"""What a receiver was told, on the compacted topic ``news.notify-state``: one record for each receiver and alert.

A file would stay behind when another process takes a receiver over, and the metadata of an offset is too small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.events import AlertEvent
from worker.codec import decode_event
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.log import get_logger
from worker.notify.decision import Told
from worker.records import OutRecord, Record
from worker.settings import Settings

_TOLD = TypeAdapter(Told)

log = get_logger()


def encode_told(topic: str, receiver: str, changes: Mapping[str, Told]) -> list[OutRecord]:
    """Records of what a receiver now knows."""
    return [
        OutRecord(topic, f"{receiver}/{alert_id}".encode(), orjson.dumps(asdict(told)), 0)
        for alert_id, told in changes.items()
    ]


def decode_told(receiver: str, newest: Mapping[bytes, bytes | None]) -> dict[str, Told]:
    """What a receiver knows, from the newest record of each key."""
    told = {}
    prefix = f"{receiver}/"
    for key, value in newest.items():
        name = key.decode(errors="replace")
        if not name.startswith(prefix) or value is None:
            continue
        try:
            told[name.removeprefix(prefix)] = _TOLD.validate_json(value)
        except ValidationError:
            log.exception("notify.state_unreadable", key=name)
    return told


async def read_told(reader: LogReader, settings: Settings, receiver: str) -> dict[str, Told]:
    """What a receiver was told up to now."""
    return decode_told(receiver, await reader.read_newest(Place(settings.topic_names.notify_state, 0)))


async def read_alerts(reader: LogReader, settings: Settings) -> tuple[list[AlertEvent], int]:
    """Each alert as it stands now, and the offset up to which that is so."""
    place = Place(settings.topic_names.alerts, 0)
    end = (await reader.stable_ends([place]))[place]
    newest = await reader.read_newest(place)
    return list(_decode_alerts(place, newest)), end


def _decode_alerts(place: Place, newest: Mapping[bytes, bytes | None]) -> Iterator[AlertEvent]:
    for key, value in newest.items():
        if value is not None:
            yield decode_event(AlertEvent, Record(*place, -1, -1, key, value))
