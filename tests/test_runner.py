"""The loops against a real broker: exactly once over restarts, rebalances and failures; idle marks; the detector."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from schemas.events import AlertEvent, DeadLetter, LabelledEvent, NewsItem, Progress
from stacknorm.prediction import Prediction
from worker.broker import HOST, free_port
from worker.codec import HEARTBEAT_HEADER, decode_clock, encode_clock, to_ms
from worker.detector import detect
from worker.deterministic import DeterministicEngine
from worker.errors import Abortable, Fatal, Fenced
from worker.kafka.admin import create_topics, read_lag
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.kafka.sink import Delivery, Sink, TransactionalSink, Writer
from worker.kafka_settings import KafkaSettings
from worker.kip447 import fetch_committed
from worker.records import OutRecord, PartitionClock, Record
from worker.runner.clocks import recall_clocks
from worker.runner.compute import ComputeThread
from worker.runner.detector import run_detector
from worker.runner.labeller import Labeller, run_labeller
from worker.runner.surroundings import Surroundings
from worker.runner.tasks import run_together, run_until_first
from worker.runner.vitals import Vitals
from worker.settings import Settings, SurgeSettings, TopicSettings, UnitSettings
from worker.surge.rules import Rules

PARTITIONS = 2


@pytest.fixture
async def settings(bootstrap: str, prefix: str) -> Settings:
    made = Settings(
        group_prefix=prefix,
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
            rebalance_timeout_ms=6000,
            transaction_timeout_ms=10_000,
        ),
        topics=TopicSettings(prefix=prefix, partitions=PARTITIONS),
        unit=UnitSettings(max_records=20),
        idle_clock="data",
        shutdown_grace_seconds=10,
    )
    await create_topics(made.kafka, made.topic_specs, 1)
    return made


class Running:
    """A role in a task, with its own stop."""

    def __init__(self, start: Callable[[asyncio.Event, Vitals], Any]) -> None:
        self.stop = asyncio.Event()
        self.vitals = Vitals("test")
        self.task = asyncio.create_task(start(self.stop, self.vitals))

    async def end(self) -> None:
        self.stop.set()
        await self.task


@asynccontextmanager
async def running(*roles: Callable[[asyncio.Event, Vitals], Any]) -> AsyncIterator[list[Running]]:
    parts = [Running(role) for role in roles]
    try:
        yield parts
    finally:
        for part in parts:
            part.stop.set()
        await asyncio.gather(*(part.task for part in parts))


async def ready(*parts: Running) -> None:
    async with asyncio.timeout(20):
        while any(part.vitals.ready() for part in parts):  # noqa: ASYNC110 -- polled as an orchestrator does
            await asyncio.sleep(0.05)


def labelling(settings: Settings, engine: Any = None, **other: Any) -> Callable[[asyncio.Event, Vitals], Any]:
    mine = settings.model_copy(update=other)
    return lambda stop, vitals: run_labeller(mine, engine or DeterministicEngine(), stop, vitals)


async def feed(settings: Settings, values: Sequence[bytes], start: int = 0, **other: Any) -> None:
    writer = Writer(settings.kafka, "test")
    await writer.start()
    raw = settings.topic_names.raw
    await writer.write([OutRecord(raw, None, v, i % PARTITIONS, **other) for i, v in enumerate(values, start)])
    await writer.stop()


def items(count: int, start: int = 0) -> list[bytes]:
    return [NewsItem(id=f"i{n}", title=f"headline number {n}").to_json() for n in range(start, start + count)]


class Follower:
    """Collects what is committed to a topic."""

    def __init__(self, settings: Settings, topic: str, partitions: int = PARTITIONS) -> None:
        self.reader = LogReader(settings.kafka, "test")
        self.places = {Place(topic, number): 0 for number in range(partitions)}
        self.records: list[Record] = []

    async def until(self, condition: Callable[[list[Record]], Any], timeout_seconds: float = 30) -> list[Record]:
        await self.reader.start()
        self.reader.assign(self.places)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition(self.records):
                    self.records += await self.reader.fetch(500, 0.2)
        finally:
            await self.reader.stop()
        return self.records

    async def count(self, number: int, timeout_seconds: float = 30) -> list[Record]:
        return await self.until(lambda records: len(records) >= number, timeout_seconds)

    async def rest(self) -> list[Record]:
        """All up to the last stable offset: nothing may come behind what was waited for."""
        await self.reader.start()
        ends = await self.reader.stable_ends(self.places)
        last = {Place(record.topic, record.partition): record.offset + 1 for record in self.records}
        self.reader.assign(self.places | last)
        try:
            while any([await self.reader.position(place) < end for place, end in ends.items()]):
                self.records += await self.reader.fetch(500, 0.1)
        finally:
            await self.reader.stop()
        return self.records


def events_of(records: Sequence[Record]) -> list[LabelledEvent]:
    return [LabelledEvent.model_validate_json(record.value or b"") for record in records]


def marks_of(records: Sequence[Record]) -> list[Progress]:
    return [Progress.model_validate_json(record.value or b"") for record in records]


async def assert_exactly_once(settings: Settings, count: int) -> list[LabelledEvent]:
    """Every item is labelled once, in the right partition, in the order of its partition; nothing comes behind."""
    follower = Follower(settings, settings.topic_names.labelled)
    await follower.count(count)
    records = await follower.rest()
    events = events_of(records)
    assert sorted(event.item_id for event in events) == sorted(f"i{n}" for n in range(count))
    for number in range(PARTITIONS):
        mine = [event for event, record in zip(events, records, strict=True) if record.partition == number]
        assert {event.input.partition for event in mine} <= {number}
        assert [event.input.offset for event in mine] == list(range(len(mine)))
        clocks = [event.clock for event in mine]
        assert clocks == sorted(clocks)
    return events


# Beside the event loop


async def test_the_compute_thread_gives_values_and_errors_in_order() -> None:
    thread = ComputeThread("test")
    names = await asyncio.gather(*(thread.run(lambda: threading.current_thread().name) for _ in range(3)))
    assert names == ["test"] * 3
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert thread.busy_seconds == 0
    slow = asyncio.create_task(thread.run(lambda: time.sleep(0.2)))
    await asyncio.sleep(0.1)
    assert thread.busy_seconds > 0.05
    await slow
    thread.stop()


async def test_loops_end_with_the_first_and_its_failure_is_raised() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("forever")

    async def failing() -> None:
        raise Fatal("broken")

    with pytest.raises(Fatal, match="broken"):
        await run_until_first(forever(), failing())
    assert ended == ["forever"]


async def test_loops_that_run_together_all_end_by_themselves_unless_one_fails() -> None:
    ended = []

    async def ending(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append(seconds)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def failing() -> None:
        await asyncio.sleep(0.02)
        raise Fatal("broken")

    await run_together(ending(0.01), ending(0.1))
    assert ended == [0.01, 0.1]
    with pytest.raises(Fatal, match="broken"):
        await run_together(ending(100), failing())
    assert ended == [0.01, 0.1, "cancelled"]


@pytest.mark.parametrize("role", ["labeller", "detector"])
async def test_a_worker_that_waits_for_its_broker_says_so_and_can_be_stopped(role: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=f"{HOST}:{free_port()}"))
    roles: dict[str, Callable[[asyncio.Event, Vitals], Any]] = {
        "labeller": labelling(settings),
        "detector": lambda stop, vitals: run_detector(settings, settings.rules, stop, vitals),
    }
    async with running(roles[role]) as [part]:
        await asyncio.sleep(1.2)
        assert part.vitals.ready() == "test waits for the broker"
        async with asyncio.timeout(3):
            await part.end()


# The labeller


@pytest.mark.kafka
async def test_every_record_is_labelled_once_over_a_restart(settings: Settings) -> None:
    await feed(settings, items(100))
    async with running(labelling(settings, DeterministicEngine(0.002))):
        await Follower(settings, settings.topic_names.labelled).count(30)
    done = len(await Follower(settings, settings.topic_names.labelled).count(30))
    assert done < 100  # work remained
    await feed(settings, items(50, 100), start=100)
    async with running(labelling(settings)):
        await assert_exactly_once(settings, 150)
    lag = await read_lag(settings.kafka, settings.labeller_group, settings.topic_names.raw, PARTITIONS)
    assert [each.records for each in lag.values()] == [0, 0]


@pytest.mark.kafka
async def test_every_record_is_labelled_once_while_a_second_worker_comes_and_the_first_goes(
    settings: Settings,
) -> None:
    await feed(settings, items(200))
    slow = DeterministicEngine(0.005)
    async with running(labelling(settings, slow, instance="a")) as [first]:
        await Follower(settings, settings.topic_names.labelled).count(20)
        async with running(labelling(settings, slow, instance="b")) as [second]:
            await ready(first, second)
            await Follower(settings, settings.topic_names.labelled).count(60)
            await first.end()
            assert len(await Follower(settings, settings.topic_names.labelled).count(60)) < 200
            await assert_exactly_once(settings, 200)


@pytest.mark.kafka
async def test_at_least_once_labels_all_and_commits(settings: Settings) -> None:
    await feed(settings, items(60))
    async with running(labelling(settings, processing_guarantee="at_least_once")):
        await assert_exactly_once(settings, 60)
    lag = await read_lag(settings.kafka, settings.labeller_group, settings.topic_names.raw, PARTITIONS)
    assert [each.committed for each in lag.values()] == [30, 30]


@pytest.mark.kafka
async def test_bad_records_are_dead_letters_and_heartbeats_leave_only_a_mark(settings: Settings) -> None:
    await feed(settings, [*items(2), b"{not json", b"\xff"])
    await feed(settings, [b"", b""], headers=((HEARTBEAT_HEADER, b""),), timestamp_ms=1_700_000_000_000)
    topics = settings.topic_names
    async with running(labelling(settings)):
        dead = [
            DeadLetter.model_validate_json(record.value or b"")
            for record in await Follower(settings, topics.dead, partitions=1).count(2)
        ]
        marks = await Follower(settings, topics.progress).until(
            lambda records: {m.partition for m in marks_of(records) if m.raw_next_offset == 3} == {0, 1}
        )
    assert sorted(letter.value or b"" for letter in dead) == [b"{not json", b"\xff"]
    assert {letter.kind for letter in dead} == {"json"}
    last = {mark.partition: mark for mark in marks_of(marks)}
    assert all(mark.lag == 0 and mark.stack.name == "deterministic" for mark in last.values())
    assert len(await Follower(settings, topics.labelled).count(2)) == 2


@pytest.mark.kafka
async def test_drained_partitions_are_marked_each_second_and_their_clock_is_committed(settings: Settings) -> None:
    await feed(settings, items(1))  # partition 1 stays empty
    topics = settings.topic_names
    before = datetime.now(UTC)
    async with running(labelling(settings, idle_clock="wall")):
        records = await Follower(settings, topics.progress).until(
            lambda records: all(sum(r.partition == number for r in records) >= 4 for number in range(PARTITIONS))
        )
    for number in range(PARTITIONS):
        marks = [mark for mark in marks_of(records) if mark.partition == number]
        clocks = [mark.clock for mark in marks]
        assert clocks == sorted(clocks)
        assert clocks[-1] - before > timedelta(seconds=1.5)
        steps = [later - earlier for earlier, later in pairwise(clocks[1:])]
        assert all(timedelta(seconds=0.7) < step < timedelta(seconds=2.5) for step in steps)
        assert marks[-1].labelled_next_offset == (1 if number == 0 else 0)
    stored = await read_metadata(settings)
    assert stored[0][0] == 1
    assert stored[1][0] == 0
    for number, (_, metadata) in stored.items():
        clock = decode_clock(metadata)
        assert clock.labelled_next_offset == (1 if number == 0 else 0)
        assert clock.clock_ms is not None
        assert clock.clock_ms >= to_ms(max(m.clock for m in marks_of(records) if m.partition == number))


async def read_metadata(settings: Settings) -> dict[int, tuple[int, str]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers, group_id=settings.labeller_group, enable_auto_commit=False
    )
    async with consumer:
        places = [TopicPartition(settings.topic_names.raw, number) for number in range(PARTITIONS)]
        return {place.partition: tuple(at) for place, at in (await fetch_committed(consumer, places)).items()}


@pytest.mark.kafka
async def test_without_stored_metadata_the_clock_goes_on_from_what_was_last_written(settings: Settings) -> None:
    await feed(settings, items(4), timestamp_ms=1_600_000_000_000)
    topics = settings.topic_names
    async with running(labelling(settings)):
        await Follower(settings, topics.progress).count(2)
    another = settings.model_copy(update={"group_prefix": f"{settings.group_prefix}other"})
    assert await recall_clocks(settings.kafka, topics, [0, 1]) == {
        number: encode_clock(PartitionClock(1_600_000_000_000, 2)) for number in range(PARTITIONS)
    }
    await feed(settings, items(2, 4), timestamp_ms=1_500_000_000_000)
    async with running(labelling(another)):
        records = await Follower(settings, topics.labelled).count(10)
    again = [event for event in events_of(records) if to_ms(event.received_at) == 1_500_000_000_000]
    assert len(again) == 2
    assert {to_ms(event.clock) for event in events_of(records)} == {1_600_000_000_000}


@pytest.mark.kafka
async def test_a_record_too_large_for_the_dead_letter_topic_leaves_its_coordinates_there(settings: Settings) -> None:
    hostile = Random(1).randbytes(900_000)
    huge = b"[" * 30_000_000
    writer = Writer(settings.kafka, "test")
    await writer.start()
    await writer.write([OutRecord(settings.topic_names.raw, b"k", hostile, 0)])
    await writer.stop()
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, compression_type="zstd", max_request_size=1 << 26
    )
    async with producer:
        await producer.send_and_wait(settings.topic_names.raw, huge, partition=1)
    async with running(labelling(settings)):
        records = await Follower(settings, settings.topic_names.dead, partitions=1).count(2)
    letters = {
        letter.input.partition: letter for letter in (DeadLetter.model_validate_json(r.value or b"") for r in records)
    }
    assert letters[0].value == hostile
    assert letters[1].value is None
    assert "30000000 bytes, is left out" in letters[1].reason


@pytest.mark.kafka
async def test_in_an_archive_wall_time_moves_no_clock(settings: Settings) -> None:
    await feed(settings, items(2), timestamp_ms=1_600_000_000_000)
    async with running(labelling(settings)):
        await Follower(settings, settings.topic_names.labelled).count(2)
        await asyncio.sleep(2.5)
        records = await Follower(settings, settings.topic_names.progress).count(2)
    assert [to_ms(mark.clock) for mark in marks_of(records)] == [1_600_000_000_000] * 2


class FailingSink:
    """A sink that fails some deliveries: before anything is sent, or after all is committed."""

    def __init__(self, sink: Sink, failures: list[tuple[str, Exception]]) -> None:
        self.sink = sink
        self.failures = failures
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        await self.sink.start()

    async def stop(self) -> bool:
        return await self.sink.stop()

    async def deliver(self, delivery: Delivery) -> None:
        when, error = self.failures.pop(0) if self.failures and delivery.records else ("never", Fenced(""))
        if when == "before":
            raise error
        await self.sink.deliver(delivery)
        if when == "after":
            raise error


class CountingEngine(DeterministicEngine):
    """Counts the texts it is given."""

    texts = 0

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        self.texts += len(texts)
        return super().predict(texts)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("failure", "labelled_again"),
    [
        (("before", Abortable("leader gone")), False),
        (("before", Fenced("generation over")), True),
        (("after", Fenced("the outcome of the commit is unknown")), True),
    ],
    ids=["abortable", "fenced", "unknown-but-committed"],
)
async def test_a_failed_delivery_loses_nothing_and_repeats_nothing(
    settings: Settings, failure: tuple[str, Exception], labelled_again: bool
) -> None:
    await feed(settings, items(100))
    engine = CountingEngine()
    stop, vitals = asyncio.Event(), Vitals("labeller")
    labeller = Labeller(settings, engine, stop, vitals)
    labeller.sink = failing = FailingSink(labeller.sink, [("never", Fenced("")), failure])
    task = asyncio.create_task(labeller.run())
    await assert_exactly_once(settings, 100)
    stop.set()
    await task
    assert failing.failures == []
    assert failing.starts == 2
    assert (engine.texts > 100) is labelled_again


@pytest.mark.kafka
async def test_a_delivery_that_cannot_come_right_ends_the_labeller(settings: Settings) -> None:
    await feed(settings, items(4))
    labeller = Labeller(settings, DeterministicEngine(), asyncio.Event(), Vitals("labeller"))
    labeller.sink = FailingSink(labeller.sink, [("before", Fatal("record too large"))])
    with pytest.raises(Fatal, match="record too large"):
        await labeller.run()


@pytest.mark.kafka
async def test_a_stop_cuts_long_inference_short_and_loses_nothing(settings: Settings) -> None:
    await feed(settings, items(20))
    hasty = settings.model_copy(update={"shutdown_grace_seconds": 1.0, "unit": UnitSettings(max_records=5)})
    async with running(labelling(hasty, DeterministicEngine(1.0))) as [first]:
        await asyncio.sleep(2.0)
        start = time.monotonic()
        await first.end()
        assert time.monotonic() - start < 4
    async with running(labelling(settings)):
        await assert_exactly_once(settings, 20)


@pytest.mark.kafka
async def test_a_backlog_above_its_mark_is_held_and_then_goes_on(settings: Settings) -> None:
    await feed(settings, items(400))
    small = UnitSettings(max_records=20, backlog_high_bytes=4000, backlog_low_bytes=1000)
    async with running(labelling(settings, unit=small)):
        await assert_exactly_once(settings, 400)


class NotingEngine(DeterministicEngine):
    """Takes half a second for a text, and notes how many it is given at once."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.given: list[int] = []

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        self.given.append(len(texts))
        return super().predict(texts)


