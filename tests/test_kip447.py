"""KIP-447 on a real broker: who may commit offsets in a transaction, and what is read while one is pending."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.transaction import TxnOffsetCommitRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from worker.errors import Misconfigured
from worker.kip447 import (
    FencedProducer,
    Membership,
    OffsetFetchRequest_v7,
    TxnOffsetCommitRequest_v3,
    UnstableOffsetCommit,
    _read_offsets,
    fetch_committed,
    membership_of,
    refuse_old_broker,
    require_fencing,
)

OFFSET = OffsetAndMetadata(1, "clock")


@asynccontextmanager
async def group_member(bootstrap: str, prefix: str) -> AsyncIterator[AIOKafkaConsumer]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{prefix}in", 1, 1), NewTopic(f"{prefix}out", 1, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(
        f"{prefix}in", bootstrap_servers=bootstrap, group_id=f"{prefix}group", enable_auto_commit=False
    )
    async with consumer:
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=50)
        yield consumer


@asynccontextmanager
async def fenced_producer(bootstrap: str, transactional_id: str) -> AsyncIterator[FencedProducer]:
    producer = FencedProducer(
        bootstrap_servers=bootstrap, transactional_id=transactional_id, transaction_timeout_ms=10_000
    )
    async with producer:
        yield producer


async def read_values(bootstrap: str, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with consumer:
        found = await consumer.getmany(timeout_ms=1000)
        return [record.value for records in found.values() for record in records]


@pytest.mark.kafka
async def test_the_current_member_commits_output_offset_and_metadata_together(bootstrap: str, prefix: str) -> None:
    partition = TopicPartition(f"{prefix}in", 0)
    async with group_member(bootstrap, prefix) as consumer, fenced_producer(bootstrap, f"{prefix}p") as producer:
        assert await fetch_committed(consumer, [partition]) == {}
        for metadata in ("clock 1", "clock 2"):  # the same offset again, with a new clock
            await producer.begin_transaction()
            await (await producer.send(f"{prefix}out", metadata.encode(), partition=0))
            await producer.send_offsets_to_transaction(
                {partition: OffsetAndMetadata(7, metadata)}, membership_of(consumer)
            )
            await producer.commit_transaction()
            assert await fetch_committed(consumer, [partition]) == {partition: OffsetAndMetadata(7, metadata)}
    assert await read_values(bootstrap, f"{prefix}out") == [b"clock 1", b"clock 2"]


@pytest.mark.kafka
@pytest.mark.parametrize("stale", ["generation", "member"])
async def test_a_stale_member_commits_nothing_and_its_producer_lives_on(
    bootstrap: str, prefix: str, stale: str
) -> None:
    partition = TopicPartition(f"{prefix}in", 0)
    async with group_member(bootstrap, prefix) as consumer, fenced_producer(bootstrap, f"{prefix}p") as producer:
        current = membership_of(consumer)
        wrong = (
            Membership(current, current.generation - 1, current.member_id)
            if stale == "generation"
            else Membership(current, current.generation, "stranger")
        )
        await producer.begin_transaction()
        await (await producer.send(f"{prefix}out", b"refused", partition=0))
        with pytest.raises(CommitFailedError, match="is not current"):
            await producer.send_offsets_to_transaction({partition: OFFSET}, wrong)
        await producer.abort_transaction()
        assert await fetch_committed(consumer, [partition]) == {}

        await producer.begin_transaction()
        await (await producer.send(f"{prefix}out", b"accepted", partition=0))
        await producer.send_offsets_to_transaction({partition: OFFSET}, current)
        await producer.commit_transaction()
        assert await fetch_committed(consumer, [partition]) == {partition: OFFSET}
    assert await read_values(bootstrap, f"{prefix}out") == [b"accepted"]


@pytest.mark.kafka
async def test_committed_offsets_are_not_read_while_a_transaction_on_them_is_pending(
    bootstrap: str, prefix: str
) -> None:
    partition = TopicPartition(f"{prefix}in", 0)
    async with group_member(bootstrap, prefix) as consumer, fenced_producer(bootstrap, f"{prefix}p") as producer:
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: OFFSET}, membership_of(consumer))
        reading = asyncio.create_task(fetch_committed(consumer, [partition]))
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done
        await producer.commit_transaction()
        assert await asyncio.wait_for(reading, 5) == {partition: OFFSET}


@pytest.mark.kafka
async def test_a_plain_group_id_is_refused_before_it_is_sent(bootstrap: str, prefix: str) -> None:
    partition = TopicPartition(f"{prefix}in", 0)
    async with group_member(bootstrap, prefix) as consumer, fenced_producer(bootstrap, f"{prefix}p") as producer:
        await producer.begin_transaction()
        with pytest.raises(TypeError, match="need a Membership"):
            await producer.send_offsets_to_transaction({partition: OFFSET}, f"{prefix}group")
        await producer.abort_transaction()
        assert await fetch_committed(consumer, [partition]) == {}


@pytest.mark.kafka
async def test_this_broker_speaks_the_fencing_versions(bootstrap: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    async with producer:
        await require_fencing(producer.client)


def test_a_broker_with_older_versions_is_refused_with_the_reason() -> None:
    refuse_old_broker("new", {28: (0, 3), 9: (1, 7)})
    with pytest.raises(Misconfigured, match=r"old speaks TxnOffsetCommit 0 to 2, not 3: a stale worker"):
        refuse_old_broker("old", {28: (0, 2), 9: (1, 8)})
    with pytest.raises(Misconfigured, match="OffsetFetch"):
        refuse_old_broker("old", {28: (0, 5), 9: (0, 6)})
    with pytest.raises(Misconfigured, match="TxnOffsetCommit"):
        refuse_old_broker("none", {})


def test_aiokafka_still_lacks_the_versions_that_this_module_adds() -> None:
    assert aiokafka.__version__.startswith("0.14.")
    assert [version.API_VERSION for version in TxnOffsetCommitRequest._CLASSES] == [0]
    assert max(version.API_VERSION for version in OffsetFetchRequest._CLASSES) == 3
    assert (TxnOffsetCommitRequest_v3.API_VERSION, OffsetFetchRequest_v7.API_VERSION) == (3, 7)


def test_an_offset_under_a_pending_transaction_is_an_error_that_is_retried() -> None:
    answer = OffsetFetchRequest_v7.RESPONSE_TYPE(0, [("in", [(0, 5, -1, "", 88, {})], {})], 0, {})
    with pytest.raises(UnstableOffsetCommit) as raised:
        _read_offsets(answer)
    assert raised.value.retriable
