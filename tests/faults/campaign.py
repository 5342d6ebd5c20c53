"""Carries out a plan of faults against real workers on a cluster of three nodes, under load, and judges what is left.

The input is fed in portions, one for each step of a fault, so that every step meets work, however fast the machine is.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from observer import Observer, patient
from processes import WORKER, Fleet
from runs import load_run_settings, run_settings
from verify import Outputs, Violation, by_shard, expect, find_violations
from worker.broker import LocalBroker
from worker.deterministic import DeterministicEngine
from worker.errors import Retriable
from worker.kafka.admin import create_topics
from worker.kafka.groups import read_owners
from worker.kafka.sink import Writer
from worker.labeller import Engine
from worker.records import Record
from worker.surge.revision import MILLISECOND
from workload import make_workload

from .plan import Fault, Kind, Step, plan_faults
from .tally import Hit, Report

NODES = 3
SCAN_EVERY_SECOND = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
"""A node looks for timed-out transactions every second instead of every ten."""
PARTITIONS = 6
LABELLERS = 3
DETECTORS = 2
PORTION_SECONDS = 3.0
"""How long the labellers take for a portion at least: long enough to be hit in it."""
UNIT_RECORDS = 20
"""Few, for many transactions, but more than a run of heartbeats."""
PATIENCE_SECONDS = 300.0
"""For anything that must happen; longer than is promised, so that what is late is measured and not only missed."""
FREEZE_SECONDS = 0.03
MAX_SLICE_SECONDS = 0.008
LOOKS = 25
"""How often a victim is looked at before it is hit outside a transaction."""
STACK_TOLERANCE = 1e-3
"""Of a number that a stack gives: its batches are other ones here, and fp32 sums in another order."""
ZOMBIE_SECONDS = 8.0
"""How long a worker is frozen at least: above its session time-out."""

Told = TypeVar("Told")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is fed, and how many faults of each kind hit meanwhile."""

    records: int
    faults: Mapping[Kind, int]


class Moment(NamedTuple):
    """When it was, of each raw partition in which work waited what was committed, and the detector's frontier."""

    seconds: float
    waiting: Mapping[int, int]
    frontier: datetime | None


def count_headlines(records: int) -> int:
    """How many headlines make so many records, with one poison record for every hundred of them."""
    return records - records // 101


def run_campaign(
    seed: int,
    size: Size,
    folder: Path,
    say: Say,
    program: Sequence[str] = WORKER,
    bundle: str | None = None,
    shards: int = 1,
) -> Report:
    """On a cluster of its own, feed, hit and mend as the seed plans it, then read and judge all.

    Args:
        seed: of the plan.
        size: how much there is to do.
        folder: for the logs of the workers.
        say: told what is being done.
        program: what Python runs as a worker.
        bundle: a stack of models that labels; none: an engine without one.
        shards: of the detector.

    Raises:
        AssertionError: something that must happen did not in time; the end of every worker's log was printed.
    """
    labelling = label_without_model(size) if bundle is None else label_with(bundle)
    with LocalBroker(NODES, properties=SCAN_EVERY_SECOND, report=say) as broker:
        return asyncio.run(Campaign(seed, size, labelling, broker, folder, say, program, shards).run())


@dataclass(frozen=True, slots=True)
class Labelling:
    """What labels: settings of the workers, how to load the same here, and how far its numbers may differ."""

    settings: Mapping[str, object]
    load: Callable[[], Engine]
    tolerance: float


def label_without_model(size: Size) -> Labelling:
    """Labels slow enough that a portion lasts, the same to the last bit."""
    steps = 2 * sum(size.faults.values()) + 1
    seconds = round(LABELLERS * PORTION_SECONDS * steps / size.records, 4)
    settings = {"engine.kind": "deterministic", "engine.deterministic_seconds_per_text": seconds}
    return Labelling(settings, DeterministicEngine, 0.0)


def label_with(bundle: str) -> Labelling:
    """A real stack, in fp32."""

    def load() -> Engine:
        from stacknorm.engine import Engine as Stack  # noqa: PLC0415 -- torch takes seconds to import

        return Stack.load(bundle, "cpu", "fp32")

    settings = {"engine.kind": "stack", "engine.bundle": bundle, "engine.device": "cpu", "engine.precision": "fp32"}
    return Labelling(settings, load, STACK_TOLERANCE)


