"""A back-test gives the alerts that live workers write, whatever the partitions, and says how it came to them."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import TopicPartition
from memory_broker import MemoryBroker
from memory_clients import MemoryClients, Process, Weather
from virtual_time import VirtualCompute, run_virtually

from backtests import backtest, make_settings, write_demo, write_lines
from schemas.events import AlertEvent, AlertStatus
from simulation import read_outputs
from verify import Outputs, canonical
from worker.backtest.archive import Selection
from worker.backtest.run import Backtest
from worker.deterministic import DeterministicEngine
from worker.feeds.jsonl import BadArchive, read_archive, stamp
from worker.records import OutRecord
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.surroundings import Surroundings
from worker.runner.vitals import Vitals
from worker.settings import Settings


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def found(week: Path, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    return backtest(week, folder=tmp_path_factory.mktemp("labels"), trends=True)


@pytest.fixture(scope="module")
def live(week: Path) -> Outputs:
    """What real labellers and detectors write of the same archive, fed to a broker in memory."""
    return run_virtually(run_live(week, make_settings()))


async def run_live(path: Path, settings: Settings) -> Outputs:
    broker = MemoryBroker({spec.name: spec.partitions for spec in settings.topic_specs}, Random(1))
    around = Surroundings(
        make_clients=lambda kafka: MemoryClients(Process(broker, Weather(Random(2))), kafka),
        make_compute=lambda _: VirtualCompute(Random(3), 0.3),
    )
    stop = asyncio.Event()
    working = [
        asyncio.create_task(run_labeller(settings, DeterministicEngine(), stop, Vitals("labeller"), around)),
        asyncio.create_task(run_detector(settings, settings.rules, stop, Vitals("detector"), around)),
    ]
    for record in sent(path, settings):
        assert record.partition is not None
        broker.logs[TopicPartition(record.topic, record.partition)].append(record)
    before, outputs = None, read_outputs(broker, settings)
    while before is None or len(outputs.labelled) < 396 or outputs != before:
        await asyncio.sleep(60)
        before, outputs = outputs, read_outputs(broker, settings)
    stop.set()
    await asyncio.gather(*working)
    await broker.stop()
    return outputs


def sent(path: Path, settings: Settings) -> Iterator[OutRecord]:
    """What the feed sends, where its producer puts it."""
    numbers, choose = list(range(settings.topics.partitions)), DefaultPartitioner()
    for record in stamp(read_archive(path, in_order=True), settings):
        partition = choose(record.key, numbers, numbers) if record.partition is None else record.partition
        yield OutRecord(record.topic, record.key, record.value, partition, record.headers, record.timestamp_ms)


def told(alerts: Sequence[AlertEvent]) -> list[dict[str, object]]:
    return [canonical(alert) for alert in alerts]


def opened(found: Backtest) -> list[tuple[str, str, datetime]]:
    return [(life[0].key, life[0].kind.value, life[0].starts_at) for life in found.lives]


def test_live_workers_write_the_same_alerts_byte_for_byte(found, live):
    assert len(found.lives) >= 3
    assert {alert.status for alert in found.alerts} == set(AlertStatus)
    assert told(found.alerts) == told(live.alerts)


def test_live_workers_write_the_same_trends_byte_for_byte(found, live):
    newest = {trend.record_key: trend for trend in live.trends}
    assert len(newest) > 1000
    assert {trend.key.decode(): trend.event for trend in found.trends} == newest


def test_the_events_that_live_workers_wrote_give_the_same_alerts_again(found, live, tmp_path):
    path = write_lines(tmp_path / "labelled.jsonl", (placed.event.to_json() for placed in reversed(live.labelled)))
    again = backtest(path, folder=tmp_path, make_engine=lambda _: pytest.fail("there is nothing to label"))
    assert told(again.alerts) == told(found.alerts)
    assert again.labelling is None


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_number_of_partitions_changes_neither_key_nor_kind_nor_start(found, week, tmp_path, partitions):
    other = backtest(week, folder=tmp_path, settings=make_settings(partitions=partitions))
    assert opened(other) == opened(found)


def test_the_order_of_lines_and_files_changes_nothing(found, week, tmp_path):
    lines = week.read_bytes().splitlines()
    Random(5).shuffle(lines)
    halves = [write_lines(tmp_path / f"{n}.jsonl", lines[n::2]) for n in (0, 1)]
    assert told(backtest(*halves, folder=tmp_path).alerts) == told(found.alerts)


def test_a_second_run_asks_the_stack_nothing(week, tmp_path):
    first, second = backtest(week, folder=tmp_path), backtest(week, folder=tmp_path)
    assert first.labelling is not None
    assert second.labelling is not None
    assert (first.labelling.asked > 300, second.labelling.asked) == (True, 0)
    assert first.labelling.kept_in == second.labelling.kept_in
    assert told(second.alerts) == told(first.alerts)


def test_every_story_in_a_test_is_where_the_alerts_say_it_is(found):
    looked = 0
    for life in found.lives:
        alert_key = next(key for key in found.histories if (key.type, key.name) == (life[0].key_type, life[0].key))
        steps = {step.clock_ms: step for step in found.histories[alert_key].steps}
        for alert in life:
            if alert.status is AlertStatus.firing:
                step = steps[round(alert.detected_at.timestamp() * 1000)]
                assert step.figure == pytest.approx(alert.W / alert.h)
                looked += 1
    assert looked > 10


def test_stories_are_counted_once_for_each_key_and_copies_never(found):
    market = next(history for key, history in found.histories.items() if key.name == "global")
    assert (len(market.stories_ms), len(market.negatives_ms)) == (found.stories, found.negatives)
    assert found.stories < found.events == 396
    assert list(market.stories_ms) == sorted(market.stories_ms)


def test_what_is_watched_begins_after_three_days_of_learning(found):
    assert found.watched_from is not None
    assert 3 <= (found.watched_from - found.first).total_seconds() / 86_400 < 3.1
    assert found.watched_days == pytest.approx((found.last - found.watched_from).total_seconds() / 86_400, abs=0.01)
    assert min(alert.starts_at for alert in found.alerts) >= found.watched_from


def test_a_short_stretch_only_learns(week, tmp_path):
    found = backtest(week, folder=tmp_path, selection=Selection(end=datetime(2026, 3, 4, tzinfo=UTC)))
    assert (found.watched_from, found.watched_days, found.alerts) == (None, 0.0, ())


def test_an_archive_of_which_nothing_can_be_labelled_is_refused(tmp_path):
    class Deaf(DeterministicEngine):
        def predict(self, texts, *, days=None):
            if days is not None:
                raise RuntimeError("cannot read this")
            return super().predict(texts)

    path = write_lines(tmp_path / "n.jsonl", ['{"title": "t", "published_at": "2026-03-02T00:00:00Z"}'])
    with pytest.raises(BadArchive, match="could label none of the 1 items"):
        backtest(path, folder=tmp_path, make_engine=lambda _: Deaf())
