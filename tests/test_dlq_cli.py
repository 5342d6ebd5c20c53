"""An operator's hour with dead letters, by the command line, against a real Apache Kafka and a labeller."""

import asyncio
import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence

import pytest
from typer.testing import CliRunner

from schemas.events import LabelledEvent, format_instant
from trial_settings import load_trial_settings
from worker.codec import to_instant
from worker.deterministic import DeterministicEngine
from worker.dlq.cli import dlq_app
from worker.dlq.reading import open_dead_log
from worker.dlq.sending import open_delivery
from worker.errors import Fenced, Misconfigured
from worker.kafka.admin import create_topics, read_lag
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.kafka.sink import TransactionalSink, Writer
from worker.records import OutRecord, Record
from worker.runner.labeller import run_labeller
from worker.runner.vitals import Vitals
from worker.settings import Settings, load_settings

pytestmark = pytest.mark.kafka

PARTITIONS = 2
SECONDS = 60.0
BAD = [b"{not json", b"\xff\x00", b'{"title": 7}']
TIMESTAMP_MS = int(time.time() - 3600) * 1000


@pytest.fixture
def settings(bootstrap: str, prefix: str) -> Settings:
    made = load_trial_settings(bootstrap, prefix, PARTITIONS)
    asyncio.run(create_topics(made.kafka, made.topic_specs, 1))
    return made


def dlq(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", "dlq", *words]
    environment = {**os.environ, **settings.to_environment()}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=SECONDS)


async def feed(settings: Settings, values: Sequence[bytes], **fields) -> None:
    writer = Writer(settings.kafka, "test")
    await writer.start()
    raw = settings.topic_names.raw
    await writer.write([OutRecord(raw, b"k", value, 1, timestamp_ms=TIMESTAMP_MS, **fields) for value in values])
    await writer.stop()


