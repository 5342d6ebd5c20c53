"""A past stretch of the raw topic is labelled and detected again, and nothing that is live is touched."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from rich.console import Console

from observer import Observer
from schemas.events import NewsItem
from test_primer import make_primer
from trial_settings import load_trial_settings
from verify import Outputs, expect, find_violations
from worker.codec import to_instant, to_ms
from worker.deterministic import DeterministicEngine
from worker.errors import Misconfigured
from worker.kafka.admin import create_topics
from worker.kafka.sink import Delivery, TransactionalSink, Writer
from worker.kafka.stretch import Bounds, Found, find_stretch
from worker.primer import write_primer
from worker.records import OutRecord
from worker.replay.plan import Plan, check_times, derive_settings, make_plan, render_plan
from worker.replay.run import Tally, carry_out, prepare
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.tasks import run_until_all
from worker.runner.vitals import Vitals
from worker.settings import Settings, load_settings
from workload import make_workload

PARTITIONS = 3
SECONDS = 200.0
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FIRST_MS = to_ms(datetime(2026, 3, 2, tzinfo=UTC))


def at(second: int) -> datetime:
    """Seconds after the first record."""
    return to_instant(FIRST_MS + second * 1000)


# The plan


def derive(prefix: str = "replay.", bundle: str | None = None, **live) -> Settings:
    return derive_settings(load_settings(**live), prefix, bundle, NOW)


def found(start: int, end: int, stable: int | None = None, oldest_ms: int | None = None) -> Found:
    return Found(Bounds(start, end), end if stable is None else stable, oldest_ms)


def test_a_replay_reads_the_live_raw_topic_and_all_else_is_its_own():
    live, replay = load_settings(idle_clock="data"), derive(idle_clock="data")
    assert replay.topic_names.raw == live.topic_names.raw == "news.raw"
    plan = Plan(replay, at(0), at(1), [])
    assert {spec.name for spec in plan.outputs} == {
        f"replay.{name}"
        for name in ("labelled", "progress", "dead", "alerts", "trends", "actions", "notify-state", "surge-state")
    }
    assert replay.labeller_group == "stacknorm-replay-20261124T120000-labeller"
    assert replay.detector_group == "stacknorm-replay-20261124T120000-detector"


def test_the_plan_of_a_middle_stretch_says_what_the_detector_begins_with(tmp_path):
    primer = tmp_path / "primer.json"
    write_primer(make_primer(), primer)
    for surge, said in (({}, "it learns for 3 days of news"), ({"primer": primer}, "the baselines of surge.primer")):
        console = Console(width=400)
        with console.capture() as captured:
            console.print(render_plan(Plan(derive(surge=surge), at(0), at(1), [Bounds(5, 9)])))
        told = captured.get()
        assert said in told
        assert "its alerts need not be those of the live one" in told


def test_a_bundle_of_its_own_labels_where_one_is_given():
    assert derive(engine={"bundle": "mine"}).engine.bundle == "mine"
    other = derive(bundle="finance-large", engine={"kind": "deterministic"}).engine
    assert (other.kind, other.bundle) == ("stack", "finance-large")


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [("news.", r"names live topics \(.*news.alerts, .* must not touch"), ("new s", r"--output-prefix 'new s': String")],
)
def test_an_output_prefix_that_cannot_be_is_refused(prefix, problem):
    with pytest.raises(Misconfigured, match=problem):
        derive(prefix)


def test_outputs_that_would_be_the_raw_topic_itself_are_refused():
    with pytest.raises(Misconfigured, match="names live topics"):
        derive("input.", topics={"raw": "input.labelled"})


@pytest.mark.parametrize(
    ("since", "until", "problem"),
    [(at(5), at(5), "is not before --to"), (at(5), NOW + timedelta(seconds=1), "is still to come")],
)
def test_a_stretch_that_is_empty_or_not_over_is_refused(since, until, problem):
    with pytest.raises(Misconfigured, match=problem):
        check_times(since, until, NOW)


@pytest.mark.parametrize(
    ("stretch", "problem"),
    [
        ([found(7, 9, oldest_ms=FIRST_MS + 60_000), found(3, 9, oldest_ms=FIRST_MS + 90_000), found(0, 4)],
         r"left are those of partition 0 from 2026-03-02T00:01:00.000Z, 1 from 2026-03-02T00:01:30.000Z on. "
         r"All partitions can be replayed --from 2026-03-02T00:01:30.000Z"),
        ([found(0, 9, stable=4)], r"open transaction holds news.raw-0 back at offset 4, and the stretch ends at 9"),
        ([found(4, 4), found(0, 0)], r"news.raw has no records from"),
    ],
)  # fmt: skip
def test_a_stretch_that_cannot_be_read_whole_is_refused(stretch, problem):
    with pytest.raises(Misconfigured, match=problem):
        make_plan(derive(), at(0), at(1000), stretch)


def test_a_log_that_begins_with_the_stretch_is_read_whole():
    plan = make_plan(derive(), at(60), at(1000), [found(7, 9, oldest_ms=FIRST_MS + 60_000)])
    assert plan.records == 2


# On a broker


@pytest.fixture
def live(bootstrap: str, prefix: str) -> Settings:
    return load_trial_settings(bootstrap, prefix, PARTITIONS, idle_clock="data")


async def send(live: Settings, records: Sequence[OutRecord]) -> None:
    await create_topics(live.kafka, live.topic_specs, 1)
    writer = Writer(live.kafka, "test")
    await writer.start()
    await writer.write(records)
    await writer.stop()


def item(live: Settings, second: int, partition: int) -> OutRecord:
    value = NewsItem(id=f"i{second}", title=f"headline {second}").to_json()
    return OutRecord(live.topic_names.raw, b"k", value, partition, timestamp_ms=FIRST_MS + second * 1000)


async def run_live(live: Settings, observer: Observer, records: int, expected: Outputs) -> None:
    """A live labeller and detector, until all is labelled and the last alert told."""
    stop = asyncio.Event()

    async def await_end() -> None:
        async with asyncio.timeout(SECONDS):
            while sum((await observer.committed()).values()) < records:  # noqa: ASYNC110 -- Kafka tells no one
                await asyncio.sleep(0.2)
            while (await observer.frontier() or at(0)) <= expected.alerts[-1].detected_at:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    await run_until_all(
        stop,
        run_labeller(live, DeterministicEngine(), stop, Vitals("labeller")),
        run_detector(live, live.rules, stop, Vitals("detector")),
        await_end(),
    )


async def look_at_all_that_is_live(live: Settings) -> object:
    """Ends of all live topics, and what all groups but those of replays have committed, metadata too."""
    async with Observer(live) as observer:
        ends = {spec.name: await observer.ends(spec.name) for spec in live.topic_specs}
        groups = [name for name, *_ in await observer._admin.list_consumer_groups() if live.group_prefix in name]
        offsets = {
            name: await observer._admin.list_consumer_group_offsets(name) for name in groups if "-replay-" not in name
        }
    assert offsets[live.labeller_group]
    return ends, offsets


def command(live: Settings, *words: str, **added: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STACKNORM_")}
    return subprocess.run(
        [sys.executable, "-m", "worker", *words],
        capture_output=True, text=True, env=environment | live.to_environment() | added, check=False, timeout=SECONDS,
    )  # fmt: skip


@pytest.mark.kafka
def test_from_the_start_of_the_log_labels_and_alerts_are_those_of_the_live_run_and_nothing_live_moves(live):
    workload = make_workload(live.topic_names.raw, headlines=2000, partitions=PARTITIONS)
    expected = expect(workload.as_read(), DeterministicEngine(), live.rules)
    assert expected.alerts
    prefix = f"{live.topics.prefix}again."

    async def play_live() -> Outputs:
        await send(live, workload.records)
        async with Observer(live) as observer:
            await run_live(live, observer, len(workload.records), expected)
            return await observer.outputs()

    async def read_replay() -> Outputs:
        async with Observer(derive_settings(live, prefix, None, NOW)) as observer:
            assert await observer.unfinished() == {}
            return await observer.outputs()

    outputs = asyncio.run(play_live())
    before = asyncio.run(look_at_all_that_is_live(live))
    stretch = ("replay", "--from", "2026-03-01", "--to", "2026-03-20", "--output-prefix", prefix)

    planned = command(live, *stretch)
    assert planned.returncode == 0, planned.stderr
    assert "Nothing is done yet" in planned.stdout
    assert f"{len(workload.records):,}, transaction markers" in planned.stdout
    assert "the alerts are those of a live detector" in planned.stdout
    assert asyncio.run(look_at_all_that_is_live(live)) == before

    done = command(live, *stretch, "--execute")
    assert done.returncode == 0, done.stderr
    view = f"STACKNORM_TOPICS__PREFIX={prefix} STACKNORM_TOPICS__RAW={live.topic_names.raw}"
    assert f"{view} stacknorm-worker tail" in done.stdout
    seen = command(live, "tail", "--active", "--json", **dict(each.split("=") for each in view.split()))
    assert seen.returncode == 0, seen.stderr
    replayed = asyncio.run(read_replay())
    assert find_violations(replayed, outputs) == []
    assert len(replayed.alerts) == len(outputs.alerts) >= 3
    assert asyncio.run(look_at_all_that_is_live(live)) == before

    again = command(live, *stretch, "--execute")
    assert again.returncode == 2
    assert f"{prefix}labelled" in again.stderr
    assert "hold records already: give another --output-prefix" in again.stderr


@pytest.mark.kafka
async def test_a_stretch_is_labelled_alone_and_ended_behind_transaction_markers(live):
    """Partition 0 goes on behind the stretch, 2 has nothing in it, 1 ends in a marker, and has one of today in it."""
    await send(live, [item(live, second, 0) for second in range(40)] + [item(live, 5, 2), item(live, 35, 2)])
    sink = TransactionalSink(live.kafka, f"{live.group_prefix}-test", "test")
    await sink.start()
    for seconds in ((2, 12), (28,)):
        await sink.deliver(Delivery([item(live, second, 1) for second in seconds]))
    await sink.stop()
    plan = await prepare(
        live, at(10), at(30), output_prefix=f"{live.topics.prefix}day.", bundle=None, now=datetime.now(UTC)
    )
    assert plan.stretch == [Bounds(10, 30), Bounds(1, 5), Bounds(1, 1)]

    watched: list[int] = []
    async with asyncio.timeout(SECONDS):
        tally = await carry_out(
            plan, DeterministicEngine(), asyncio.Event(), lambda tally: watched.append(tally.done(plan))
        )
    assert (tally.labelled, tally.dead, tally.done(plan)) == (22, 0, 24)
    assert watched[-1] == plan.records
    async with Observer(plan.settings) as observer:
        outputs = await observer.outputs()
    assert [(placed.partition, placed.event.received_at) for placed in outputs.labelled] == [
        *((0, at(second)) for second in range(10, 30)), (1, at(12)), (1, at(28))
    ]  # fmt: skip
    assert all(placed.event.clock == placed.event.received_at for placed in outputs.labelled)
    assert {marked.partition for marked in outputs.marks if marked.mark.clock == at(30)} == {0, 1, 2}


@pytest.mark.kafka
async def test_a_replay_that_is_stopped_ends_in_good_order_before_its_end(live):
    await send(live, [item(live, second, second % PARTITIONS) for second in range(600)])
    slow = live.model_copy(update={"unit": live.unit.model_copy(update={"max_records": 20})})
    plan = await prepare(
        slow, at(0), at(600), output_prefix=f"{live.topics.prefix}day.", bundle=None, now=datetime.now(UTC)
    )
    stop = asyncio.Event()

    def stop_soon(tally: Tally) -> None:
        if tally.labelled:
            stop.set()

    async with asyncio.timeout(SECONDS):
        tally = await carry_out(plan, DeterministicEngine(0.02), stop, stop_soon)
    assert 0 < tally.done(plan) < 600


@pytest.mark.kafka
async def test_what_has_expired_is_told_by_the_oldest_record_left(live):
    raw = live.topic_names.raw
    await send(live, [item(live, second, second % 2) for second in range(20)])
    admin = AIOKafkaAdminClient(bootstrap_servers=live.kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_records({TopicPartition(raw, 0): RecordsToDelete(before_offset=4)})
    await admin.close()

    async def find(since: int, until: int) -> list[Found]:
        return await find_stretch(live.kafka, raw, PARTITIONS, to_ms(at(since)), to_ms(at(until)))

    assert await find(0, 15) == [
        Found(Bounds(4, 8), 10, to_ms(at(8))), Found(Bounds(0, 7), 10, None), Found(Bounds(0, 0), 0, None)
    ]  # fmt: skip
    assert (await find(9, 100))[:2] == [Found(Bounds(5, 10), 10, None), Found(Bounds(4, 10), 10, None)]
