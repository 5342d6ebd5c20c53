"""The labeller's loop: fetch, label beside the event loop, deliver in a transaction; label the next unit meanwhile."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas.events import StackRef
from worker.breaker import Breaker
from worker.codec import to_ms
from worker.errors import Abortable, Fatal, Fenced, Misconfigured
from worker.kafka.connection import CLOSE_SECONDS
from worker.kafka.sink import AtLeastOnceSink, Sink, TransactionalSink
from worker.kafka.source import End, GroupSource, Ownership
from worker.labeller import Engine, LabelledRun, label_unit
from worker.log import get_logger
from worker.metrics import (
    ABSTAINED,
    BACKLOG_BYTES,
    BACKLOG_RECORDS,
    COMMIT_SECONDS,
    DEAD_LETTERS,
    DEGRADED,
    LABEL_SECONDS,
    LAG_RECORDS,
    LATENCY_SECONDS,
    RECORDS,
    SECONDS_PER_RECORD,
    STILL_SECONDS,
    UNIT_RECORDS,
    UNITS,
)
from worker.records import OutRecord
from worker.runner.clocks import recall_clocks
from worker.runner.surroundings import REAL, Surroundings
from worker.runner.tasks import run_until_first, wait_for_stop
from worker.runner.vitals import Vitals
from worker.runner.watchdog import watch_polls
from worker.settings import Settings
from worker.standstill import Stand, Standstill, Unchanged, WatchClock
from worker.tenure import Reached, Shipment, Tenure, encode_runs
from worker.units import Pace, Unit

FETCH_RECORDS = 2000
FETCH_SECONDS = 0.2
IDLE_TICK_SECONDS = 0.25
WATCH_SECONDS = 1.0
RETRY_SECONDS = 0.5
DRAIN_SHARE = 0.6  # of the grace time; the rest is for a commit and for closing

log = get_logger()


async def run_labeller(
    settings: Settings, engine: Engine, stop: asyncio.Event, vitals: Vitals, around: Surroundings = REAL
) -> None:
    """Label until ``stop`` is set, then drain within the grace time.

    Raises:
        Fatal: what only a restart or a person mends, or a shutdown that hangs.
    """
    labeller = Labeller(settings, engine, stop, vitals, around)
    await labeller.run()


class Labelled(NamedTuple):
    """A unit after the stack has spoken: what became of its runs, encoded too, and how long that took."""

    unit: Unit
    runs: Mapping[int, LabelledRun]
    records: list[OutRecord]
    seconds: float


@dataclass(slots=True)
class _Attempt:
    """A delivery on its way, for the log."""

    shipment: Shipment
    labelled: Labelled | None
    number: int = 0


class _Labelling(NamedTuple):
    """The unit that the stack reads now; the number tells it from the one before."""

    number: int
    unit: Unit


class Labeller:
    """Owns source, sink and the thread of the engine; lives on one event loop.

    Three loops: one fetches into the tenure's backlog, one turns it into units, labels and delivers them, one watches.
    Inference never runs inside a transaction: unit N+1 is labelled while N commits, and at most one of each exists.
    All that is held belongs to a tenure, and is dropped with it.
    """

    def __init__(
        self, settings: Settings, engine: Engine, stop: asyncio.Event, vitals: Vitals, around: Surroundings = REAL
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._stop = stop
        self._vitals = vitals
        self._around = around
        self._topics = settings.topic_names
        self._stack = StackRef(name=engine.identity.name, digest=engine.identity.digest)
        self.source = GroupSource(
            settings.kafka,
            self._topics.raw,
            settings.labeller_group,
            stable=settings.exactly_once,
            when_revoked=self._let_delivery_end,
            recall=lambda partitions: recall_clocks(settings.kafka, self._topics, partitions, around.make_clients),
            make_clients=around.make_clients,
        )
        self.sink: Sink = (
            TransactionalSink(
                settings.kafka, f"{settings.labeller_group}-{settings.instance}", "labeller", around.make_clients
            )
            if settings.exactly_once
            else AtLeastOnceSink(settings.kafka, self.source, "labeller", around.make_clients)
        )
        self._thread = around.make_compute("labeller")
        self._breaker = Breaker(settings.breaker_rules)
        self._held: Tenure | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._attempt: _Attempt | None = None
        self._pace = Pace()
        self._numbers = itertools.count(1)
        self._labelling: _Labelling | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """See `run_labeller`."""
        self._vitals.waiting_for = "the broker"
        closed = False
        try:
            await run_until_first(self._start(), wait_for_stop(self._stop))
            if not self._stop.is_set():
                max_poll_seconds = self._settings.kafka.max_poll_interval_ms / 1000
                await run_until_first(
                    self._fetch(),
                    self._work(),
                    self._watch(),
                    watch_polls(lambda: self.source.polls, max_poll_seconds),
                    self._drain_in_time(),
                )
        finally:
            closed = await self._close()
        if not closed:
            raise Fatal("the connections to the broker did not close in time")

    async def _start(self) -> None:
        await self.sink.start()
        await self.source.start()

    # Fetching

    async def _fetch(self) -> None:
        holding = False
        while True:
            records = await self.source.fetch(FETCH_RECORDS, FETCH_SECONDS, hold=holding)
            tenure = self._tenure()
            if tenure is None:
                continue
            tenure.backlog.add(records, _passing_seconds())
            BACKLOG_BYTES.set(tenure.backlog.size_bytes)
            BACKLOG_RECORDS.set(tenure.backlog.count)
            holding = tenure.backlog.is_full(self._settings.backlog_limits, was_full=holding)
            if records:
                self._wake.set()

    def _tenure(self) -> Tenure | None:
        """What we hold in the present epoch; None while the gate is closed."""
        ownership = self.source.ownership
        if ownership is None:
            self._held = None
        elif self._held is None or self._held.ownership.epoch != ownership.epoch:
            self._refuse_added(ownership)
            self._held = Tenure.begin(ownership)
        self._vitals.waiting_for = "its partitions" if ownership is None else None
        return self._held

    def _refuse_added(self, ownership: Ownership) -> None:
        """Detectors do not read what is labelled in partitions that were added under a running system."""
        partitions = self._settings.topics.partitions
        added = sorted(number for number in ownership.committed if number >= partitions)
        if added:
            raise Misconfigured(
                f"{self._topics.raw} was given more partitions ({', '.join(map(str, added))}), and topics.partitions "
                f"is {partitions}: nothing of them is labelled; see docs/operations.md"
            )

    # Labelling

    async def _work(self) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            await self._work_until_stopped()
        finally:
            stopping.cancel()
        await self._delivered()

    async def _work_until_stopped(self) -> None:
        while not self._stop.is_set():
            tenure = self._tenure()
            limits = self._pace.narrow(self._settings.unit_limits)
            unit = tenure.backlog.take_unit(limits, _passing_seconds()) if tenure else None
            if tenure is None or (unit is None and not await self._ship(tenure, None)):
                await self._rest()
            elif unit is not None:
                await self._ship(tenure, await self._label(tenure, unit))

    async def _rest(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(IDLE_TICK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _label(self, tenure: Tenure, unit: Unit) -> Labelled:
        clocks_ms = dict(tenure.clocks_ms)
        now = self._around.now()

        def work() -> Labelled:
            start = time.perf_counter()
            runs = label_unit(unit, clocks_ms, self._engine, self._settings.input_rules, now)
            return Labelled(unit, runs, encode_runs(runs, self._topics), time.perf_counter() - start)

        self._labelling = _Labelling(next(self._numbers), unit)
        labelled = await self._thread.run(work)
        self._labelling = None
        self._pace.observe(unit.count, labelled.seconds)
        SECONDS_PER_RECORD.set(self._pace.seconds_per_record or 0.0)
        LABEL_SECONDS.observe(labelled.seconds)
        self._breaker.watch(outcome for run in labelled.runs.values() for outcome in run.outcomes)
        return labelled

    # Delivering

    async def _ship(self, tenure: Tenure, labelled: Labelled | None) -> bool:
        """Start to deliver a labelled unit, and the marks of partitions that are idle; False if there is nothing."""
        await self._delivered()
        ends = await self.source.ends()
        if tenure is not self._tenure():
            UNITS.labels("labeller", "dropped").inc(labelled is not None)
            return False
        reached = self._advance(tenure, labelled) | self._mark_idle(tenure, labelled, ends)
        if not reached:
            return False
        shipment = Shipment(tenure, self._topics, self._stack, labelled.records if labelled else (), reached, ends)
        self._delivering = asyncio.create_task(self._deliver(_Attempt(shipment, labelled)))
        return True

    def _advance(self, tenure: Tenure, labelled: Labelled | None) -> dict[int, Reached]:
        return tenure.advance(labelled.runs) if labelled else {}

    def _mark_idle(self, tenure: Tenure, labelled: Labelled | None, ends: Mapping[int, End]) -> dict[int, Reached]:
        if self._settings.idle_clock == "data":
            return {}
        now = self._around.idle_now or self._around.now
        return tenure.mark_idle(ends, labelled.runs if labelled else (), to_ms(now()), _passing_seconds())

    async def _delivered(self) -> None:
        """Wait for the delivery on its way. Shielded: to cancel a commit is not to know how it ended."""
        if self._delivering is not None:
            await asyncio.shield(self._delivering)

    async def _deliver(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        try:
            await self._deliver_again_and_again(attempt)
        finally:
            self._attempt = None

    async def _deliver_again_and_again(self, attempt: _Attempt) -> None:
        """Deliver until it is committed or no longer ours."""
        while True:
            attempt.number += 1
            start = time.perf_counter()
            try:
                await self.sink.deliver(attempt.shipment.delivery)
            except Abortable as error:
                self._say("unit.aborted", attempt, error)
                if not await self._recover(attempt):
                    return
            except Fenced as error:
                self._say("unit.fenced", attempt, error)
                if await self._recover(attempt):
                    self.source.reopen()
                return
            else:
                attempt.shipment.settle()
                self._record(attempt, time.perf_counter() - start)
                return

    async def _recover(self, attempt: _Attempt) -> bool:
        """Have a producer again; whether the tenure of the attempt is still ours then.

        The pause comes first: workers that share an instance by mistake fence each other with every new producer, and
        have less time to while one commits.
        """
        await asyncio.sleep(RETRY_SECONDS)
        await self.sink.start()
        ours = attempt.shipment.tenure is self._tenure()
        UNITS.labels("labeller", "retried" if ours else "dropped").inc()
        return ours

    async def _let_delivery_end(self) -> None:
        """Partitions are about to be let go: wait for the delivery on its way, never for inference."""
        if self._delivering is not None:
            await asyncio.wait([self._delivering], timeout=self._settings.kafka.rebalance_timeout_ms / 2000)

    # Watching

    async def _watch(self) -> None:
        """Notice what does not move although it could, say so at half of the time, and end a unit that hangs."""
        clock, labelling, standstill = WatchClock(), Unchanged(), Standstill()
        limit_seconds = self._settings.unit.timeout_seconds
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now_seconds = clock.look(_passing_seconds())
            seconds = labelling.note(self._labelling and self._labelling.number, now_seconds)
            if seconds > limit_seconds:
                raise Fatal(f"{self._describe_labelling(seconds)} (unit.timeout_seconds); the stack hangs")
            ends = await self.source.ends()
            for partition, end in ends.items():
                LAG_RECORDS.labels(partition).set(end.last_stable_offset - end.position)
            still = standstill.note(self._stands(ends), now_seconds)
            STILL_SECONDS.set(still.seconds if still else 0.0)
            if seconds > limit_seconds / 2:
                self._vitals.stuck = self._describe_labelling(seconds)
            elif still is None or still.seconds <= limit_seconds / 2:
                self._vitals.stuck = None
            elif (self._attempt and self._attempt.number > 1) or not await self.source.answers():
                standstill.excuse()  # it is waited for the broker, which is said elsewhere
            else:
                self._vitals.stuck = f"partition {still.partition} has not moved for {still.seconds:.0f} s"

    def _stands(self, ends: Mapping[int, End]) -> dict[int, Stand]:
        tenure = self._tenure()
        if tenure is None:
            return {}
        busy = set(self._labelling.unit.runs if self._labelling else ())
        if self._attempt is not None and self._attempt.labelled is not None:
            busy |= self._attempt.labelled.runs.keys()
        return tenure.stands(ends, busy)

    def _describe_labelling(self, seconds: float) -> str:
        unit = self._labelling.unit if self._labelling else Unit({})
        first = {partition: run.first_offset for partition, run in sorted(unit.runs.items())}
        return f"{unit.count} records from offsets {first} on have been labelled for {seconds:.0f} s"

    def _say(self, event: str, attempt: _Attempt, error: Exception) -> None:
        log.warning(event, attempt=attempt.number, error=str(error), **_describe(attempt))

    def _record(self, attempt: _Attempt, commit_seconds: float) -> None:
        """The canonical line of a unit, and its metrics."""
        COMMIT_SECONDS.labels("labeller").observe(commit_seconds)
        if attempt.labelled is None:
            log.debug("marks.committed", commit_seconds=round(commit_seconds, 4), **_describe(attempt))
            return
        events = [event for run in attempt.labelled.runs.values() for event in run.events]
        dead = [letter for run in attempt.labelled.runs.values() for letter in run.dead]
        degraded, abstained = sum(event.degraded for event in events), sum(event.abstained for event in events)
        count = attempt.labelled.unit.count
        now = self._around.now()
        for event in events:
            LATENCY_SECONDS.observe((now - event.received_at).total_seconds())
        for letter in dead:
            DEAD_LETTERS.labels(letter.kind).inc()
        DEGRADED.inc(degraded)
        ABSTAINED.inc(abstained)
        for outcome, number in (("labelled", len(events)), ("dead", len(dead))):
            RECORDS.labels(outcome).inc(number)
        RECORDS.labels("heartbeat").inc(count - len(events) - len(dead))
        UNIT_RECORDS.labels("labeller").observe(count)
        UNITS.labels("labeller", "committed").inc()
        log.info(
            "unit.committed",
            records=count,
            labelled=len(events),
            dead=len(dead),
            degraded=degraded,
            abstained=abstained,
            attempt=attempt.number,
            label_seconds=round(attempt.labelled.seconds, 4),
            commit_seconds=round(commit_seconds, 4),
            **_describe(attempt),
        )

    # Ending

    async def _drain_in_time(self) -> None:
        await self._stop.wait()
        await asyncio.sleep(self._settings.shutdown_grace_seconds * DRAIN_SHARE)
        log.warning("labeller.drain_cut_short", busy_seconds=round(self._thread.busy_seconds, 1))

    async def _close(self) -> bool:
        """Let the delivery on its way end, then disconnect; False when that hung."""
        self._vitals.waiting_for = "a restart"
        self._thread.stop()
        if self._delivering is not None:
            left_seconds = self._settings.shutdown_grace_seconds * (1 - DRAIN_SHARE) - CLOSE_SECONDS
            done, _ = await asyncio.wait([self._delivering], timeout=max(1.0, left_seconds))
            for delivery in done:
                delivery.exception()  # raised already, or no longer of use
        closed = await asyncio.gather(self.sink.stop(), self.source.stop())
        if self._delivering is not None:
            self._delivering.cancel()
        return all(closed)


def _passing_seconds() -> float:
    """Seconds as the event loop counts them, which is how a test makes them pass."""
    return asyncio.get_running_loop().time()


def _describe(attempt: _Attempt) -> dict[str, object]:
    reached = attempt.shipment.reached
    return {
        "epoch": attempt.shipment.tenure.ownership.epoch,
        "next_offsets": {str(partition): at.next_offset for partition, at in sorted(reached.items())},
        "lag": sum(attempt.shipment.lag_of(partition) for partition in reached),
    }
