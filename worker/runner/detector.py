"""The detector's loops: whoever owns a partition of the state topic runs that shard, the others stand by."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from schemas.events import Progress
from worker.codec import decode_event, decode_labelled
from worker.detector import Batch, Detector, Position, is_compiled
from worker.errors import Fatal, Fenced, Misconfigured, Retriable
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.kafka.sink import Delivery, TransactionalSink
from worker.kafka.source import GroupLease
from worker.log import get_logger
from worker.memory import settle_memory
from worker.metrics import (
    ALERTS,
    COMMIT_SECONDS,
    DETECTOR_KEYS,
    DETECTOR_LEARNING,
    MERGE_CLOCK_SECONDS,
    UNIT_RECORDS,
    UNITS,
)
from worker.records import OutRecord, Record
from worker.runner.compute import Compute
from worker.runner.surroundings import REAL, Surroundings
from worker.runner.tasks import run_together, run_until_first, wait_for_stop
from worker.runner.vitals import Vitals
from worker.runner.watchdog import watch_polls
from worker.settings import Settings
from worker.surge.ownership import Ownership
from worker.surge.rules import Rules

MAX_RECORDS = 2000  # of a transaction: the more of a backlog, the fewer records of state for each event
MAX_WAIT_SECONDS = 0.1
MAX_BUFFERED = 5000  # events of one partition that wait for the others; further ones stay in the log
LEASE_SECONDS = 0.5
STANDBY_SECONDS = 0.1
RETRY_SECONDS = 0.5
FACTS_SECONDS = 10.0

log = get_logger()


async def run_detector(
    settings: Settings, rules: Rules, stop: asyncio.Event, vitals: Vitals, around: Surroundings = REAL
) -> None:
    """Run the shards that are ours side by side, stand by for those of others, until ``stop`` is set.

    Raises:
        Fatal: what only a restart or a person mends.
    """
    lease = GroupLease(settings.kafka, settings.topic_names.surge_state, settings.detector_group, around.make_clients)
    vitals.waiting_for = "the broker"
    vitals.settled = dict.fromkeys(range(settings.surge.shards), -1)

    def serve(shard: int) -> Coroutine[Any, Any, None]:
        def is_ours() -> bool:
            return shard in lease.owned and not stop.is_set()

        def make_run(thread: Compute) -> ShardRun:
            return ShardRun(settings, rules, shard, thread, is_ours, vitals=vitals, around=around)

        return _serve(shard, make_run, is_ours, stop, around)

    closed = False
    try:
        await run_until_first(lease.start(), wait_for_stop(stop))
        vitals.waiting_for = None  # standing by is being ready
        if not stop.is_set():
            max_poll_seconds = settings.kafka.max_poll_interval_ms / 1000
            watching = watch_polls(lambda: lease.polls, max_poll_seconds)
            serving = run_together(*map(serve, range(settings.surge.shards)))
            await run_until_first(_keep(lease), serving, watching)
    finally:
        vitals.waiting_for = "a restart"
        closed = await lease.stop()
    if not closed:
        raise Fatal("the connection to the broker did not close in time")


async def _keep(lease: GroupLease) -> None:
    while True:
        await lease.keep(LEASE_SECONDS)


async def _serve(
    shard: int,
    make_run: Callable[[Compute], "ShardRun"],
    is_ours: Callable[[], bool],
    stop: asyncio.Event,
    around: Surroundings,
) -> None:
    """Run one shard whenever it is ours; whatever becomes of it, the others go on, unless it is fatal."""
    while not stop.is_set():
        if not is_ours():
            await asyncio.sleep(STANDBY_SECONDS)
            continue
        thread = around.make_compute(f"detector-{shard}")
        try:
            await make_run(thread).run()
        except (Fenced, Retriable) as error:
            log.warning("shard.lost", shard=shard, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            thread.stop()


def restore_detector(settings: Settings, rules: Rules, shard: int, changelog: Mapping[bytes, bytes | None]) -> Detector:
    """One shard as the newest records of its partition of the state topic left it.

    Raises:
        Misconfigured: they cannot be continued from, and why.
    """
    try:
        return Detector.restore(
            rules,
            settings.topics.partitions,
            changelog.items(),
            settings.state_versions,
            trends=settings.surge.trends,
            ownership=Ownership(shard, settings.surge.shards),
        )
    except ValueError as error:
        raise Misconfigured(f"{settings.topic_names.surge_state} cannot be continued from: {error}") from error


class ShardRun:
    """One run of a shard, from its restored state to the loss of its lease or of its transactions.

    Nothing survives a run: the next one restores what is committed. The detector lives in ``thread``.
    """

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        shard: int,
        thread: Compute,
        is_ours: Callable[[], bool],
        *,
        vitals: Vitals,
        around: Surroundings = REAL,
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._shard = shard
        self._topics = settings.topic_names
        self._thread = thread
        self._is_ours = is_ours
        self._vitals = vitals
        self._around = around
        self._sink = TransactionalSink(
            settings.kafka, f"{settings.detector_group}-shard-{shard}", "detector", around.make_clients
        )
        self._reader = LogReader(settings.kafka, "detector", around.make_clients)
        self._facts_at_seconds = 0.0

    async def run(self) -> None:
        """Restore and go on.

        Raises:
            Fenced: another runs the shard, or the outcome of a commit is unknown.
            Retriable: the broker is away.
            Fatal: the state cannot be continued from.
        """
        try:
            await self._sink.start()  # first of all: it fences the former owner and finishes its transaction
            await self._reader.start()
            detector = await self._restore()
            while self._is_ours():
                batch = await self._advance(detector, await self._read(detector))
                if batch is not None:
                    await self._commit(batch)
                else:
                    self._vitals.settled[self._shard] = detector.bound_ms
                await self._say_facts(detector)
        finally:
            for gauge in (DETECTOR_KEYS, DETECTOR_LEARNING, MERGE_CLOCK_SECONDS):  # another says them from now on
                with contextlib.suppress(KeyError):
                    gauge.remove(str(self._shard))
            await asyncio.gather(self._sink.stop(), self._reader.stop())

    # Starting

    async def _restore(self) -> Detector:
        start = time.perf_counter()
        changelog = await self._reader.read_newest(Place(self._topics.surge_state, self._shard))
        detector = await self._thread.run(lambda: restore_detector(self._settings, self._rules, self._shard, changelog))
        settle_memory()
        await self._begin(detector)
        places = self._places(detector)
        await self._check_held(places)
        self._reader.assign(places)
        seconds = round(time.perf_counter() - start, 3)
        compiled = is_compiled()
        log.info("shard.restored", shard=self._shard, records=len(changelog), seconds=seconds, compiled=compiled)
        return detector

    async def _begin(self, detector: Detector) -> None:
        """Write where partitions without a position start, before their first record is read."""
        new = [number for number in range(self._settings.topics.partitions) if number not in detector.positions]
        if not new:
            return
        labelled = await self._reader.first_offsets(Place(self._topics.labelled, number) for number in new)
        progress = await self._reader.first_offsets(Place(self._topics.progress, number) for number in new)
        starts = {
            number: Position(
                labelled[Place(self._topics.labelled, number)], progress[Place(self._topics.progress, number)]
            )
            for number in new
        }
        await self._commit(detector.begin(starts))

    def _places(self, detector: Detector) -> dict[Place, int]:
        places = {}
        for number, position in detector.positions.items():
            places[Place(self._topics.labelled, number)] = position.labelled_next_offset
            places[Place(self._topics.progress, number)] = position.progress_next_offset
        return places

    async def _check_held(self, places: dict[Place, int]) -> None:
        for place, first in (await self._reader.first_offsets(places)).items():
            if places[place] < first:
                raise Misconfigured(
                    f"{place.topic}-{place.partition} begins at {first}, the detector stands at {places[place]}: "
                    "records that it has not seen have expired. Start with a new topics.prefix, or keep records longer"
                )

    # Going on

    async def _read(self, detector: Detector) -> list[Record]:
        """What comes within the time, of the partitions that are not too far ahead of the others."""
        wanted = [
            Place(topic, number)
            for number in range(self._settings.topics.partitions)
            if detector.buffered(number) < MAX_BUFFERED
            for topic in (self._topics.labelled, self._topics.progress)
        ]
        records: list[Record] = []
        if not wanted:
            return records
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MAX_WAIT_SECONDS
        while len(records) < MAX_RECORDS and (left_seconds := deadline - loop.time()) > 0:
            records += await self._reader.fetch(MAX_RECORDS - len(records), left_seconds, wanted)
        return records

    async def _advance(self, detector: Detector, records: list[Record]) -> Batch | None:
        numbers = range(self._settings.topics.partitions)
        reached = {number: await self._reader.position(Place(self._topics.labelled, number)) for number in numbers}
        now = self._around.now()

        def work() -> Batch | None:
            for record in records:
                if record.topic == self._topics.labelled:
                    detector.add_event(record.partition, record.offset, decode_labelled(record))
                else:
                    detector.add_mark(record.partition, record.offset, decode_event(Progress, record))
            for number, position in reached.items():
                detector.reach(number, position)
            return detector.step(MAX_RECORDS, now)

        return await self._thread.run(work)

    async def _commit(self, batch: Batch) -> None:
        """Deliver alerts, trends and state together.

        What failed is never delivered again as it is: that takes a new producer, which fences whoever has run the shard
        meanwhile, and only a restored state knows of what that one has written.
        """
        start = time.perf_counter()
        await self._sink.deliver(Delivery(self._encode(batch)))
        self._record(batch, time.perf_counter() - start)

    def _encode(self, batch: Batch) -> list[OutRecord]:
        alerts = [OutRecord(self._topics.alerts, alert.alert_id.encode(), alert.to_json()) for alert in batch.alerts]
        trends = [OutRecord(self._topics.trends, trend.key, trend.value) for trend in batch.trends]
        states = [OutRecord(self._topics.surge_state, key, value, self._shard) for key, value in batch.changelog]
        return alerts + trends + states

    def _record(self, batch: Batch, commit_seconds: float) -> None:
        """The canonical line of a batch, and its metrics."""
        UNITS.labels("detector", "committed").inc()
        UNIT_RECORDS.labels("detector").observe(batch.applied)
        COMMIT_SECONDS.labels("detector").observe(commit_seconds)
        for alert in batch.alerts:
            ALERTS.labels(alert.status.value).inc()
            log.info("alert.revised", alert_id=alert.alert_id, status=alert.status.value, kind=alert.kind.value,
                     key=alert.key, revision=alert.revision)  # fmt: skip
        log.debug(
            "batch.committed",
            shard=self._shard,
            applied=batch.applied,
            alerts=len(batch.alerts),
            trends=len(batch.trends),
            states=len(batch.changelog),
            commit_seconds=round(commit_seconds, 4),
        )

    async def _say_facts(self, detector: Detector) -> None:
        now_seconds = asyncio.get_running_loop().time()
        if now_seconds - self._facts_at_seconds < FACTS_SECONDS:
            return
        self._facts_at_seconds = now_seconds
        facts = await self._thread.run(detector.facts)
        shard = str(self._shard)
        DETECTOR_KEYS.labels(shard).set(facts.keys)
        DETECTOR_LEARNING.labels(shard).set(facts.learning)
        if facts.clock is not None:
            MERGE_CLOCK_SECONDS.labels(shard).set(facts.clock.timestamp())