@pytest.mark.kafka
async def test_a_unit_that_outlasts_the_poll_interval_costs_no_membership_and_the_next_are_split(
    settings: Settings,
) -> None:
    await feed(settings, items(40))
    kafka = settings.kafka.model_copy(update={"max_poll_interval_ms": 3000})
    unit = UnitSettings(max_records=20, max_seconds=4, backlog_high_records=5, backlog_low_records=1)
    mine = settings.model_copy(update={"kafka": kafka, "unit": unit})
    engine, stop = NotingEngine(), asyncio.Event()
    labeller = Labeller(mine, engine, stop, Vitals("labeller"))
    task = asyncio.create_task(labeller.run())
    await Follower(settings, settings.topic_names.labelled).count(20, timeout_seconds=60)
    first = labeller.source.ownership
    await assert_exactly_once(settings, 40)
    assert first is not None
    assert labeller.source.ownership is first  # no rebalance: the same epoch of the same member
    stop.set()
    await task
    assert engine.given[0] == 20  # ten seconds
    assert sum(engine.given) == 40
    assert max(engine.given[1:]) <= 8


# The detector

SENSITIVE = Rules(negatives_a_day=50, learning_days=0.5, max_frozen_hours=8)


def archive(days: float, seed: int) -> list[tuple[int, bytes]]:
    """Three days of items on few symbols, and an hour of many, as (timestamp, value)."""
    random = Random(seed)
    start = 1_600_000_000_000
    found = [(random.random() * days, f"T{random.randrange(4)}") for _ in range(int(120 * days))]
    found += [(days * 0.6 + random.random() / 12, "T3") for _ in range(60)]
    return [
        (
            start + int(day * 86_400_000),
            NewsItem(
                id=f"i{n}",
                title=f"{random.getrandbits(60):x} {random.getrandbits(60):x} {random.getrandbits(60):x}",
                source=random.choice("abcd"),
                symbols=(symbol,),
            ).to_json(),
        )
        for n, (day, symbol) in enumerate(sorted(found))
    ]


