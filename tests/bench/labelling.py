"""A labeller as a process of its own on a real Kafka: how fast committed labels come, and what it costs it."""

import asyncio
import signal
import sys
import time
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from schemas.events import LabelledEvent, NewsItem
from worker.broker import free_port
from worker.child import Child
from worker.feeds.jsonl import open_feed
from worker.kafka.admin import create_topics
from worker.records import OutRecord
from worker.settings import Settings, load_settings
from worker.sinks.tail import follow, output_places

from .contest import Sample

FINISH_SECONDS = 180.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A committed label as it was read, and when on the monotonic clock."""

    seconds: float
    value: bytes


@dataclass(frozen=True, slots=True)
class Watched:
    """All labels in the order of their reading, and the labeller's processor seconds at the first and at the last."""

    arrivals: Sequence[Arrival]
    cpu_seconds: tuple[float, float]


def labeller_settings(bootstrap_servers: str, bundle: str, precision: str) -> Settings:
    """The defaults, exactly once included, on topics and a group of its own."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    return load_settings(
        kafka={"bootstrap_servers": bootstrap_servers},
        topics={"prefix": f"{run}."},
        group_prefix=run,
        engine={"bundle": bundle, "precision": precision},
        http={"port": free_port()},
    )


async def measure_labeller(settings: Settings, texts: Sequence[str], folder: Path) -> Sample:
    """Feed all texts, then start a labeller, and time it from its first committed unit to its last.

    The first unit is its warm-up: it is not counted.

    Raises:
        RuntimeError: it ended, or did not finish in time; the end of its log stands in the message.
    """
    await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
    items = [NewsItem(id=f"t{number}", title=text, language="en") for number, text in enumerate(texts)]
    async with open_feed(settings) as write:
        await write([OutRecord(settings.topic_names.raw, (i.id or "").encode(), i.to_json()) for i in items])
    command = (sys.executable, "-m", "worker", "run", "--only", "labeller")
    labeller = Child(command, folder / f"{settings.group_prefix}.log", environment=settings.to_environment())
    try:
        return summarise(await _watch_or_fail(settings, len(texts), labeller))
    finally:
        labeller.send_signal(signal.SIGTERM)
        await asyncio.to_thread(labeller.wait_or_kill, time.monotonic() + STOP_SECONDS)


def summarise(watched: Watched) -> Sample:
    """Everything after the first unit. Events of a unit carry the same ``labelled_at``."""
    events = [LabelledEvent.model_validate_json(arrival.value) for arrival in watched.arrivals]
    first = min(event.labelled_at for event in events)
    warm = [at.seconds for at, event in zip(watched.arrivals, events, strict=True) if event.labelled_at == first]
    start, end = watched.cpu_seconds
    return Sample(len(events) - len(warm), watched.arrivals[-1].seconds - max(warm), end - start)


async def _watch_or_fail(settings: Settings, count: int, labeller: Child) -> Watched:
    watching = asyncio.create_task(_watch(settings, count))
    deadline = time.monotonic() + FINISH_SECONDS
    try:
        while not watching.done():
            await asyncio.wait([watching], timeout=POLL_SECONDS)
            if labeller.exit_status is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the labeller did not label {count} texts:\n{labeller.log_tail()}")
        return watching.result()
    finally:
        watching.cancel()


async def _watch(settings: Settings, count: int) -> Watched:
    arrivals: list[Arrival] = []
    started = ended = 0.0
    stop = asyncio.Event()
    async for record in follow(settings, output_places(settings, alerts=False), from_start=True, stop=stop):
        if not arrivals:
            started = await asyncio.to_thread(read_cpu_seconds, settings.http.port)
        assert record.value is not None
        arrivals.append(Arrival(time.monotonic(), record.value))
        if len(arrivals) == count:
            ended = await asyncio.to_thread(read_cpu_seconds, settings.http.port)
            stop.set()
    return Watched(arrivals, (started, ended))


def read_cpu_seconds(port: int) -> float:
    """Processor seconds that the labeller has used, as it says itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return float(next(f for f in families if f.name == "process_cpu_seconds").samples[0].value)
