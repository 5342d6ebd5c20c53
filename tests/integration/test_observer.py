"""What the delivery tests see, they must be able to see: open transactions above all."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaProducer

from observer import Observer
from runs import load_run_settings, run_settings
from worker.kafka.admin import create_topics

pytestmark = pytest.mark.kafka


class Stage(NamedTuple):
    """A run's topics, an observer, and a transactional producer of the run."""

    labelled: str
    observer: Observer
    producer: AIOKafkaProducer


@pytest.fixture
async def stage(bootstrap: str) -> AsyncIterator[Stage]:
    settings = load_run_settings(run_settings(bootstrap))
    await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{settings.group_prefix}-producer")
    await producer.start()
    async with Observer(settings) as observer:
        yield Stage(settings.topic_names.labelled, observer, producer)
    await producer.stop()


async def test_an_open_transaction_is_seen_in_the_partitions_it_wrote_to_and_by_its_id(stage: Stage) -> None:
    labelled, observer, producer = stage
    assert await observer.unfinished() == {}
    await producer.begin_transaction()
    await producer.send_and_wait(labelled, b"half", partition=1)
    assert list(await observer.unstable(labelled)) == [1]
    (listed,) = await observer.open_transactions()
    assert listed.endswith("-producer")
    assert set(await observer.unfinished()) == {labelled, "transactions"}
    assert await observer.read(labelled) == []
    await producer.commit_transaction()
    await _settled(observer)
    assert [record.value for record in await observer.read(labelled)] == [b"half"]


async def test_what_was_aborted_is_not_read(stage: Stage) -> None:
    labelled, observer, producer = stage
    await producer.begin_transaction()
    await producer.send_and_wait(labelled, b"regretted", partition=0)
    await producer.abort_transaction()
    await producer.begin_transaction()
    await producer.send_and_wait(labelled, b"meant", partition=0)
    await producer.commit_transaction()
    await _settled(observer)
    assert [(record.value, record.offset) for record in await observer.read(labelled)] == [(b"meant", 2)]


async def _settled(observer: Observer) -> None:
    """The broker answers a commit before its markers are written."""
    async with asyncio.timeout(5):
        while await observer.unfinished():  # noqa: ASYNC110 -- the broker tells nobody
            await asyncio.sleep(0.02)
