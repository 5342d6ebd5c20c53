"""What a redrive needs of Kafka: a way to write in transactions that fences an earlier redrive, and the raw topic."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from worker.codec import to_ms
from worker.dlq.redrive import Deliver, RedriveRules
from worker.kafka.admin import describe_topics
from worker.kafka.sink import Delivery, TransactionalSink
from worker.records import OutRecord
from worker.settings import Settings
from worker.topics import HOUR_MS, TopicState


@asynccontextmanager
async def open_delivery(settings: Settings, *, dry_run: bool = False) -> AsyncIterator[Deliver]:
    """A way to write a batch in one transaction; with ``dry_run`` one that writes nothing.

    To be opened before the notes are read: then no earlier redrive can write any more.
    """
    if dry_run:
        yield _deliver_nothing
        return
    sink = TransactionalSink(settings.kafka, f"{settings.group_prefix}-redrive", "redrive")

    async def deliver(records: Sequence[OutRecord]) -> None:
        await sink.deliver(Delivery(records))

    try:
        await sink.start()
        yield deliver
    finally:
        await sink.stop()


async def _deliver_nothing(records: Sequence[OutRecord]) -> None:
    """See `open_delivery`."""


async def read_rules(settings: Settings, max_times: int, now: datetime) -> RedriveRules:
    """Where letters go and which may, by the raw topic as it is."""
    raw = settings.topic_names.raw
    found = await describe_topics(settings.kafka, [raw])
    oldest_ms = oldest_kept_ms(found[raw], to_ms(now))
    return RedriveRules(settings.topic_names.dead, raw, settings.topics.partitions, max_times, oldest_ms)


def oldest_kept_ms(raw: TopicState, now_ms: int) -> int | None:
    """The timestamp before which a record written now would soon be deleted again; None where all are kept.

    An hour is left for the labeller to read it.
    """
    retention_ms = int(raw.config.get("retention.ms", "-1"))
    if retention_ms < 0 or raw.config.get("message.timestamp.type") == "LogAppendTime":
        return None
    return now_ms - retention_ms + HOUR_MS