async def feed_archive(settings: Settings, lines: list[tuple[int, bytes]]) -> None:
    writer = Writer(settings.kafka, "test")
    await writer.start()
    raw = settings.topic_names.raw
    await writer.write([OutRecord(raw, None, v, i % PARTITIONS, (), ms) for i, (ms, v) in enumerate(lines)])
    await writer.stop()


async def feed_heartbeats(settings: Settings, timestamp_ms: int) -> None:
    await feed(settings, [b""] * PARTITIONS, headers=((HEARTBEAT_HEADER, b""),), timestamp_ms=timestamp_ms)


def comparable(alerts: Sequence[AlertEvent]) -> list[dict[str, Any]]:
    return [alert.model_dump(mode="json", exclude={"emitted_at"}) for alert in alerts]


@pytest.mark.kafka
async def test_the_detector_goes_on_after_a_restart_with_the_alerts_of_an_undisturbed_run(settings: Settings) -> None:
    lines = archive(3, seed=5)
    half = len(lines) * 2 // 3
    topics = settings.topic_names

    def detecting(stop: asyncio.Event, vitals: Vitals) -> Any:
        return run_detector(settings, SENSITIVE, stop, vitals)

    async with running(labelling(settings)):
        await feed_archive(settings, lines[:half])
        async with running(detecting) as [detector]:
            before = await Follower(settings, topics.alerts, partitions=1).count(1)
            assert detector.vitals.ready() is None
        await feed_archive(settings, lines[half:])
        await feed_heartbeats(settings, lines[-1][0] + 86_400_000)
        labelled = await Follower(settings, topics.labelled).count(len(lines))
        parts = [
            events_of([record for record in labelled if record.partition == number]) for number in range(PARTITIONS)
        ]
        expected = detect(SENSITIVE, *parts, emitted_at=datetime.now(UTC), run_out=True)
        assert len(expected) > len(before) > 0
        async with running(detecting):
            records = await Follower(settings, topics.alerts, partitions=1).count(len(expected))
    alerts = [AlertEvent.model_validate_json(record.value or b"") for record in records]
    assert comparable(alerts) == comparable(expected)


