"""Labellers and detectors on a broker in memory, in virtual time, with faults by chance: one seed, one history.

The workers are the real loops, units, gate and merge; only Kafka, time and the thread of the engine are others. What
they leave is judged by the verifier of the tests against a real broker.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any
from unittest.mock import patch

from aiokafka.structs import TopicPartition
from memory_broker import MemoryBroker
from memory_clients import MemoryClients, Process, Weather
from virtual_time import VirtualCompute, run_virtually

from schemas.events import AlertEvent, DeadLetter, LabelledEvent, NewsItem, Progress, TrendEvent
from verify import Marked, Outputs, Placed, Violation, by_shard, expect, find_violations
from worker.codec import HEARTBEAT_HEADER
from worker.deterministic import DeterministicEngine
from worker.errors import WorkerError
from worker.kafka.clients import Clients
from worker.kafka_settings import KafkaSettings
from worker.labeller import Engine
from worker.records import OutRecord
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.surroundings import Surroundings
from worker.runner.vitals import Vitals
from worker.settings import Settings, TopicSettings, UnitSettings
from worker.surge.rules import Rules
from workload import Workload

START_MS = 1_600_000_000_000
HOUR_MS = 3_600_000
POISON = b"{not json"
RULES = Rules(negatives_a_day=50, learning_days=0.5, max_frozen_hours=8)
STORM_SECONDS = (25.0, 60.0)
"""How long the storm lasts: so long at least, and until most of the input is committed, but not longer than that."""
PAUSE_SECONDS = 4.0
"""How long the workers are left alone between two faults at most."""
CALM_SECONDS = 120.0
"""How long may pass from then until all is done."""
LOOK_SECONDS = 0.25

Role = Callable[[asyncio.Event, Surroundings], Coroutine[Any, Any, None]]
Make = Callable[[Process, KafkaSettings], Clients]


@dataclass(frozen=True, slots=True)
class World:
    """How a history is set up, beside its seed.

    Attributes:
        settings: of the workers.
        engine: what labels.
        fences_members: whether the broker refuses offsets of members that are not current.
        make_clients: what the workers reach it by.
        detects: whether detectors run too.
        odds: one of them is that of a request to be slow, one that of one way to lose it.
    """

    settings: Settings
    engine: Engine = field(default_factory=DeterministicEngine)
    fences_members: bool = True
    make_clients: Make = MemoryClients
    detects: bool = True
    odds: Sequence[float] = (0.0, 0.01, 0.05)


@dataclass(frozen=True, slots=True)
class History:
    """What happened: faults by kind, and what is wrong with what is left."""

    faults: Mapping[str, int]
    violations: Sequence[Violation]
    alerts: int
    seconds: float


def make_settings(partitions: int, unit_records: int = 4, **others: Any) -> Settings:
    """Settings under which much happens in little time."""
    return Settings(
        kafka=KafkaSettings(
            session_timeout_ms=3000,
            heartbeat_interval_ms=300,
            rebalance_timeout_ms=3000,
            transaction_timeout_ms=3000,
        ),
        topics=TopicSettings(partitions=partitions),
        unit=UnitSettings(max_records=unit_records),
        idle_clock="data",
        shutdown_grace_seconds=10,
        **others,
    )


def simulate(seed: int, world: World) -> History:
    """Live through the history of a seed, in one process for all workers, whose memory none of them settles."""
    with patch("worker.runner.detector.settle_memory"):
        return run_virtually(_Simulation(seed, world).run())


class _Simulation:
    def __init__(self, seed: int, world: World) -> None:
        self._random = Random(seed)
        self._world = world
        self._settings = world.settings
        self._topics = world.settings.topic_names
        self._faults: dict[str, int] = {}
        self._workers: list[_Worker] = []

    async def run(self) -> History:
        """See `simulate`."""
        workload = make_workload(self._random, self._topics.raw, self._settings.topics.partitions)
        records = workload.records
        async with self._open_broker() as broker:
            self._broker = broker
            self._weather = Weather(
                self._random, self._random.choice(self._world.odds), self._random.choice(self._world.odds)
            )
            feeding = asyncio.create_task(self._feed(records))
            for _ in range(self._random.randint(1, 3)):
                self._start(self._label)
            if self._world.detects:
                for _ in range(self._random.randint(1, 2)):
                    self._start(self._detect)
            await self._storm(records)
            await feeding
            expected = expect(workload.as_read(), DeterministicEngine(), RULES, trends=True)
            if not self._world.detects:
                expected = replace(expected, alerts=(), trends=())
            late = await self._await_end(records, expected)
            await asyncio.gather(*(worker.end() for worker in self._workers))
            found, shards = read_outputs(broker, self._settings), self._settings.surge.shards
            both = (by_shard(found, shards), by_shard(expected, shards))
            return History(self._faults, [*late, *find_violations(*both)], len(found.alerts), _seconds())

    @asynccontextmanager
    async def _open_broker(self) -> AsyncIterator[MemoryBroker]:
        topics = {spec.name: spec.partitions for spec in self._settings.topic_specs}
        broker = MemoryBroker(topics, self._random, fences_members=self._world.fences_members)
        try:
            yield broker
        finally:
            await broker.stop()

    async def _feed(self, records: Sequence[OutRecord]) -> None:
        """Write the input, by and by."""
        for record in records:
            assert record.partition is not None
            self._broker.logs[TopicPartition(record.topic, record.partition)].append(record)
            if self._random.random() < 0.2:
                await asyncio.sleep(self._random.random() * 4)

    # Workers

    def _start(self, role: Role) -> None:
        self._workers.append(_Worker(role, self._broker, self._weather, self._world.make_clients, self._random))

    async def _label(self, stop: asyncio.Event, around: Surroundings) -> None:
        instance = self._random.choice(("", f"i{self._random.randrange(2)}"))  # two may take the same by mistake
        named = {"instance": instance or f"random-{self._random.getrandbits(32)}"}
        settings = self._settings.model_copy(update=named)
        await run_labeller(settings, self._world.engine, stop, Vitals("labeller"), around)

    async def _detect(self, stop: asyncio.Event, around: Surroundings) -> None:
        await run_detector(self._settings, RULES, stop, Vitals("detector"), around)

    # Faults

    async def _storm(self, records: Sequence[OutRecord]) -> None:
        faults = (self._kill, self._freeze, self._stop_and_start, self._add, self._cut_off)
        least, most = STORM_SECONDS
        while _seconds() < least or (self._count_committed() < 0.9 * len(records) and _seconds() < most):
            await asyncio.sleep(self._random.random() * PAUSE_SECONDS)
            fault = self._random.choice(faults)
            name = fault.__name__.strip("_")
            self._faults[name] = self._faults.get(name, 0) + 1
            await fault()
        self._weather.slow = self._weather.lost = 0
        self._broker.up = True
        for worker in self._workers:
            worker.process.thaw()

    async def _kill(self) -> None:
        self._random.choice(self._workers).kill()

    async def _freeze(self) -> None:
        process = self._random.choice(self._workers).process
        process.freeze()
        await asyncio.sleep(self._random.random() * 8)
        process.thaw()

    async def _stop_and_start(self) -> None:
        await self._random.choice(self._workers).end(restart=True)

    async def _add(self) -> None:
        if len(self._workers) < 6:
            self._start(self._label)

    async def _cut_off(self) -> None:
        self._broker.up = False
        await asyncio.sleep(self._random.random() * 6)
        self._broker.up = True

    # The end

    async def _await_end(self, records: Sequence[OutRecord], expected: Outputs) -> list[Violation]:
        """Wait until all is done; what is not in time is a violation."""
        deadline = _seconds() + CALM_SECONDS
        while undone := self._find_undone(records, expected):
            if _seconds() > deadline:
                return [Violation("late", text) for text in undone]
            await asyncio.sleep(LOOK_SECONDS)
        return []

    def _count_committed(self) -> int:
        return sum(at.offset for at in self._broker.group(self._settings.labeller_group).committed.values())

    def _find_undone(self, records: Sequence[OutRecord], expected: Outputs) -> list[str]:
        committed = self._broker.group(self._settings.labeller_group).committed
        undone = []
        for number in range(self._settings.topics.partitions):
            place = TopicPartition(self._topics.raw, number)
            count = sum(record.partition == number for record in records)
            stands = committed[place].offset if place in committed else 0
            if stands < count:
                undone.append(f"raw partition {number} is committed up to {stands} of {count}")
        if self._broker.has_open_transactions():
            undone.append("a transaction is open")
        for topic, due in ((self._topics.alerts, len(expected.alerts)), (self._topics.trends, len(expected.trends))):
            told = len(self._broker.logs[TopicPartition(topic, 0)].read(0, 1 << 30).records)
            if told < due:
                undone.append(f"{told} of {due} records are on {topic}")
        return undone


class _Worker:
    """A role that is started again whenever it ends, as an orchestrator does, in a process of its own each time."""

    def __init__(self, role: Role, broker: MemoryBroker, weather: Weather, make_clients: Make, random: Random) -> None:
        self._role = role
        self._broker = broker
        self._weather = weather
        self._make_clients = make_clients
        self._random = random
        self._ended = False
        self._begin()
        self._living = asyncio.create_task(self._live())

    def _begin(self) -> None:
        self.process = Process(self._broker, self._weather)
        self._stop = asyncio.Event()
        around = Surroundings(
            make_clients=partial(self._make_clients, self.process),
            make_compute=lambda _: VirtualCompute(self._random, 0.3),
        )
        self._run = asyncio.create_task(self._role(self._stop, around))

    async def _live(self) -> None:
        while True:
            await asyncio.wait([self._run])
            error = None if self._run.cancelled() else self._run.exception()
            if error is not None and not isinstance(error, WorkerError):
                raise error
            await asyncio.sleep(1 + self._random.random() * 4)
            if self._ended:
                return
            self._begin()

    def kill(self) -> None:
        """As by SIGKILL: nothing is said to the broker any more."""
        self.process.kill()
        self._run.cancel()

    async def end(self, *, restart: bool = False) -> None:
        """As by SIGTERM."""
        self._ended = not restart
        self._stop.set()
        if not restart:
            await self._living


def _seconds() -> float:
    return asyncio.get_running_loop().time()


# Input and outputs


def make_workload(random: Random, topic: str, partitions: int) -> Workload:
    """Some hours of items on few symbols, a burst of bad news among them, poison, and the archive's last heartbeats."""
    titles = [f"{random.getrandbits(60):x} {random.getrandbits(60):x} {random.getrandbits(60):x}" for _ in range(120)]
    said = DeterministicEngine().predict(titles)
    bad = [title for title, one in zip(titles, said, strict=True) if one.tasks["sentiment"].label == "negative"]
    timed = [(random.random() * 48, title, f"T{random.randrange(3)}") for title in titles if title not in bad[:14]]
    timed += [(30 + random.random(), title, "T9") for title in bad[:14]]
    random.shuffle(timed)
    timed = sorted(timed[:60] + [each for each in timed[60:] if each[2] == "T9"])
    records = []
    for number, (hour, title, symbol) in enumerate(timed):
        item = NewsItem(id=f"i{number}", title=title, source=random.choice("abcd"), symbols=(symbol,))
        value = POISON if random.random() < 0.03 else item.to_json()
        stamp = START_MS + int(hour * HOUR_MS)
        records.append(OutRecord(topic, None, value, random.randrange(partitions), (), stamp))
    poison = sum(record.value == POISON for record in records)
    last = [
        OutRecord(topic, None, None, number, ((HEARTBEAT_HEADER, b"1"),), START_MS + 100 * HOUR_MS)
        for number in range(partitions)
    ]
    return Workload((*records, *last), partitions, len(records) - poison, poison)


def read_outputs(broker: MemoryBroker, settings: Settings) -> Outputs:
    """What a read_committed reader finds."""
    topics = settings.topic_names

    def read(topic: str) -> list[Any]:
        places = sorted(place for place in broker.logs if place.topic == topic)
        return [record for place in places for record in broker.logs[place].read(0, 1 << 30).records]

    return Outputs(
        labelled=tuple(
            Placed(r.partition, r.offset, LabelledEvent.model_validate_json(r.value)) for r in read(topics.labelled)
        ),
        dead=tuple(DeadLetter.model_validate_json(r.value) for r in read(topics.dead)),
        alerts=tuple(AlertEvent.model_validate_json(r.value) for r in read(topics.alerts)),
        marks=tuple(Marked(r.partition, Progress.model_validate_json(r.value)) for r in read(topics.progress)),
        trends=tuple(TrendEvent.model_validate_json(r.value) for r in read(topics.trends)),
    )
