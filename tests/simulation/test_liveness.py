"""A worker that is slow stays a member, one that waits or is idle is alive, and one that is stuck says so and ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, TypeVar

import pytest
from aiokafka.structs import TopicPartition
from memory_broker import MemoryBroker
from memory_clients import MemoryClients, MemoryConsumer, Process, Weather
from virtual_time import run_virtually

from schemas.events import NewsItem
from simulation import make_settings, read_outputs
from worker.deterministic import DeterministicEngine
from worker.errors import Fatal
from worker.kafka_settings import KafkaSettings
from worker.records import OutRecord
from worker.runner.labeller import Labeller
from worker.runner.surroundings import Surroundings
from worker.runner.vitals import Vitals
from worker.settings import Settings, UnitSettings

PARTITIONS = 2
UNIT = UnitSettings(max_records=4, timeout_seconds=60, max_seconds=10, backlog_high_records=6, backlog_low_records=2)
SETTINGS = make_settings(PARTITIONS).model_copy(update={"unit": UNIT})

Value = TypeVar("Value")


class SteadyCompute:
    """Takes the same virtual time for each call."""

    busy_seconds = 0.0

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def run(self, call: Callable[[], Value]) -> Value:
        await asyncio.sleep(self._seconds)
        return call()

    def stop(self) -> None:
        """Nothing waits here."""


class World:
    """A labeller on a broker in memory."""

    def __init__(self, broker: MemoryBroker, settings: Settings, clients: Any, unit_seconds: float) -> None:
        self.broker = broker
        self.settings = settings
        self.process = Process(broker, Weather(Random(1)))
        self.vitals = Vitals("labeller")
        self.stop = asyncio.Event()
        around = Surroundings(
            make_clients=partial(clients, self.process), make_compute=lambda _: SteadyCompute(unit_seconds)
        )
        self.labeller = Labeller(settings, DeterministicEngine(), self.stop, self.vitals, around)
        self.running = asyncio.create_task(self.labeller.run())

    def feed(self, count: int) -> None:
        for number in range(count):
            value = NewsItem(id=f"i{number}", title=f"headline {number}").to_json()
            record = OutRecord(self.settings.topic_names.raw, None, value, number % PARTITIONS)
            self.broker.logs[TopicPartition(record.topic, number % PARTITIONS)].append(record)

    @property
    def labelled(self) -> list[str]:
        return sorted(placed.event.item_id for placed in read_outputs(self.broker, self.settings).labelled)

    @property
    def generation(self) -> int:
        return self.broker.group(self.settings.labeller_group).generation

    async def live_for(self, seconds: float) -> set[str | None]:
        """All that it says of its life within this time."""
        said = set()
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            said.add(self.vitals.live())
        return said


def live(
    body: Callable[[World], Coroutine[Any, Any, None]],
    *,
    settings: Settings = SETTINGS,
    clients: Any = MemoryClients,
    unit_seconds: float = 0.1,
) -> None:
    """Run a body in virtual time beside a labeller."""

    @asynccontextmanager
    async def world() -> AsyncIterator[World]:
        broker = MemoryBroker({spec.name: spec.partitions for spec in settings.topic_specs}, Random(1))
        made = World(broker, settings, clients, unit_seconds)
        try:
            yield made
        finally:
            made.stop.set()
            made.running.cancel()
            await asyncio.wait([made.running])
            await broker.stop()

    async def run() -> None:
        async with world() as made:
            await body(made)

    run_virtually(run())


def numbered(count: int) -> list[str]:
    return sorted(f"i{number}" for number in range(count))


def polling_every(max_poll_seconds: float) -> Settings:
    kafka = SETTINGS.kafka.model_copy(update={"max_poll_interval_ms": int(max_poll_seconds * 1000)})
    return SETTINGS.model_copy(update={"kafka": kafka})


def test_units_that_outlast_the_poll_interval_cost_no_membership_and_are_labelled_once() -> None:
    async def body(world: World) -> None:
        world.feed(40)
        assert await world.live_for(150) == {None}
        assert world.labelled == numbered(40)
        assert world.generation == 1

    live(body, settings=polling_every(3), unit_seconds=10)


def test_a_stack_that_hangs_is_said_at_half_of_the_time_and_ends_the_worker_at_the_whole_but_costs_no_membership() -> (
    None
):
    async def body(world: World) -> None:
        world.feed(1)
        assert await world.live_for(25) == {None}
        await asyncio.sleep(10)
        said = world.vitals.live() or ""
        assert said.startswith("labeller is stuck: 1 records from offsets {0: 0} on have been labelled for 3")
        assert world.generation == 1
        await asyncio.sleep(30)
        with pytest.raises(Fatal, match=r"labelled for 6\d s \(unit.timeout_seconds\)"):
            await world.running

    live(body, settings=polling_every(3), unit_seconds=1e9)


def test_an_idle_worker_is_alive() -> None:
    async def body(world: World) -> None:
        world.feed(6)
        assert await world.live_for(200) == {None}

    live(body)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_worker_with_a_backlog_whose_broker_is_away_is_alive_and_goes_on(guarantee: str) -> None:
    async def body(world: World) -> None:
        world.feed(60)
        await asyncio.sleep(8)
        done = len(world.labelled)
        assert 0 < done < 60
        world.broker.up = False
        assert await world.live_for(150) == {None}
        world.broker.up = True
        assert await world.live_for(120) == {None}
        assert set(world.labelled) == set(numbered(60))

    live(body, settings=SETTINGS.model_copy(update={"processing_guarantee": guarantee}), unit_seconds=1)


class DeafConsumer(MemoryConsumer):
    """Never gives what it has fetched of partition 1."""

    def _take(self, places: Any, most: int) -> Any:
        return super()._take([place for place in places if place.partition != 1], most)


class HangingConsumer(MemoryConsumer):
    """Hangs in a fetch after some seconds."""

    async def getmany(self, *places: Any, timeout_ms: int, max_records: int = 500) -> Any:
        if asyncio.get_running_loop().time() > 5:
            await asyncio.sleep(1e9)
        return await super().getmany(*places, timeout_ms=timeout_ms, max_records=max_records)


def reading_with(consumer: type[MemoryConsumer]) -> Callable[[Process, KafkaSettings], MemoryClients]:
    def make(process: Process, settings: KafkaSettings) -> MemoryClients:
        clients = MemoryClients(process, settings)
        clients.make_member = lambda group, **given: consumer(process, settings, group, given["auto_offset_reset"])
        return clients

    return make


def test_a_partition_that_does_not_move_although_the_broker_answers_is_named() -> None:
    async def body(world: World) -> None:
        world.feed(20)
        assert await world.live_for(25) == {None}
        await asyncio.sleep(20)
        assert (world.vitals.live() or "").startswith("labeller is stuck: partition 1 has not moved for 4")
        assert len(world.labelled) == 10

    live(body, clients=reading_with(DeafConsumer))


def test_a_fetch_that_hangs_ends_the_worker_before_it_is_no_member_any_more() -> None:
    async def body(world: World) -> None:
        await asyncio.sleep(5 + 30)
        assert world.running.done()
        with pytest.raises(Fatal, match=r"nothing was fetched for 2\d\.\d s, of max_poll_interval_ms = 30 s"):
            await world.running
        assert world.generation == 1

    live(body, settings=polling_every(30), clients=reading_with(HangingConsumer))


def test_a_worker_that_was_suspended_for_long_goes_on() -> None:
    async def body(world: World) -> None:
        world.feed(40)
        await asyncio.sleep(5)
        asyncio.get_running_loop()._waiting.seconds += 3600  # type: ignore[attr-defined] -- no timer ran meanwhile
        assert await world.live_for(60) == {None}
        assert world.labelled == numbered(40)

    live(body, unit_seconds=1)
