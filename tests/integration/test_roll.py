"""A fleet of labellers is rolled one by one under load: how long each output stands still, and that nothing is lost."""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from observer import Observer
from processes import STOP_SECONDS, Fleet
from runs import load_run_settings, run_settings
from schemas.events import NewsItem
from verify import expect, find_violations
from worker.deterministic import DeterministicEngine
from worker.kafka.admin import create_topics
from worker.kafka.sink import Writer
from worker.records import OutRecord, Record
from worker.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

PARTITIONS = 6
LABELLERS = 3
SENT_EVERY_SECONDS = 0.1
"""One item to each partition."""
STEADY_SECONDS = 3.0
START_SECONDS = 120.0
SESSION_SECONDS = 45.0
"""Kafka's default: a worker that only vanished would be waited for so long."""
MAX_STALL_SECONDS = 20.0
"""Far above what a rebalance takes, on a busy machine too, and far below the session time-out."""


class RollingFleet(Fleet):
    """A fleet whose workers can be ended one by one."""

    def end(self, name: str) -> int:
        """SIGTERM, and its exit status."""
        child = self._running.pop(name)
        child.send_signal(signal.SIGTERM)
        return child.wait_or_kill(time.monotonic() + STOP_SECONDS)

    def owns_partitions(self, name: str) -> bool:
        """Whether it has begun to work."""
        return "source.owned" in self.log_tail(name, 1000)


@dataclass(slots=True)
class Feed:
    """A steady feed: every partition gets an item at once, again and again; ``logs`` is what lies there by now."""

    settings: Settings
    logs: dict[int, list[Record]] = field(default_factory=lambda: {partition: [] for partition in range(PARTITIONS)})

    @property
    def records(self) -> int:
        """Sent so far."""
        return sum(len(log) for log in self.logs.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        raw = self.settings.topic_names.raw
        writer = Writer(self.settings.kafka, "feed")
        await writer.start()
        for number in itertools.count():
            if stop.is_set():
                break
            now_ms = time.time_ns() // 1_000_000
            batch = []
            for partition, log in self.logs.items():
                value = NewsItem(id=f"{partition}-{number}", title=f"headline {number} of {partition}").to_json()
                batch.append(OutRecord(raw, b"k", value, partition, timestamp_ms=now_ms))
                log.append(Record(raw, partition, len(log), now_ms, b"k", value))
            await writer.write(batch)
            await asyncio.sleep(SENT_EVERY_SECONDS)
        await writer.stop()


@dataclass(slots=True)
class Watch:
    """Looks at what readers may see of the labelled partitions; the longest time that each stood still, in seconds."""

    observer: Observer
    topic: str
    stalls: dict[int, float] = field(default_factory=dict)
    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop; looks come some ten milliseconds apart."""
        while not stop.is_set():
            ends = await self.observer.ends(self.topic)
            now = time.monotonic()
            for partition, end in ends.items():
                before, since = self._seen.get(partition, (end.last_stable_offset, now))
                self.stalls[partition] = max(self.stalls.get(partition, 0.0), now - since)
                if end.last_stable_offset > before or partition not in self._seen:
                    self._seen[partition] = (end.last_stable_offset, now)
            await asyncio.sleep(0.01)

    def rounded(self) -> dict[int, float]:
        """The stalls, for the report."""
        return {partition: round(seconds, 2) for partition, seconds in sorted(self.stalls.items())}


@asynccontextmanager
async def side_by_side(*loops: Callable[[asyncio.Event], object]) -> AsyncIterator[None]:
    """Run them beside the body; at its end they are told to stop."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for loop in loops:
            tasks.create_task(loop(stop))  # type: ignore[arg-type]
        yield
        stop.set()


async def roll(fleet: RollingFleet, old: str, new: str) -> int:
    """End one worker and start another in its place; the exit status of the first."""
    status = await asyncio.to_thread(fleet.end, old)
    await start(fleet, new)
    await asyncio.sleep(STEADY_SECONDS)
    return status


async def start(fleet: RollingFleet, name: str) -> None:
    fleet.start("labeller", name)

    async def works() -> bool:
        return fleet.owns_partitions(name)

    await fleet.await_that(f"{name} to own partitions", works, START_SECONDS)


async def test_a_fleet_rolled_one_by_one_stands_still_shortly_and_loses_and_repeats_nothing(
    bootstrap: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    times = {"kafka__session_timeout_ms": int(SESSION_SECONDS * 1000), "kafka__rebalance_timeout_ms": 60_000}
    dotted = run_settings(bootstrap, topics__partitions=PARTITIONS, kafka__heartbeat_interval_ms=1000, **times)
    settings = load_run_settings(dotted)
    await create_topics(settings.kafka, settings.topic_specs, 1)
    feed, statuses = Feed(settings), {}
    async with Observer(settings) as observer:
        with RollingFleet(dotted, tmp_path) as fleet:
            for number in range(LABELLERS):
                await start(fleet, f"old-{number}")
            steady, rolling = (Watch(observer, settings.topic_names.labelled) for _ in range(2))
            async with side_by_side(feed.run):
                await asyncio.sleep(STEADY_SECONDS)
                async with side_by_side(steady.run):
                    await asyncio.sleep(STEADY_SECONDS)
                fed_before = feed.records
                async with side_by_side(rolling.run):
                    for number in range(LABELLERS):
                        statuses[number] = await roll(fleet, f"old-{number}", f"new-{number}")
                fed = feed.records - fed_before

            async def all_is_labelled() -> bool:
                return sum((await observer.committed()).values()) >= feed.records

            await fleet.await_that("all is labelled", all_is_labelled)
            ended = await asyncio.to_thread(fleet.stop)
        outputs, unfinished = await observer.outputs(), await observer.unfinished()
    told = {"stall_seconds": rolling.rounded(), "undisturbed_stall_seconds": steady.rounded(), "fed_while_rolling": fed}
    for name, value in told.items():
        record_property(name, value)
        print(f"{name}: {value}")
    assert find_violations(outputs, expect(feed.logs, DeterministicEngine(), settings.rules)) == []
    assert unfinished == {}
    assert set(statuses.values()) | set(ended.values()) == {0}
    assert set(rolling.stalls) == set(range(PARTITIONS))
    assert max(rolling.stalls.values()) < MAX_STALL_SECONDS
