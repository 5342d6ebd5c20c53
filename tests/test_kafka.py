"""The Kafka edge on a real broker: what is delivered together, who is fenced, what opens the gate."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiokafka import errors
from hypothesis import given
from hypothesis import strategies as st

from worker import kip447
from worker.errors import Abortable, Fatal, Fenced, Misconfigured, Retriable
from worker.kafka.admin import create_topics, describe_topics, read_lag
from worker.kafka.connection import Committed, Place, to_kafka
from worker.kafka.reader import LogReader
from worker.kafka.sink import AtLeastOnceSink, Delivery, Ending, TransactionalSink, Writer
from worker.kafka.source import GroupLease, GroupSource, Ownership, choose_start
from worker.kafka.verdicts import _VERDICTS, translate
from worker.kafka_settings import KafkaSettings
from worker.records import OutRecord, Record
from worker.topics import Topics, TopicSpec, find_differences, plan_topics

PARTITIONS = 2


@pytest.fixture
def kafka(bootstrap: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=bootstrap,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        rebalance_timeout_ms=6000,
        transaction_timeout_ms=10_000,
    )


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as open_parts:
        yield open_parts


async def started(stack: AsyncExitStack, part: Any) -> Any:
    await part.start()
    stack.push_async_callback(part.stop)
    return part


async def make_topics(kafka: KafkaSettings, prefix: str) -> None:
    specs = [TopicSpec(f"{prefix}{name}", PARTITIONS, {}) for name in ("in", "out", "mark")]
    assert len(await create_topics(kafka, specs, 1)) == 3


async def nothing() -> None:
    pass


def source_of(
    kafka: KafkaSettings, prefix: str, *, stable: bool = True, when_revoked: Callable[[], Awaitable[None]] = nothing
) -> GroupSource:
    async def recall(partitions: Collection[int]) -> dict[int, str]:
        return {1: "recalled"} if 1 in partitions else {}

    return GroupSource(kafka, f"{prefix}in", f"{prefix}group", stable=stable, when_revoked=when_revoked, recall=recall)


def owned(source: GroupSource) -> Ownership:
    assert source.ownership is not None
    return source.ownership


async def until(condition: Callable[[], Any], timeout_seconds: float = 15.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 -- what is awaited tells no one
            await asyncio.sleep(0.02)


async def fetch_until(source: GroupSource, count: int, timeout_seconds: float = 15.0) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(timeout_seconds):
        while len(found) < count or source.ownership is None:
            found += await source.fetch(100, 0.1)
    return found


async def keep_fetching(source: GroupSource) -> None:
    while True:
        await source.fetch(100, 0.1)


@asynccontextmanager
async def fetching(*sources: GroupSource) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(keep_fetching(source)) for source in sources]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read_all(kafka: KafkaSettings, topic: str) -> list[bytes]:
    reader = LogReader(kafka, "test")
    await reader.start()
    values = []
    ends = await reader.stable_ends(Place(topic, partition) for partition in range(PARTITIONS))
    for place in (place for place, end in ends.items() if end):
        reader.assign({place: 0})
        while await reader.position(place) < ends[place]:
            values += [record.value or b"" for record in await reader.fetch(100, 1.0)]
    await reader.stop()
    return values


def records(prefix: str, *values: bytes, partition: int = 0) -> list[OutRecord]:
    return [OutRecord(f"{prefix}out", None, value, partition) for value in values]


def ending(prefix: str, offset: int, metadata: str = "") -> Callable[[Mapping[Place, int]], Ending]:
    def end(written: Mapping[Place, int]) -> Ending:
        next_offset = written[Place(f"{prefix}out", 0)]
        return Ending(
            [OutRecord(f"{prefix}mark", b"0", str(next_offset).encode(), 0)],
            {Place(f"{prefix}in", 0): Committed(offset, metadata or f"next {next_offset}")},
        )

    return end


# Errors


def all_kafka_errors() -> list[type[Exception]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]


def test_every_error_of_aiokafka_has_a_verdict() -> None:
    assert len(all_kafka_errors()) > 90
    assert [each.__name__ for each in all_kafka_errors() if each not in _VERDICTS] == []


def test_errors_that_aiokafka_calls_retriable_are_not_fatal() -> None:
    retriable = [each for each in all_kafka_errors() if getattr(each, "retriable", False)]
    assert len(retriable) > 20
    assert [each.__name__ for each in retriable if issubclass(_VERDICTS[each], Fatal)] == []


def test_a_wrapped_error_is_judged_by_its_cause_and_an_unknown_one_as_fenced() -> None:
    wrapped = errors.KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = errors.TopicAuthorizationFailedError("in")
    assert isinstance(translate(wrapped), Misconfigured)
    assert type(translate(errors.KafkaError("what?"))) is Fenced
    assert type(translate(errors.for_code(90)())) is Fenced
    assert type(translate(TimeoutError())) is Retriable
    assert type(translate(kip447.UnstableOffsetCommit())) is Retriable


# Where to start


@given(st.one_of(st.none(), st.integers(0, 50)), st.integers(0, 20), st.integers(0, 20))
def test_reading_starts_at_the_committed_offset_unless_the_log_no_longer_holds_it(
    stored: int | None, first: int, length: int
) -> None:
    last = first + length
    committed = None if stored is None else Committed(stored, "clock")
    if stored is not None and stored > last:
        with pytest.raises(Misconfigured, match="topic made anew"):
            choose_start(Place("in", 0), committed, first, last)
        return
    start = choose_start(Place("in", 0), committed, first, last)
    assert first <= start.offset <= last
    assert start.offset == (first if stored is None else max(first, stored))
    assert start.metadata == ("" if stored is None else "clock")


# Delivery


@pytest.mark.kafka
async def test_records_marks_and_offset_with_its_metadata_are_delivered_together(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    source = await started(stack, source_of(kafka, prefix))
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "labeller"))
    await fetch_until(source, 0)
    await sink.deliver(Delivery(records(prefix, b"a", b"b"), ending(prefix, 5), owned(source).membership))
    await sink.deliver(Delivery(records(prefix, b"c"), ending(prefix, 6), owned(source).membership))
    assert await read_all(kafka, f"{prefix}out") == [b"a", b"b", b"c"]
    assert await read_all(kafka, f"{prefix}mark") == [b"2", b"4"]  # the first commit's marker is an offset too
    lag = await read_lag(kafka, f"{prefix}group", f"{prefix}in", PARTITIONS)
    assert [lag[0].committed, lag[1].committed] == [6, None]


@pytest.mark.kafka
async def test_a_member_of_an_older_generation_is_fenced_and_the_next_delivery_succeeds(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    source = await started(stack, source_of(kafka, prefix))
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "labeller"))
    await fetch_until(source, 0)
    current = owned(source).membership
    stale = kip447.Membership(current, current.generation - 1, current.member_id)
    with pytest.raises(Fenced, match="is not current"):
        await sink.deliver(Delivery(records(prefix, b"stale"), ending(prefix, 5), stale))
    await sink.start()
    await sink.deliver(Delivery(records(prefix, b"current"), ending(prefix, 1), current))
    assert await read_all(kafka, f"{prefix}out") == [b"current"]


@pytest.mark.kafka
async def test_a_second_producer_with_the_same_id_fences_the_first_and_finishes_its_transaction(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    old = await started(stack, TransactionalSink(kafka, f"{prefix}p", "detector"))
    await old.deliver(Delivery(records(prefix, b"before")))
    await old._producing.producer.begin_transaction()
    await (await old._producing.producer.send(f"{prefix}out", b"open", partition=0))
    new = await started(stack, TransactionalSink(kafka, f"{prefix}p", "detector"))
    with pytest.raises(Fenced):
        await old._commit(old._producing.producer)
    await new.deliver(Delivery(records(prefix, b"after")))
    assert await read_all(kafka, f"{prefix}out") == [b"before", b"after"]


@pytest.mark.kafka
async def test_a_delivery_that_does_not_get_through_is_abortable_and_leaves_nothing(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    impatient = kafka.model_copy(update={"transaction_timeout_ms": 1000})
    sink = await started(stack, TransactionalSink(impatient, f"{prefix}p", "labeller"))

    def stall(_: Mapping[Place, int]) -> Ending:
        return Ending([OutRecord(f"{prefix}mark", b"0", b"x", 0)])

    producer = sink._producing.producer
    await producer.begin_transaction()  # as if the request that adds a partition were never answered
    await (await producer.send(f"{prefix}out", b"lost", partition=0))
    producer._sender._muted_partitions.add(Place(f"{prefix}mark", 0))
    producer.begin_transaction = nothing
    with pytest.raises(Abortable):
        await sink.deliver(Delivery(records(prefix, b"lost too"), stall))
    await sink.start()
    await sink.deliver(Delivery(records(prefix, b"kept")))
    assert await read_all(kafka, f"{prefix}out") == [b"kept"]


@pytest.mark.kafka
async def test_a_record_too_large_for_the_topic_is_a_matter_of_settings(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await create_topics(kafka, [TopicSpec(f"{prefix}out", 1, {"max.message.bytes": "1000"})], 1)
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "labeller"))
    noise = bytes(hash((i, "noise")) % 256 for i in range(5000))
    with pytest.raises(Misconfigured, match="MessageSizeTooLarge"):
        await sink.deliver(Delivery(records(prefix, noise)))


@pytest.mark.kafka
async def test_at_least_once_has_the_same_face(kafka: KafkaSettings, prefix: str, stack: AsyncExitStack) -> None:
    await make_topics(kafka, prefix)
    source = await started(stack, source_of(kafka, prefix, stable=False))
    sink = await started(stack, AtLeastOnceSink(kafka, source, "labeller"))
    await fetch_until(source, 0)
    membership = owned(source).membership
    await sink.deliver(Delivery(records(prefix, b"a", b"b"), ending(prefix, 1), membership))
    assert await read_all(kafka, f"{prefix}out") == [b"a", b"b"]
    assert await read_all(kafka, f"{prefix}mark") == [b"2"]
    stale = kip447.Membership(membership, membership.generation - 1, membership.member_id)
    with pytest.raises(Fenced):
        await sink.deliver(Delivery(records(prefix, b"c"), ending(prefix, 2), stale))
    assert (await read_lag(kafka, f"{prefix}group", f"{prefix}in", PARTITIONS))[0].committed == 1


# The gate


@pytest.mark.kafka
async def test_an_owner_reads_on_from_the_committed_offset_and_finds_its_metadata(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    writer = await started(stack, Writer(kafka, "test"))
    await writer.write([OutRecord(f"{prefix}in", None, b"%d" % i, 0, (("h", b"v"),), 1000 + i) for i in range(5)])
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "labeller"))
    async with AsyncExitStack() as first:
        source = await started(first, source_of(kafka, prefix))
        found = await fetch_until(source, 5)
        assert [(r.offset, r.value, r.timestamp_ms, tuple(r.headers)) for r in found][-1] == (
            4, b"4", 1004, (("h", b"v"),),
        )  # fmt: skip
        await sink.deliver(Delivery(records(prefix, b"x"), ending(prefix, 3, "clock 3"), owned(source).membership))
    source = await started(stack, source_of(kafka, prefix))
    found = await fetch_until(source, 2)
    assert [record.offset for record in found] == [3, 4]
    assert owned(source).committed == {0: Committed(3, "clock 3"), 1: Committed(0, "recalled")}
    ends = await source.ends()
    assert ends[0].position == ends[0].last_stable_offset == 5


@pytest.mark.kafka
async def test_the_gate_stays_closed_while_another_transaction_on_the_offsets_is_pending(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "labeller"))
    async with AsyncExitStack() as first:
        source = await started(first, source_of(kafka, prefix))
        await fetch_until(source, 0)
        producer = sink._producing.producer
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction(
            to_kafka({Place(f"{prefix}in", 0): Committed(0, "pending")}), owned(source).membership
        )
    source = await started(stack, source_of(kafka, prefix))
    async with fetching(source):
        await asyncio.sleep(1.0)
        assert source.ownership is None
        await producer.commit_transaction()
        await until(lambda: source.ownership)
    assert owned(source).committed[0] == Committed(0, "pending")


@pytest.mark.kafka
async def test_a_second_member_takes_half_and_the_epoch_of_the_first_rises(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    revoked: list[int] = []

    async def when_revoked() -> None:
        revoked.append(1)

    first = await started(stack, source_of(kafka, prefix, when_revoked=when_revoked))
    async with fetching(first):
        await until(lambda: first.ownership)
        before = owned(first)
        assert set(before.committed) == {0, 1}
        second = await started(stack, source_of(kafka, prefix))
        async with fetching(second):
            await until(lambda: second.ownership and first.ownership and len(owned(first).committed) == 1)
            after = owned(first)
            assert set(after.committed) | set(owned(second).committed) == {0, 1}
            assert after.epoch > before.epoch
            assert after.membership.generation > before.membership.generation
            assert revoked


@pytest.mark.kafka
async def test_reopening_goes_back_to_what_is_committed_in_a_new_epoch(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    writer = await started(stack, Writer(kafka, "test"))
    await writer.write([OutRecord(f"{prefix}in", None, b"%d" % i, 1) for i in range(3)])
    source = await started(stack, source_of(kafka, prefix))
    assert len(await fetch_until(source, 3)) == 3
    epoch = owned(source).epoch
    source.reopen()
    assert source.ownership is None
    assert [record.offset for record in await fetch_until(source, 3)] == [0, 1, 2]
    assert owned(source).epoch > epoch


@pytest.mark.kafka
async def test_a_held_fetch_gives_nothing_and_loses_nothing(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    writer = await started(stack, Writer(kafka, "test"))
    source = await started(stack, source_of(kafka, prefix))
    await fetch_until(source, 0)
    await writer.write([OutRecord(f"{prefix}in", None, b"x", 0)])
    start = time.monotonic()
    while time.monotonic() - start < 0.5:
        assert await source.fetch(10, 0.1, hold=True) == []
    assert [record.value for record in await fetch_until(source, 1)] == [b"x"]


@pytest.mark.kafka
async def test_a_lease_moves_to_the_member_that_stays(kafka: KafkaSettings, prefix: str, stack: AsyncExitStack) -> None:
    await create_topics(kafka, [TopicSpec(f"{prefix}state", 1, {})], 1)

    async def keep(lease: GroupLease) -> None:
        while True:
            await lease.keep(0.2)

    first = await started(stack, GroupLease(kafka, f"{prefix}state", f"{prefix}group"))
    second = GroupLease(kafka, f"{prefix}state", f"{prefix}group")
    keeping = [asyncio.create_task(keep(first))]
    await until(lambda: first.owned == {0})
    await second.start()
    keeping.append(asyncio.create_task(keep(second)))
    await until(lambda: len(first.owned) + len(second.owned) == 1)
    owner, other = (first, second) if first.owned else (second, first)
    keeping[0 if owner is first else 1].cancel()
    await owner.stop()
    await until(lambda: other.owned == {0})
    for task in keeping:
        task.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    await second.stop()


# Reading by number


@pytest.mark.kafka
async def test_a_changelog_is_read_to_its_last_stable_offset_past_markers_and_aborted_records(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    place = Place(f"{prefix}out", 0)
    await make_topics(kafka, prefix)
    reader = await started(stack, LogReader(kafka, "test"))
    assert await reader.read_newest(place) == {}
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "detector"))
    for value in (b"1", b"2", None):
        key = b"gone" if value is None else b"kept"
        await sink.deliver(Delivery([OutRecord(place.topic, key, value, 0)]))
    producer = sink._producing.producer
    await producer.begin_transaction()
    await (await producer.send(place.topic, b"aborted", b"kept", partition=0))
    await producer.abort_transaction()
    assert await reader.read_newest(place) == {b"kept": b"2", b"gone": None}


@pytest.mark.kafka
async def test_the_last_record_is_found_behind_markers_and_aborted_records(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    place = Place(f"{prefix}out", 0)
    await make_topics(kafka, prefix)
    reader = await started(stack, LogReader(kafka, "test"))
    assert await reader.read_last([place]) == {}
    sink = await started(stack, TransactionalSink(kafka, f"{prefix}p", "detector"))
    await sink.deliver(Delivery(records(prefix, b"1", b"2")))
    producer = sink._producing.producer
    for _ in range(120):
        await producer.begin_transaction()
        await (await producer.send(place.topic, b"aborted", partition=0))
        await producer.abort_transaction()
    last = await reader.read_last([place, Place(place.topic, 1)])
    assert {where: (record.offset, record.value) for where, record in last.items()} == {place: (1, b"2")}


@pytest.mark.kafka
async def test_a_position_outside_the_log_is_an_error_not_a_jump(
    kafka: KafkaSettings, prefix: str, stack: AsyncExitStack
) -> None:
    await make_topics(kafka, prefix)
    reader = await started(stack, LogReader(kafka, "test"))
    reader.assign({Place(f"{prefix}out", 0): 7})
    with pytest.raises(Misconfigured, match="OffsetOutOfRange"):
        await reader.fetch(1, 5.0)


# Administration


@pytest.mark.kafka
async def test_created_topics_are_as_planned_and_creating_them_again_changes_nothing(
    kafka: KafkaSettings, prefix: str
) -> None:
    specs = plan_topics(Topics(prefix), 3, archive=True)
    names = [spec.name for spec in specs]
    assert sorted(await create_topics(kafka, specs, 1)) == sorted(names)
    assert await create_topics(kafka, specs, 1) == []
    states = await describe_topics(kafka, [*names, f"{prefix}absent"])
    assert set(states) == set(names)
    assert [difference for spec in specs for difference in find_differences(spec, states[spec.name])] == []


@pytest.mark.kafka
async def test_too_many_replicas_for_the_cluster_is_a_matter_of_settings(kafka: KafkaSettings, prefix: str) -> None:
    with pytest.raises(Misconfigured, match="cannot create topic"):
        await create_topics(kafka, [TopicSpec(f"{prefix}x", 1, {})], 9)


@pytest.mark.kafka
async def test_lag_counts_what_is_not_yet_committed(kafka: KafkaSettings, prefix: str, stack: AsyncExitStack) -> None:
    await make_topics(kafka, prefix)
    writer = await started(stack, Writer(kafka, "test"))
    await writer.write([OutRecord(f"{prefix}in", None, b"x", 0) for _ in range(4)])
    lag = await read_lag(kafka, f"{prefix}group", f"{prefix}in", PARTITIONS)
    assert [lag[0].records, lag[1].records] == [4, 0]
