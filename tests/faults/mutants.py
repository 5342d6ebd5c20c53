"""Workers that are broken on purpose, to be found out: `python mutants.py NAME run --only ROLE`.

A mutant is a worker some of whose parts were exchanged for bad ones before it starts.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from worker import kip447
from worker.cli import main
from worker.kafka import sink, source
from worker.kafka.connection import Place, to_kafka
from worker.kafka.sink import Delivery, Ending, TransactionalSink
from worker.records import OutRecord

FIRST, EVERY = 100, 10_000
"""Which of the labelled events a process loses or repeats."""
HALFWAY_SECONDS = 1.0
DEAF_SECONDS = 2.0


def lose_some() -> None:
    """One in ten thousand events is not sent."""
    _send_otherwise(lambda record: ())


def repeat_some() -> None:
    """One in ten thousand events is sent twice."""
    _send_otherwise(lambda record: (record, record))


def _send_otherwise(instead: Callable[[OutRecord], Iterable[OutRecord]]) -> None:
    send_all, numbers = sink._send_all, itertools.count()

    def spoil(record: OutRecord) -> Iterable[OutRecord]:
        is_chosen = record.topic.endswith("labelled") and next(numbers) % EVERY == FIRST
        return instead(record) if is_chosen else (record,)

    async def send(producer: AIOKafkaProducer, records: Sequence[OutRecord]) -> dict[Place, int]:
        return await send_all(producer, [sent for record in records for sent in spoil(record)])

    sink._send_all = send


def commit_early() -> None:
    """The offsets are committed before the outputs, in a transaction of their own."""
    fill = TransactionalSink._fill

    async def fill_late(self: TransactionalSink, producer: AIOKafkaProducer, delivery: Delivery) -> None:
        offsets = delivery.end({}).offsets
        if offsets:
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction(to_kafka(offsets), delivery.membership)
            await producer.commit_transaction()

        def end(written: Mapping[Place, int]) -> Ending:
            return Ending(delivery.end(written).marks)

        await fill(self, producer, replace(delivery, end=end))
        await asyncio.sleep(HALFWAY_SECONDS if offsets else 0.0)  # that the kill finds it here

    TransactionalSink._fill = fill_late


def hear_late() -> None:
    """That its partitions are another's it hears only after it has delivered what it had; fenced, that is harmless."""
    close_gate = source.GroupSource._on_revoked

    async def close_late(self: source.GroupSource) -> None:
        await asyncio.sleep(DEAF_SECONDS)
        await close_gate(self)

    source.GroupSource._on_revoked = close_late


def skip_fencing() -> None:
    """The same, and offsets are committed as aiokafka does by itself: in nobody's name."""
    hear_late()

    async def commit_unfenced(
        self: AIOKafkaProducer, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str
    ) -> None:
        await AIOKafkaProducer.send_offsets_to_transaction(self, dict(offsets), str(group_id))

    kip447.FencedProducer.send_offsets_to_transaction = commit_unfenced
    kip447._FencedSender._do_txn_offset_commit = kip447.Sender._do_txn_offset_commit


MUTATIONS: dict[str, Callable[[], Any]] = {
    mutate.__name__: mutate for mutate in (lose_some, repeat_some, commit_early, hear_late, skip_fencing)
}

if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    main()
