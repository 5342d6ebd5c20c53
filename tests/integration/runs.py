"""One run of the workers on a topic prefix of its own: settings, input, the wait for its end, and crashes in it."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from observer import Ends, Observer, patient
from processes import Fleet
from verify import Outputs, expect
from worker.deterministic import DeterministicEngine
from worker.kafka.admin import create_topics
from worker.kafka.sink import Writer
from worker.labeller import Engine
from worker.settings import Settings, load_settings
from worker.surge.revision import MILLISECOND
from workload import Workload, make_workload

PARTITIONS = 3
FREEZE_SECONDS = 0.03
"""For what a frozen worker had sent to reach the broker, and be seen."""
MAX_SLICE_SECONDS = 0.004
"""How long a worker runs between two looks: records of a transaction lie uncommitted for milliseconds."""
TRIES = 1000


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker's SIGKILL, as seen from outside.

    ``transaction_open`` says whether the broker lists its transaction as not ended, ``unstable`` are the ends of the
    partitions that it had written to, ``before`` is what was committed then. ``recovery_seconds`` pass until its
    successor commits, ``blocked_seconds`` until read_committed readers get past the dead transaction.
    """

    transaction_open: bool
    unstable: Mapping[int, Ends]
    before: Any
    recovery_seconds: float
    blocked_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """A run that has ended: of how many raw ``records``, what is there, what should be, and what was left open."""

    records: int
    outputs: Outputs
    expected: Outputs
    unfinished: Mapping[str, object]
    exit_statuses: Mapping[str, int]
    crashes: Mapping[str, Crash]


class Trial:
    """A run of a workload. Owned by one event loop, within ``with`` of its fleet."""

    def __init__(self, settings: Settings, workload: Workload, expected: Outputs, fleet: Fleet, observer: Observer):
        self.settings = settings
        self.workload = workload
        self.expected = expected
        self.fleet = fleet
        self.observer = observer
        self.crashes: dict[str, Crash] = {}

    # Where it stands

    async def committed_sum(self) -> int:
        """Raw records that labellers have committed."""
        return sum((await self.observer.committed()).values())

    async def await_committed(self, least: int) -> None:
        """Wait until labellers have committed so many raw records."""

        async def ask() -> bool:
            return await self.committed_sum() >= least

        await self.fleet.await_that(f"{least} raw records committed", patient(ask))

    async def await_frontier(self, after: datetime) -> None:
        """Wait until the detector has committed a frontier later than this merge clock."""

        async def ask() -> bool:
            clock = await self.observer.frontier()
            return clock is not None and clock > after

        await self.fleet.await_that(f"a frontier after {after}", patient(ask))

    async def await_end(self) -> None:
        """Wait until every raw record is committed and the detector has told of its last alert and window."""
        await self.await_committed(len(self.workload.records))
        if self.expected.alerts:
            last = max(alert.detected_at for alert in self.expected.alerts)
            await self.await_frontier(max(last, self.expected.trends[-1].clock) - MILLISECOND)

    # Crashes

    async def crash_labeller(self, name: str, successor: str, at: int) -> None:
        """SIGKILL a labeller in a delivery once ``at`` records are committed, and start another in its place."""
        await self.await_committed(at)
        topic = self.settings.topic_names.labelled
        unstable = await self._crash_in_delivery(name, topic)
        killed = time.monotonic()
        is_open = await self._is_open(f"{self.settings.labeller_group}-{name}")
        before = await self.committed_sum()
        self.fleet.start("labeller", successor)
        recovery = self._measure(killed, self.await_committed(before + 1))
        blocked = self._measure(killed, self._await_stable(topic, unstable))
        self.crashes[name] = Crash(is_open, unstable, before, *await asyncio.gather(recovery, blocked))

    async def crash_detector(self, name: str, successor: str, after: datetime) -> None:
        """SIGKILL a detector in a transaction once its frontier is past ``after``, and start another in its place."""
        await self.await_frontier(after)
        topic = self.settings.topic_names.surge_state
        unstable = await self._crash_in_delivery(name, topic)
        killed = time.monotonic()
        is_open = await self._is_open(f"{self.settings.detector_group}-shard-0")
        before = await self.observer.frontier()
        assert before is not None
        self.fleet.start("detector", successor)
        recovery = self._measure(killed, self.await_frontier(before))
        blocked = self._measure(killed, self._await_stable(topic, unstable))
        self.crashes[name] = Crash(is_open, unstable, before, *await asyncio.gather(recovery, blocked))

    async def _is_open(self, transactional_id: str) -> bool:
        return transactional_id in await self.observer.open_transactions()

    async def _crash_in_delivery(self, name: str, topic: str) -> Mapping[int, Ends]:
        """SIGKILL it while it has written to ``topic`` and not yet committed: freeze it, look, let it go on if not."""
        random = Random(name)
        for _ in range(TRIES):
            self.fleet.freeze(name)
            await asyncio.sleep(FREEZE_SECONDS)
            if await (self.observer.unstable(topic) if self.settings.exactly_once else self._uncommitted(topic)):
                break
            self.fleet.thaw(name)
            await asyncio.sleep(random.uniform(0.0, MAX_SLICE_SECONDS))
        else:
            raise AssertionError(f"{name} was not met with uncommitted records in {topic} in {TRIES} looks")
        self.fleet.kill(name)
        return await self.observer.unstable(topic)

    async def _uncommitted(self, labelled: str) -> list[int]:
        """Without transactions, the partitions that hold more events than those of the committed raw records."""
        committed, ends = await self.observer.committed(), await self.observer.ends(labelled)
        covered = Counter(
            placed.partition
            for placed in self.expected.labelled
            if placed.event.input.offset < committed.get(placed.partition, 0)
        )
        return [partition for partition, end in ends.items() if end.high_watermark > covered[partition]]

    async def _await_stable(self, topic: str, unstable: Mapping[int, Ends]) -> None:
        async def ask() -> bool:
            now = await self.observer.ends(topic)
            return all(now[each].last_stable_offset >= unstable[each].high_watermark for each in unstable)

        await self.fleet.await_that(f"{topic} readable past {dict(unstable)}", ask)

    @staticmethod
    async def _measure(since: float, awaited: Awaitable[None]) -> float:
        await awaited
        return time.monotonic() - since


