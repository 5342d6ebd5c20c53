"""A feed from a JSONL archive: every line a NewsItem, sent to the raw topic as it stands.

With the archive's clock, records carry ``published_at`` as their time, and heartbeats to every partition move the
clocks of those that have nothing; without it, records carry the time at which they are sent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from worker import codec
from worker.codec import HEARTBEAT_HEADER, InputRules
from worker.errors import Misconfigured, Rejected, WorkerError
from worker.kafka.admin import describe_topics
from worker.kafka.sink import Writer
from worker.records import OutRecord, Record
from worker.settings import Settings
from worker.topics import find_differences

HEARTBEAT_EVERY_MS = 15 * 60_000
LAST_HEARTBEAT_AFTER_MS = 1_000
MAX_BATCH_RECORDS = 500
BATCH_SECONDS = 0.02

Write = Callable[[Sequence[OutRecord]], Awaitable[None]]


class BadArchive(WorkerError):  # noqa: N818 -- names what it is
    """A line of an archive cannot be sent; the message names file, line and problem. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an archive that may be sent. ``published_ms`` is None where the item does not say."""

    key: bytes
    value: bytes
    published_ms: int | None


def read_archive(path: Path, *, in_order: bool) -> list[Line]:
    """All items of a file; blank lines are skipped.

    Args:
        path: a JSONL file, one NewsItem a line.
        in_order: whether every item must say when it was published, none before the one above it.

    Raises:
        BadArchive: at the first line that is no item, or out of order.
    """
    lines: list[Line] = []
    with path.open("rb") as archive:
        for number, raw in enumerate(archive, 1):
            value = raw.strip()
            if not value:
                continue
            try:
                line = _read_line(value, path.name)
                if in_order:
                    _check_order(line, lines[-1] if lines else None)
            except Rejected as rejected:
                raise BadArchive(f"{path}:{number}: {rejected.reason}") from rejected
            lines.append(line)
    return lines


def _read_line(value: bytes, source: str) -> Line:
    item = codec.decode_item(Record("archive", 0, 0, -1, None, value), InputRules())
    key = codec.identify(item, item.source or source).encode()
    return Line(key, value, None if item.published_at is None else codec.to_ms(item.published_at))


def _check_order(line: Line, above: Line | None) -> None:
    if line.published_ms is None:
        raise Rejected("order", "published_at is missing; a replay in the archive's time needs it")
    if above is not None and line.published_ms < (above.published_ms or 0):
        raise Rejected("order", "published_at is before that of the line above; sort the archive by it")


def stamp(lines: Sequence[Line], settings: Settings) -> Iterator[OutRecord]:
    """Records for the raw topic, with the time that ``idle_clock`` asks for."""
    topic = settings.topic_names.raw
    if settings.idle_clock == "data":
        return stamp_with_archive(lines, topic, settings.topics.partitions)
    return (OutRecord(topic, line.key, line.value) for line in lines)


def stamp_with_archive(lines: Iterable[Line], topic: str, partitions: int) -> Iterator[OutRecord]:
    """Records that carry ``published_at``, with heartbeats to every partition between them and behind the last."""
    beaten_ms: int | None = None
    last_ms = None
    for line in lines:
        last_ms = line.published_ms
        assert last_ms is not None  # read_archive has seen to it
        beaten_ms = last_ms if beaten_ms is None else beaten_ms
        while last_ms - beaten_ms >= HEARTBEAT_EVERY_MS:
            beaten_ms += HEARTBEAT_EVERY_MS
            yield from _heartbeats(topic, partitions, beaten_ms)
        yield OutRecord(topic, line.key, line.value, timestamp_ms=last_ms)
    if last_ms is not None:
        yield from _heartbeats(topic, partitions, last_ms + LAST_HEARTBEAT_AFTER_MS)


def _heartbeats(topic: str, partitions: int, clock_ms: int) -> Iterator[OutRecord]:
    key = HEARTBEAT_HEADER.encode()  # aiokafka sends no record without key and value
    for partition in range(partitions):
        yield OutRecord(topic, key, None, partition, ((HEARTBEAT_HEADER, b"1"),), clock_ms)


def cut_by_due_time(records: Iterable[OutRecord], speed: float | None) -> Iterator[tuple[float, list[OutRecord]]]:
    """Batches of records, in order, each with the seconds after the start at which it is due.

    Args:
        records: what will be sent; one without a timestamp is due with the one before it.
        speed: seconds of the archive in a second; None makes all due at once.
    """
    first_ms: int | None = None
    due_seconds, batch = 0.0, list[OutRecord]()
    for record in records:
        if speed is not None and record.timestamp_ms is not None:
            first_ms = record.timestamp_ms if first_ms is None else first_ms
            at_seconds = (record.timestamp_ms - first_ms) / 1000 / speed
        else:
            at_seconds = due_seconds
        if batch and (at_seconds - due_seconds > BATCH_SECONDS or len(batch) == MAX_BATCH_RECORDS):
            yield due_seconds, batch
            due_seconds, batch = at_seconds, []
        batch.append(record)
    if batch:
        yield due_seconds, batch


async def replay(
    records: Iterable[OutRecord],
    speed: float | None,
    write: Write,
    written: Callable[[list[OutRecord]], None],
) -> None:
    """Write records in order, at the pace of their timestamps.

    Args:
        records: what to write.
        speed: seconds of the archive in a second; None writes as fast as the broker takes them.
        write: returns once the broker has them.
        written: told which records it has.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    for due_seconds, batch in cut_by_due_time(records, speed):
        if (wait := started + due_seconds - loop.time()) > 0:
            await asyncio.sleep(wait)
        await write(batch)
        written(batch)


@asynccontextmanager
async def open_feed(settings: Settings) -> AsyncIterator[Write]:
    """A way to write to the raw topic; refuses one that would lose what an archive sends.

    Raises:
        Misconfigured: the raw topic is not as it must be; names the difference and its mend.
    """
    raw = settings.topic_specs[0]
    found = await describe_topics(settings.kafka, [raw.name])
    if problems := find_differences(raw, found.get(raw.name)):
        raise Misconfigured("\n".join(problems))
    writer = Writer(settings.kafka, "feed")
    await writer.start()
    try:
        yield writer.write
    finally:
        await writer.stop()