@pytest.mark.kafka
async def test_a_second_detector_stands_by_and_takes_over(settings: Settings) -> None:
    lines = archive(3, seed=6)
    topics = settings.topic_names

    def detecting(stop: asyncio.Event, vitals: Vitals) -> Any:
        return run_detector(settings, SENSITIVE, stop, vitals)

    async with running(labelling(settings)), running(detecting) as [first], running(detecting) as [second]:
        await feed_archive(settings, lines[: len(lines) // 2])
        await Follower(settings, topics.surge_state, partitions=1).count(5)
        await ready(first, second)
        await first.end()
        await feed_archive(settings, lines[len(lines) // 2 :])
        await feed_heartbeats(settings, lines[-1][0] + 86_400_000)
        labelled = await Follower(settings, topics.labelled).count(len(lines))
        parts = [
            events_of([record for record in labelled if record.partition == number]) for number in range(PARTITIONS)
        ]
        expected = detect(SENSITIVE, *parts, emitted_at=datetime.now(UTC), run_out=True)
        records = await Follower(settings, topics.alerts, partitions=1).count(len(expected))
    alerts = [AlertEvent.model_validate_json(record.value or b"") for record in records]
    assert comparable(alerts) == comparable(expected)


@pytest.mark.kafka
async def test_a_shard_that_was_fenced_begins_again_from_its_state_and_the_other_one_goes_on(
    settings: Settings,
) -> None:
    topics = TopicSettings(prefix=f"{settings.topics.prefix}two.", partitions=PARTITIONS)
    settings = settings.model_copy(update={"topics": topics, "surge": SurgeSettings(shards=2)})
    await create_topics(settings.kafka, settings.topic_specs, 1)
    names = settings.topic_names
    lines = archive(3, seed=5)
    half = len(lines) * 2 // 3
    begun: list[str] = []

    def make_compute(name: str) -> ComputeThread:
        begun.append(name)
        return ComputeThread(name)

    def detecting(stop: asyncio.Event, vitals: Vitals) -> Any:
        return run_detector(settings, SENSITIVE, stop, vitals, Surroundings(make_compute=make_compute))

    async with running(labelling(settings)), running(detecting):
        await feed_archive(settings, lines[:half])
        await Follower(settings, names.alerts, partitions=1).count(1)
        assert sorted(begun) == ["detector-0", "detector-1"]
        fence = TransactionalSink(settings.kafka, f"{settings.detector_group}-shard-1", "test")
        await fence.start()
        await fence.stop()
        await feed_archive(settings, lines[half:])
        await feed_heartbeats(settings, lines[-1][0] + 86_400_000)
        labelled = await Follower(settings, names.labelled).count(len(lines))
        parts = [
            events_of([record for record in labelled if record.partition == number]) for number in range(PARTITIONS)
        ]
        expected = detect(SENSITIVE, *parts, emitted_at=datetime.now(UTC), run_out=True)
        follower = Follower(settings, names.alerts, partitions=1)
        await follower.count(len(expected))
        records = await follower.rest()
    assert (begun.count("detector-0"), begun.count("detector-1")) == (1, 2)
    alerts = [AlertEvent.model_validate_json(record.value or b"") for record in records]

    def place(alert: AlertEvent) -> tuple[str, int]:
        return alert.alert_id, alert.revision

    assert comparable(sorted(alerts, key=place)) == comparable(sorted(expected, key=place))