Play = Callable[[Trial], Awaitable[None]]


def run_settings(bootstrap: str, **others: object) -> dict[str, object]:
    """Settings of a run on topics and groups of its own, by their dotted names (``__`` for the dot in ``others``)."""
    run = f"t{uuid.uuid4().hex[:10]}"
    return {
        "kafka.bootstrap_servers": bootstrap,
        "kafka.session_timeout_ms": 6000,
        "kafka.heartbeat_interval_ms": 2000,
        "kafka.rebalance_timeout_ms": 10_000,
        "kafka.transaction_timeout_ms": 6000,
        "topics.prefix": f"{run}.",
        "topics.partitions": PARTITIONS,
        "group_prefix": run,
        "idle_clock": "data",
        "engine.kind": "deterministic",
        "engine.deterministic_seconds_per_text": 0.001,
        "unit.max_records": 40,
    } | {name.replace("__", "."): value for name, value in others.items()}


def load_run_settings(dotted: Mapping[str, object]) -> Settings:
    """Dotted names and values as settings."""
    tables: dict[str, Any] = {}
    for name, value in dotted.items():
        section, _, field = name.rpartition(".")
        (tables.setdefault(section, {}) if section else tables)[field] = value
    return load_settings(**tables)


async def carry_out(
    dotted: Mapping[str, object],
    folder: Path,
    play: Play,
    *,
    engine: Engine | None = None,
    headlines: int = 2000,
    others: Mapping[str, object] = MappingProxyType({}),
) -> Result:
    """Send the workload, let ``play`` start (and crash) workers, wait for the end, stop them, read what is there.

    ``others`` are settings that are not ours but only the workers'.
    """
    settings = load_run_settings(dotted)
    workload = make_workload(settings.topic_names.raw, headlines=headlines, partitions=settings.topics.partitions)
    expected = expect(workload.as_read(), engine or DeterministicEngine(), settings.rules, trends=True)
    await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
    await _send(settings, workload)
    async with Observer(settings) as observer:
        with Fleet({**dotted, **others}, folder) as fleet:
            trial = Trial(settings, workload, expected, fleet, observer)
            await play(trial)
            await trial.await_end()
            statuses = await asyncio.to_thread(fleet.stop)
        outputs, unfinished = await observer.outputs(trends=True), await observer.unfinished()
    return Result(len(workload.records), outputs, expected, unfinished, statuses, trial.crashes)


async def _send(settings: Settings, workload: Workload) -> None:
    writer = Writer(settings.kafka, "workload")
    await writer.start()
    try:
        await writer.write(workload.records)
    finally:
        await writer.stop()