async def label_all(settings: Settings) -> None:
    """Run a labeller until it has committed all that lies on the raw topic, markers of transactions too."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_labeller(settings, DeterministicEngine(), stop, Vitals("labeller")))
    try:
        async with asyncio.timeout(SECONDS):
            while not task.done() and await behind(settings):  # noqa: ASYNC110 -- polled as an operator does
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await task


async def behind(settings: Settings) -> bool:
    lags = await read_lag(settings.kafka, settings.labeller_group, settings.topic_names.raw, PARTITIONS)
    return any(lag.records for lag in lags.values())


async def read_all(settings: Settings, topic: str, partition: int) -> list[Record]:
    reader, place = LogReader(settings.kafka, "test"), Place(topic, partition)
    await reader.start()
    try:
        end = (await reader.stable_ends([place]))[place]
        reader.assign({place: 0})
        found: list[Record] = []
        while await reader.position(place) < end:
            found += await reader.fetch(500, 0.1)
        return found
    finally:
        await reader.stop()


def read_labels(settings: Settings) -> list[LabelledEvent]:
    records = asyncio.run(read_all(settings, settings.topic_names.labelled, 1))
    return [LabelledEvent.model_validate_json(record.value) for record in records]


def test_letters_are_listed_shown_exported_and_redriven_until_the_loop_guard_refuses(settings, tmp_path):
    raw = settings.topic_names.raw
    asyncio.run(feed(settings, BAD, headers=(("trace", b"\x01"),)))
    asyncio.run(label_all(settings))

    listed = json.loads(dlq(settings, "list", "--json", "--where", "partition=1").stdout)
    assert {(each["kind"], each["letters"]) for each in listed["counts"]} == {("json", 2), ("schema", 1)}
    assert [each["coordinates"] for each in listed["newest"]] == [f"{raw}-1-{offset}" for offset in range(3)]

    shown = dlq(settings, "show", f"{raw}-1-0").stdout
    for expected in (
        "{not json",
        "trace: (1 bytes)",
        "(1 bytes) k",
        format_instant(to_instant(TIMESTAMP_MS)),
        "not sent",
    ):
        assert expected in shown, shown
    missing = dlq(settings, "show", f"{raw}-1-99")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no dead letter of" in missing.stderr

    file = tmp_path / "letters.jsonl"
    assert dlq(settings, "export", str(file)).returncode == 0
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert [b64decode(each["value_base64"]) for each in exported] == BAD
    with pytest.raises(Misconfigured, match=r"cannot write .*File exists"):
        CliRunner().invoke(dlq_app, ["export", str(file)], catch_exceptions=False)

    dry = dlq(settings, "redrive", "--dry-run", "--where", "kind=json")
    assert "would redrive 2 to" in dry.stdout
    assert len(asyncio.run(read_all(settings, raw, 1))) == 3

    first = dlq(settings, "redrive")
    assert (first.returncode, "redrove 3 to" in first.stdout) == (0, True), first.stdout + first.stderr
    again = dlq(settings, "redrive")
    assert (again.returncode, "3 redriven before" in again.stdout) == (0, True), again.stdout + again.stderr
    sent = asyncio.run(read_all(settings, raw, 1))[3:]
    assert [(record.key, record.value, record.timestamp_ms) for record in sent] == [
        (b"k", value, TIMESTAMP_MS) for value in BAD
    ]
    assert {tuple(record.headers) for record in sent} == {(("trace", b"\x01"), ("stacknorm-redriven", b"1"))}

    asyncio.run(label_all(settings))
    refused = dlq(settings, "redrive")
    assert refused.returncode == 1
    assert "redrove 0 to" in refused.stdout
    assert "3 redriven 1 times and failed again" in refused.stdout
    assert "redrove 3 to" in dlq(settings, "redrive", "--max-times", "2").stdout


def test_a_letter_that_a_setting_made_bad_is_labelled_exactly_once_when_it_is_mended(settings):
    strict = settings.model_copy(update={"input": settings.input.model_copy(update={"max_text_chars": 20})})
    asyncio.run(feed(settings, [b'{"id": "long", "title": "a headline of more than twenty characters"}']))
    asyncio.run(label_all(strict))
    assert read_labels(settings) == []
    for _ in range(2):
        done = dlq(settings, "redrive", "--where", "kind=length", "--max", "5")
        assert done.returncode == 0, done.stdout + done.stderr
    asyncio.run(label_all(settings))
    (event,) = read_labels(settings)
    assert event.item_id == "long"
    assert event.received_at.timestamp() * 1000 == TIMESTAMP_MS


async def read_dead(settings: Settings) -> list[str]:
    async with open_dead_log(settings, whole=True) as log:
        return [letter.body.kind async for letter in log.letters()]


def test_the_breaker_stops_a_labeller_before_it_commits_and_again_after_a_restart(settings):
    careful = settings.model_copy(
        update={"dead_letters": settings.dead_letters.model_copy(update={"window_records": 50, "min_letters": 10})}
    )
    asyncio.run(feed(settings, [b"{not json"] * 40))
    for _ in range(2):
        with pytest.raises(Misconfigured, match="10 of the last 10 records became dead letters"):
            asyncio.run(label_all(careful))
        assert asyncio.run(read_dead(settings)) == []
    off = settings.model_copy(update={"dead_letters": settings.dead_letters.model_copy(update={"max_share": 0})})
    asyncio.run(label_all(off))
    assert asyncio.run(read_dead(settings)) == ["json"] * 40


async def hold_back(settings: Settings, act: Callable[[], Awaitable[None]]) -> None:
    """Do something while another's transaction on the dead-letter topic is open."""
    sink = TransactionalSink(settings.kafka, f"{settings.group_prefix}-other", "test")
    await sink.start()
    producer = sink._producing.producer
    await producer.begin_transaction()
    await producer.send_and_wait(settings.topic_names.dead, b"spam", partition=0)
    await act()
    await producer.commit_transaction()
    await sink.stop()


async def test_a_note_behind_an_open_transaction_is_waited_for(settings_made_beside):
    settings = settings_made_beside

    async def act() -> None:
        async with open_delivery(settings) as deliver:
            await deliver([OutRecord(settings.topic_names.dead, b"note", b"{}", 0)])
        async with open_dead_log(settings) as seen, open_dead_log(settings, whole=True) as all_of_it:
            assert seen.end - seen.first == 0
            assert all_of_it.end - all_of_it.first == 3  # the commit's marker too

    await hold_back(settings, act)


async def test_a_second_redrive_fences_the_first(settings_made_beside):
    settings = settings_made_beside
    record = OutRecord(settings.topic_names.raw, b"k", b"{", 0)
    async with open_delivery(settings) as first:
        await first([record])
        async with open_delivery(settings) as second:
            with pytest.raises(Fenced):
                await first([record])
            await second([record])
    assert len(await read_all(settings, settings.topic_names.raw, 0)) == 2


@pytest.fixture
async def settings_made_beside(bootstrap: str, prefix: str) -> Settings:
    """As ``settings``, for tests that have a loop of their own."""
    made = load_settings(
        group_prefix=prefix.strip("."),
        kafka={"bootstrap_servers": bootstrap},
        topics={"prefix": prefix, "partitions": PARTITIONS},
    )
    await create_topics(made.kafka, made.topic_specs, 1)
    return made
