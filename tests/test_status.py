"""What waits is told against what can be read: a transaction that is open holds records back, and they do not wait."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from worker.detector import Facts
from worker.kafka.admin import Lag, create_topics
from worker.kafka.groups import Owner
from worker.kafka.sink import TransactionalSink, Writer
from worker.records import OutRecord
from worker.settings import Settings, load_settings
from worker.status import PartitionStatus, ShardStatus, Status, describe_status, read_status, render_status

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=9)
STATUS = Status(
    NOW,
    [
        PartitionStatus(0, Owner("stacknorm-1", "10.0.0.7"), Lag(7, 0, 9), NOW - timedelta(seconds=4)),
        PartitionStatus(1, None, Lag(None, 3, 3), None),
    ],
    [
        ShardStatus(
            None, Facts(keys=5, keys_learning=2, learning=False, exposure_days=4.5, clock=NOW, firing=1, late=0)
        ),
        ShardStatus(
            Owner("stacknorm-2", "10.0.0.8"),
            Facts(keys=3, keys_learning=0, learning=False, exposure_days=4.5, clock=LATER, firing=2, late=0),
        ),
    ],
)


def test_a_script_reads_the_same_as_a_person():
    described = describe_status(STATUS)
    assert described["partitions"] == [
        {
            "partition": 0,
            "owner": {"client_id": "stacknorm-1", "host": "10.0.0.7"},
            "committed": 7,
            "end": 9,
            "lag_records": 2,
            "lag_seconds": 4.0,
        },
        {"partition": 1, "owner": None, "committed": None, "end": 3, "lag_records": 0, "lag_seconds": 0.0},
    ]
    detector = described["detector"]
    assert detector["clock"] == described["at"] == "2026-11-24T12:00:00.000Z"
    assert (detector["keys"], detector["keys_learning"], detector["firing"]) == (8, 2, 3)
    assert [(each["shard"], each["owner"], each["keys"]) for each in detector["shards"]] == [
        (0, None, 5),
        (1, {"client_id": "stacknorm-2", "host": "10.0.0.8"}, 3),
    ]
    console = Console(width=120)
    with console.capture() as shown:
        console.print(render_status(STATUS))
    words = " ".join(shown.get().split())
    assert "0 stacknorm-1 at 10.0.0.7 7 9 2 4.0 1 nobody - 3 0 0.0" in words
    assert "detector shard 0: nobody, clock 2026-11-24 12:00:00Z, watching 5 keys, 2 of them learning; 1 al" in words
    assert "detector shard 1: stacknorm-2 at 10.0.0.8, clock 2026-11-24 12:00:09Z, watching 3 keys, 0 of them" in words
    assert "all shards: 8 keys, 2 of them learning; 3 alerts firing" in words


@pytest.fixture
def settings(bootstrap: str, prefix: str) -> Settings:
    return load_settings(
        group_prefix=prefix.strip("."),
        kafka={"bootstrap_servers": bootstrap},
        topics={"prefix": prefix, "partitions": 2},
        engine={"kind": "deterministic"},
    )


def command(settings: Settings, *words: str) -> Mapping[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STACKNORM_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *words],
        capture_output=True, text=True, env=environment | settings.to_environment(), check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.kafka
async def test_records_of_an_open_transaction_do_not_wait_until_it_is_committed(settings):
    await create_topics(settings.kafka, settings.topic_specs, 1)
    raw = settings.topic_names.raw
    writer = Writer(settings.kafka, "test")
    await writer.start()
    await writer.write([OutRecord(raw, b"k", b"{}", 0)] * 3)
    sink = TransactionalSink(settings.kafka, f"{settings.group_prefix}-test", "test")
    await sink.start()
    producer = sink._producing.producer
    await producer.begin_transaction()
    await producer.send_and_wait(raw, b"{}", partition=0)
    await writer.write([OutRecord(raw, b"k", b"{}", 0), OutRecord(raw, b"k", b"{}", 1)])
    await writer.stop()

    held = await read_status(settings, datetime.now(UTC))
    assert [(row.lag.last_stable_offset, row.lag.records) for row in held.partitions] == [(3, 3), (1, 1)]
    told = command(settings, "status", "--json")
    assert [row["lag_records"] for row in told["partitions"]] == [3, 1]

    await producer.commit_transaction()
    await sink.stop()
    free = await read_status(settings, datetime.now(UTC))
    assert [row.lag.records for row in free.partitions] == [6, 1]  # the marker of the transaction among them
    assert all(row.lag_seconds(datetime.now(UTC)) > 0 for row in free.partitions)