class Campaign:
    """Owned by one event loop. Workers are named by their role and a number that is never used again."""

    def __init__(
        self,
        seed: int,
        size: Size,
        labelling: Labelling,
        broker: LocalBroker,
        folder: Path,
        say: Say,
        program: Sequence[str],
        shards: int,
    ) -> None:
        self._seed = seed
        self._size = size
        self._labelling = labelling
        self._broker = broker
        self._folder = folder
        self._say = say
        self._program = program
        self._random = Random(seed)
        self._shards = shards
        self._aim = 0  # the shard whose detector is to be hit
        self._dotted = campaign_settings(broker.bootstrap) | labelling.settings | {"surge.shards": shards}
        self._settings = load_run_settings(self._dotted)
        self._workers: dict[str, list[str]] = {"labeller": [], "detector": []}
        self._started: Counter[str] = Counter()
        self._fed: Counter[int] = Counter()
        self._exit_statuses: dict[str, int] = {}

    async def run(self) -> Report:
        """See `run_campaign`."""
        settings = self._settings
        headlines = count_headlines(self._size.records)
        self._workload = make_workload(settings.topic_names.raw, headlines=headlines, partitions=PARTITIONS)
        plan = plan_faults(self._seed, self._size.faults, len(self._workload.records))
        await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
        self._writer = Writer(settings.kafka, "workload")
        await self._writer.start()
        try:
            async with Observer(settings) as self._observer:
                with Fleet(self._dotted, self._folder, self._program) as self._fleet:
                    await self._begin()
                    hits = [await self._carry_out(fault, plan) for fault in plan]
                    expected, strange = await self._await_end()
                    self._exit_statuses |= await asyncio.to_thread(self._fleet.stop)
                return await self._judge(hits, expected, strange)
        finally:
            await self._writer.stop()

    async def _begin(self) -> None:
        self._say(f"starting {LABELLERS} labellers and {DETECTORS} detectors of {self._shards} shards")
        names = [self._start("labeller") for _ in range(LABELLERS)] + [
            self._start("detector") for _ in range(DETECTORS)
        ]
        for name in names:
            await self._await_joined(name)

    # The end

    async def _await_end(self) -> tuple[Outputs, list[Violation]]:
        """Feed what is left and wait until all is done; what should be there, and what is strange about the input."""
        total = len(self._workload.records)
        await self._feed(total)
        self._say(f"all {total} records are fed; waiting until they are done")
        while left := await self._count_left():  # however much that is: patience is for what stands still
            await self._await_committed(total - left // 2)
        raw = await self._ask(lambda: self._observer.read(self._settings.topic_names.raw))
        logs: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}
        for record in raw:
            logs[record.partition].append(record)
        strange = (
            [] if logs == self._workload.as_read() else [Violation("altered", "the raw topic is not the workload")]
        )
        expected = await asyncio.to_thread(expect, logs, self._labelling.load(), self._settings.rules)
        if expected.alerts:
            last = max(alert.detected_at for alert in expected.alerts)
            await self._await_frontier(last - MILLISECOND)
        return expected, strange

    async def _judge(self, hits: list[Hit], expected: Outputs, strange: list[Violation]) -> Report:
        self._say("reading all outputs, read_committed, and comparing")
        outputs = await self._ask(self._observer.outputs)
        unfinished = await self._ask(self._observer.unfinished)
        both = (by_shard(outputs, self._shards), by_shard(expected, self._shards))
        violations = await asyncio.to_thread(find_violations, *both, self._labelling.tolerance)
        return Report(
            seed=self._seed,
            planned=self._size.faults,
            hits=hits,
            inputs=len(expected.labelled) + len(expected.dead),
            alerts=len(expected.alerts),
            violations=[*strange, *violations],
            unfinished=unfinished,
            exit_statuses=self._exit_statuses,
        )

    # A fault

    async def _carry_out(self, fault: Fault, plan: tuple[Fault, ...]) -> Hit:
        act = {
            Kind.sigkill: self._kill,
            Kind.rebalance: self._rebalance,
            Kind.broker: self._kill_node,
            Kind.zombie: self._freeze,
        }[fault.kind]
        hit = await act(fault)
        self._say(
            f"{plan.index(fault) + 1} of {len(plan)}: {fault.kind} of {hit.victim} ({fault.target})"
            f"{', in a transaction' if hit.in_transaction else ''}, {hit.left_at_strike} records waiting; "
            f"recovered in {hit.recovery_seconds:.1f} s, mended with {hit.left_at_mend} waiting"
        )
        return hit

    async def _kill(self, fault: Fault) -> Hit:
        await self._reach(fault.strike)
        victim = await self._choose(fault)
        met = await self._catch(victim, in_transaction=fault.in_transaction)
        left = await self._count_left(victim)
        since = await self._look()
        self._fleet.kill(victim)
        recovery = await self._await_recovery(fault, since)
        self._workers[fault.target].remove(victim)
        left_at_mend = await self._reach(fault.mend)
        await self._await_joined(self._start(fault.target))
        return Hit(fault, victim, left, left_at_mend, met, recovery)

    async def _rebalance(self, fault: Fault) -> Hit:
        victim = self._start("labeller")
        await self._await_said(victim, "engine.loaded")  # which took it seconds, to join takes less
        await self._reach(fault.strike)
        since = await self._look()
        await self._await_joined(victim)
        left = await self._count_left()
        recovery = await self._await_recovery(fault, since)
        left_at_mend = await self._reach(fault.mend)
        self._exit_statuses[victim] = await asyncio.to_thread(self._fleet.terminate, victim)
        self._workers["labeller"].remove(victim)
        return Hit(fault, victim, left, left_at_mend, False, recovery)

    async def _freeze(self, fault: Fault) -> Hit:
        await self._reach(fault.strike)
        victim = await self._choose(fault)
        met = await self._catch(victim, in_transaction=fault.in_transaction)
        left = await self._count_left(victim)
        since = await self._look()
        recovery = await self._await_recovery(fault, since)
        await asyncio.sleep(max(0.0, since.seconds + ZOMBIE_SECONDS - time.monotonic()))
        left_at_mend = await self._reach(fault.mend)
        joined = self._count_joined(victim)
        self._fleet.thaw(victim)
        await self._await_joined(victim, joined)  # it finds out that it was replaced
        return Hit(fault, victim, left, left_at_mend, met, recovery)

    async def _kill_node(self, fault: Fault) -> Hit:
        await self._reach(fault.strike)
        node = await self._ask(lambda: self._find_node(fault))
        left = await self._count_left()
        since = await self._look()
        await asyncio.to_thread(self._broker.kill, node)
        recovery = await self._await_recovery(fault, since)
        left_at_mend = await self._reach(fault.mend)
        await asyncio.to_thread(self._broker.restart, node)
        await self._await_replicas()
        return Hit(fault, f"node {node}", left, left_at_mend, False, recovery)

    async def _find_node(self, fault: Fault) -> int:
        names, observer = self._settings.topic_names, self._observer
        what, _, of = fault.target.partition(" of ")
        if what == "leader":
            partition = int(fault.share * PARTITIONS) if of in {"raw", "labelled"} else 0
            return await observer.leader(
                {"raw": names.raw, "labelled": names.labelled}.get(of, names.surge_state), partition
            )
        if of == "transactions":
            return await observer.transaction_coordinator(self._transactional_id(self._workers["labeller"][0]))
        group = self._settings.labeller_group if of == "labellers" else self._settings.detector_group
        return await observer.group_coordinator(group)

    async def _choose(self, fault: Fault) -> str:
        """The detector that runs a shard, or one of the labellers for whom much waits."""
        if fault.target == "detector":
            self._aim = int(fault.share * self._shards)
            return (await self._ask(self._read_shard_owners))[self._aim]
        waiting = await self._count_left_by_labeller()
        busy = sorted(name for name, left in waiting.items() if 2 * left >= max(waiting.values()))
        return busy[int(fault.share * len(busy))]

    async def _catch(self, victim: str, *, in_transaction: bool) -> bool:
        """Freeze it with a transaction open, or with none, if it can be met so; whether one was open."""
        transactional_id = self._transactional_id(victim)
        looks = 0
        while True:
            looks += 1
            self._fleet.freeze(victim)
            await asyncio.sleep(FREEZE_SECONDS)
            is_open = transactional_id in await self._ask(self._observer.open_transactions)
            if is_open is in_transaction or looks == LOOKS:
                return is_open
            self._fleet.thaw(victim)
            await asyncio.sleep(self._random.uniform(0.0, MAX_SLICE_SECONDS))

    def _transactional_id(self, name: str) -> str:
        if name in self._workers["labeller"]:
            return f"{self._settings.labeller_group}-{name}"
        return f"{self._settings.detector_group}-shard-{self._aim}"

    async def _look(self) -> Moment:
        committed = await self._ask(self._observer.committed)
        waiting = {each: at for each in self._fed if (at := committed.get(each, 0)) < self._fed[each]}
        return Moment(time.monotonic(), waiting, await self._ask(self._observer.frontier))

    async def _await_recovery(self, fault: Fault, since: Moment) -> float:
        """Wait until work goes on in every partition in which some waited, and in the detector; seconds since then."""

        async def is_on() -> bool:
            now = await self._observer.committed()
            return all(now.get(partition, 0) > at for partition, at in since.waiting.items())

        await self._await_that(f"commits after {fault.kind} of {fault.target}", is_on)
        if since.frontier is not None:
            await self._await_frontier(since.frontier)
        return time.monotonic() - since.seconds

    # Workers

    def _start(self, role: str) -> str:
        self._started[role] += 1
        name = f"{role}-{self._started[role]}"
        self._fleet.start(role, name)
        self._workers[role].append(name)
        return name

    def _count_joined(self, name: str) -> int:
        """How often it became a member of a generation."""
        return sum(self._fleet.count_said(name, event) for event in ("source.owned", "lease.owned"))

    async def _await_joined(self, name: str, before: int = 0) -> None:
        """Wait until it has become a member once more than ``before``."""

        async def ask() -> bool:
            return self._count_joined(name) > before

        await self._await_that(f"{name} is a member", ask)

    async def _await_said(self, name: str, event: str) -> None:
        async def ask() -> bool:
            return self._fleet.count_said(name, event) > 0

        await self._await_that(f"{name} says {event}", ask)

    async def _read_owners(self, group: str, topic: str) -> dict[int, str]:
        """By partition of a topic, the worker of a group that owns it.

        Raises:
            Retriable: nobody owns any, as between two generations.
        """
        prefix = f"{self._settings.kafka.client_id}-"
        owners = await read_owners(self._settings.kafka, group, topic)
        if not owners:
            raise Retriable(f"nobody owns {topic}")
        return {partition: owner.client_id.removeprefix(prefix) for partition, owner in owners.items()}

    async def _read_shard_owners(self) -> dict[int, str]:
        owners = await self._read_owners(self._settings.detector_group, self._settings.topic_names.surge_state)
        if len(owners) < self._shards:
            raise Retriable(f"somebody owns only {sorted(owners)} of {self._shards} shards")
        return owners

    async def _read_labellers(self) -> dict[int, str]:
        return await self._read_owners(self._settings.labeller_group, self._settings.topic_names.raw)

    # Work

    async def _feed(self, until: int) -> None:
        done = self._fed.total()
        portion = self._workload.records[done:until]
        await self._writer.write(portion)
        for record in portion:
            assert record.partition is not None
            self._fed[record.partition] += 1

    async def _reach(self, step: Step) -> int:
        """Feed a portion and wait until it is worked on; how many records wait then."""
        await self._feed(step.fed)
        await self._await_committed(step.at)
        return await self._count_left()

    async def _count_left(self, victim: str = "") -> int:
        """Records that wait: those of a labeller, or all."""
        if victim in self._workers["labeller"]:
            return (await self._count_left_by_labeller())[victim]
        return sum((await self._count_left_by_partition()).values())

    async def _count_left_by_labeller(self) -> Counter[str]:
        waiting = await self._count_left_by_partition()
        left: Counter[str] = Counter()
        for partition, owner in (await self._ask(self._read_labellers)).items():
            left[owner] += waiting.get(partition, 0)
        return left

    async def _count_left_by_partition(self) -> dict[int, int]:
        committed = await self._ask(self._observer.committed)
        return {partition: fed - committed.get(partition, 0) for partition, fed in self._fed.items()}

    async def _await_committed(self, least: int) -> None:
        async def ask() -> bool:
            return sum((await self._observer.committed()).values()) >= least

        await self._await_that(f"{least} raw records committed", ask)

    async def _await_frontier(self, after: datetime) -> None:
        async def ask() -> bool:
            clock = await self._observer.frontier()
            return clock is not None and clock > after

        await self._await_that(f"a frontier after {after}", ask)

    async def _await_replicas(self) -> None:
        async def ask() -> bool:
            return not await self._observer.out_of_sync(NODES)

        await self._await_that("every partition is on every node", ask)

    async def _await_that(self, what: str, ask: Callable[[], Awaitable[bool]]) -> None:
        await self._fleet.await_that(what, patient(ask), PATIENCE_SECONDS)

    async def _ask(self, ask: Callable[[], Awaitable[Told]]) -> Told:
        """An answer, however long a node is away."""
        answers: list[Told] = []

        async def is_told() -> bool:
            answers.append(await ask())
            return True

        await self._await_that("the cluster answers", is_told)
        return answers[0]


def campaign_settings(bootstrap: str) -> dict[str, object]:
    """Of all workers: three copies of everything."""
    return run_settings(
        bootstrap,
        topics__partitions=PARTITIONS,
        topics__replication_factor=NODES,
        unit__max_records=UNIT_RECORDS,
    )
