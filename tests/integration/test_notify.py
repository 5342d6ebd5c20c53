"""Alerts reach every receiver, whatever fails on the way: receivers, and the process that sends to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from notifying import Receiver, make_alert
from processes import Fleet
from schemas.events import AlertAction, AlertEvent
from trial_settings import load_trial_settings
from worker.broker import LocalBroker
from worker.kafka.admin import create_topics
from worker.kafka.sink import Writer
from worker.records import OutRecord
from worker.settings import Settings

pytestmark = pytest.mark.kafka

AWAY_SECONDS = 20.0


class Desk:
    """Topics of a deployment, and the process that notifies."""

    def __init__(self, settings: Settings, folder: Path, fleet: Fleet) -> None:
        self.settings = settings
        self.folder = folder
        self.fleet = fleet
        self.writer = Writer(settings.kafka, "test")

    async def publish(self, *alerts: AlertEvent) -> None:
        topic = self.settings.topic_names.alerts
        await self.writer.write([OutRecord(topic, each.alert_id.encode(), each.to_json(), 0) for each in alerts])

    async def act(self, action: AlertAction) -> None:
        record = OutRecord(self.settings.topic_names.actions, action.action_id.encode(), action.to_json(), 0)
        await self.writer.write([record])

    def start(self, name: str, routes: str) -> None:
        file = self.folder / "routes.toml"
        file.write_text(routes)
        self.fleet.start_command(name, "notify", "--routes", str(file))


@asynccontextmanager
async def open_desk(bootstrap: str, prefix: str, folder: Path) -> AsyncIterator[Desk]:
    settings = load_trial_settings(bootstrap, prefix, 1)
    await create_topics(settings.kafka, settings.topic_specs, 1)
    given = {
        "kafka.bootstrap_servers": bootstrap,
        "kafka.session_timeout_ms": 6000,
        "kafka.heartbeat_interval_ms": 500,
        "kafka.rebalance_timeout_ms": 6000,
        "topics.prefix": prefix,
        "topics.partitions": 1,
        "group_prefix": settings.group_prefix,
    }
    with Fleet(given, folder) as fleet:
        desk = Desk(settings, folder, fleet)
        await desk.writer.start()
        try:
            yield desk
        finally:
            await desk.writer.stop()


def webhook(name: str, url: str) -> str:
    return f"""
    [[receiver]]
    name = "{name}"
    kind = "webhook"
    url = "{url}"
    timeout_seconds = 1
    max_backoff_seconds = 2
    storm_cap = 1000
    [[route]]
    receiver = "{name}"
    continue = true
    """


async def test_every_alert_arrives_though_the_receiver_is_down_and_the_notifier_is_killed(
    bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    alerts = [make_alert(f"a-{number}") for number in range(30)]
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(bootstrap, prefix, tmp_path))
        sick = await stack.enter_async_context(Receiver("error"))
        well = await stack.enter_async_context(Receiver())
        routes = webhook("sick", sick.url) + webhook("well", well.url)

        async def knows(receiver: Receiver, wanted: set[str]) -> bool:
            return {key.split(":")[0] for key in receiver.keys} >= wanted

        desk.start("first", routes)
        await desk.publish(*alerts[:10])
        await desk.fleet.await_that("the well one has ten", lambda: knows(well, {f"a-{n}" for n in range(10)}))
        desk.fleet.kill("first")
        await desk.publish(*alerts[10:20], *(make_alert(f"a-{n}", 2, ended=True) for n in range(15)))
        desk.start("second", routes)
        await desk.fleet.await_that("the well one has twenty", lambda: knows(well, {f"a-{n}" for n in range(20)}))
        for mood in ("hang", "reset", "busy"):
            sick.mood = mood
            await desk.fleet.await_that(f"the sick one was tried, mood {mood}", partial(was_seen, sick, mood))
        desk.fleet.kill("second")
        sick.mood = "fine"
        await desk.publish(*alerts[20:])
        desk.start("third", routes)
        everything = {f"a-{n}" for n in range(30)}
        for receiver in (sick, well):
            await desk.fleet.await_that("all have arrived", partial(knows, receiver, everything))
        assert desk.fleet.terminate("third") == 0
    for receiver in (sick, well):
        assert {f"a-{n}:2" for n in range(15)} <= set(receiver.keys)  # their ends too
    assert len(well.keys) - len(set(well.keys)) <= 3  # a repeat for each letter that was under way at a kill, at most


@pytest.mark.slow
async def test_a_broker_that_goes_and_comes_back_is_waited_for(prefix: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(LocalBroker(report=print))
        desk = await stack.enter_async_context(open_desk(broker.bootstrap, prefix, tmp_path))
        receiver = await stack.enter_async_context(Receiver())

        async def knows(key: str) -> bool:
            return key in receiver.keys

        desk.start("notifier", webhook("desk", receiver.url))
        await desk.publish(make_alert("a"))
        await desk.fleet.await_that("the first has arrived", partial(knows, "a:1"))
        receiver.mood = "hang"
        await desk.publish(make_alert("b"))
        await desk.fleet.await_that("the second is under way", partial(was_seen, receiver, "hang"))
        broker.kill()
        receiver.mood = "fine"
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(broker.restart)
        await desk.publish(make_alert("a", 2, ended=True), make_alert("c"))
        for key in ("b:1", "a:2", "c:1"):
            await desk.fleet.await_that(f"{key} has arrived", partial(knows, key))
        assert desk.fleet.terminate("notifier") == 0
    assert receiver.keys.count("a:1") == 1
    assert len(receiver.keys) <= 5  # what was sent while nothing could be written down may come again


async def was_seen(receiver: Receiver, mood: str) -> bool:
    return receiver.seen[mood] > 0
