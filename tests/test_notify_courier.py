"""A courier on a real broker: what arrives, in which order of events, over restarts of it and moods of the receiver."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from notifying import Receiver, make_alert, seconds
from schemas.events import AlertAction, AlertEvent
from trial_settings import load_trial_settings
from worker.actions import Actions, acknowledge, silence
from worker.kafka.admin import create_topics, read_lag
from worker.kafka.connection import Place
from worker.kafka.sink import Writer
from worker.matchers import parse_matcher
from worker.notify.backoff import Backoff
from worker.notify.courier import FETCH_SECONDS, Courier, Desk
from worker.notify.decision import Route
from worker.notify.people import follow_actions
from worker.notify.plan import make_plan
from worker.notify.process import make_channel, open_post_to
from worker.notify.storm import StormCap
from worker.records import OutRecord
from worker.runner.vitals import Vitals
from worker.settings import Settings
from worker.sinks.tail import open_reader

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02


class Deployment:
    """Topics of a test's own, and a clock that it sets forward."""

    def __init__(self, settings: Settings, writer: Writer) -> None:
        self.settings = settings
        self.ahead = timedelta()
        self.actions = Actions()
        self.storm = 100
        self._writer = writer

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def publish(self, *alerts: AlertEvent) -> None:
        topic = self.settings.topic_names.alerts
        await self._writer.write([OutRecord(topic, each.alert_id.encode(), each.to_json(), 0) for each in alerts])

    async def act(self, action_id: str, action: AlertAction | None) -> None:
        value = None if action is None else action.to_json()
        await self._writer.write([OutRecord(self.settings.topic_names.actions, action_id.encode(), value, 0)])

    async def lag(self, name: str = "desk") -> int:
        group = f"{self.settings.group_prefix}-notify-{name}"
        (lag,) = (await read_lag(self.settings.kafka, group, self.settings.topic_names.alerts, 1)).values()
        return lag.records

    @asynccontextmanager
    async def courier(self, receiver: Receiver, **more: Any) -> AsyncIterator[None]:
        """A courier at work until the block ends."""
        given = {"name": "desk", "kind": "webhook", "timeout_seconds": 0.5, **more}
        if "token" not in more:
            given["url"] = receiver.url
        plan = make_plan({"receiver": [given], "route": [{"receiver": given["name"]}]}, {"TOKEN": "t"})
        (address,) = plan.addresses
        stop = asyncio.Event()
        async with open_post_to(plan, address) as post:
            storm = None if given["kind"] == "alertmanager" else StormCap(self.storm, timedelta(minutes=10))
            desk = Desk(given["name"], make_channel(address), post, storm, Backoff(1.0), self.now)
            courier = Courier(self.settings, (Route(given["name"]),), self.actions, desk, Vitals("test"))
            running = asyncio.create_task(courier.run(stop))
            try:
                yield
            finally:
                stop.set()
                await running


@pytest.fixture
async def world(bootstrap: str, prefix: str) -> AsyncIterator[Deployment]:
    settings = load_trial_settings(bootstrap, prefix, 1)
    await create_topics(settings.kafka, settings.topic_specs, 1)
    writer = Writer(settings.kafka, "test")
    await writer.start()
    yield Deployment(settings, writer)
    await writer.stop()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if what():
                return
            await asyncio.sleep(POLL_SECONDS)


def is_kept_waiting() -> bool:
    """Whether alerts have waited over more than one turn."""
    waited = REGISTRY.get_sample_value("stacknorm_notify_oldest_unsent_seconds", {"receiver": "desk"})
    return waited is not None and waited > 1.2 * FETCH_SECONDS


def silenced_for(deployment: Deployment, lasting: timedelta) -> AlertAction:
    now = deployment.now()
    return silence([parse_matcher("key=symbol:HRVL")], now - seconds(5), now + lasting, by="ana", at=now, token="s")


async def test_a_receiver_that_fails_in_every_way_gets_all_in_the_end_and_holds_up_no_other(world: Deployment) -> None:
    async with Receiver() as sick, Receiver() as well, world.courier(sick), world.courier(well, name="other"):
        await world.publish(make_alert("first"))
        await until(lambda: "first:1" in well.keys and "first:1" in sick.keys)
        for number, mood in enumerate(("error", "hang", "reset", "busy")):
            sick.mood = mood
            await world.publish(*(make_alert(f"{mood}-{each}", revision) for each in range(3) for revision in (1, 2)))
            await until(lambda number=number: len({key.split(":")[0] for key in well.keys}) == 4 + 3 * number)
            await until(lambda mood=mood: sick.seen[mood] > 0)
        assert sick.keys == ["first:1"]
        assert await world.lag() > 0
        sick.mood = "fine"
        wanted = {f"{mood}-{each}:2" for mood in ("error", "hang", "reset", "busy") for each in range(3)}
        await until(lambda: set(sick.keys) >= wanted)
    assert len(sick.keys) == len(set(sick.keys))
    assert await world.lag() == await world.lag("other") == 0


async def test_a_new_receiver_hears_of_what_goes_on_and_not_of_what_is_over(world: Deployment) -> None:
    await world.publish(make_alert("over"), make_alert("over", 2, ended=True), make_alert("on", 4))
    async with Receiver() as receiver, world.courier(receiver):
        await until(lambda: bool(receiver.keys))
        await world.publish(make_alert("on", 5, ended=True))
        await until(lambda: len(receiver.keys) == 2)
    assert receiver.keys == ["on:4", "on:5"]


async def test_nothing_is_lost_and_nothing_repeated_over_a_restart(world: Deployment) -> None:
    async with Receiver() as receiver:
        async with world.courier(receiver):
            await world.publish(make_alert("a"), make_alert("b"))
            await until(lambda: len(receiver.keys) == 2)
        await world.publish(make_alert("a", 2, ended=True), make_alert("c"), make_alert("c", 2, ended=True))
        async with world.courier(receiver):
            await until(lambda: len(receiver.keys) == 4)
            await world.publish(make_alert("d"))
            await until(lambda: len(receiver.keys) == 5)
    assert sorted(receiver.keys) == ["a:1", "a:2", "b:1", "c:2", "d:1"]


async def test_an_alert_that_ends_while_receiver_and_courier_are_down_arrives(world: Deployment) -> None:
    async with Receiver("error") as receiver:
        async with world.courier(receiver):
            await world.publish(make_alert("a"))
            await until(lambda: receiver.seen["error"] > 0)
        await world.publish(make_alert("a", 2, ended=True))
        receiver.mood = "fine"
        async with world.courier(receiver):
            await until(lambda: bool(receiver.keys))
    assert receiver.keys == ["a:2"]


async def test_a_silence_holds_over_a_restart_and_what_still_fires_comes_at_its_end(world: Deployment) -> None:
    action = silenced_for(world, seconds(60))
    world.actions.apply(action.action_id, action)
    async with Receiver() as receiver:
        async with world.courier(receiver):
            await world.publish(make_alert("on"), make_alert("over"), make_alert("else", key="symbol:ELSE"))
            await until(lambda: receiver.keys == ["else:1"])
            await world.publish(make_alert("over", 2, ended=True))
        async with world.courier(receiver):
            await world.publish(make_alert("else", 2, key="symbol:ELSE"))
            await until(lambda: receiver.keys == ["else:1", "else:2"])
            world.ahead = seconds(61)
            await until(lambda: len(receiver.keys) == 3)
            await world.publish(make_alert("else", 3, key="symbol:ELSE"))
            await until(lambda: len(receiver.keys) == 4)
    assert receiver.keys[2:] == ["on:1", "else:3"]


async def test_a_refusal_is_passed_over_and_the_end_of_it_not_sent(world: Deployment) -> None:
    async with Receiver("bad") as receiver, world.courier(receiver):
        await world.publish(make_alert("a"))
        await until(lambda: receiver.seen["bad"] == 1)
        receiver.mood = "fine"
        await world.publish(make_alert("a", 2, ended=True), make_alert("b"))
        await until(lambda: bool(receiver.keys))
    assert receiver.keys == ["b:1"]
    assert await world.lag() == 0


async def test_over_the_storm_cap_the_rest_comes_in_one_digest(world: Deployment) -> None:
    world.storm = 5
    async with Receiver() as receiver, world.courier(receiver):
        await world.publish(make_alert("first"))
        await until(lambda: len(receiver.keys) == 1)
        await world.publish(*(make_alert(f"a-{number}", W=13.0 + number) for number in range(11)))
        await until(lambda: len(receiver.keys) == 5 and is_kept_waiting())
        assert await world.lag() > 0  # the rest would be sent after a crash
        world.ahead = seconds(601)
        await until(lambda: len(receiver.keys) == 6)
        await world.publish(make_alert("a-0", 2, W=13.0), make_alert("later"))
        await until(lambda: len(receiver.keys) == 7)
    assert receiver.keys[:5] == ["first:1", *(f"a-{number}:1" for number in (10, 9, 8, 7))]
    assert receiver.taken[5].json["digest"]["count"] == 7
    assert receiver.keys[6] == "later:1"


async def test_slack_has_one_message_an_alert_over_a_restart(world: Deployment) -> None:
    slack = {"kind": "slack", "token": {"env": "TOKEN"}, "channel": "C1"}
    async with Receiver(slack=True) as receiver:
        slack["base_url"] = receiver.url
        async with world.courier(receiver, **slack):
            await world.publish(make_alert("a"))
            await until(lambda: len(receiver.taken) == 1)
        async with world.courier(receiver, **slack):
            await world.publish(make_alert("a", 2, ended=True))
            await until(lambda: len(receiver.taken) == 2)
    first, second = receiver.taken
    assert (first.path, second.path) == ("/chat.postMessage", "/chat.update")
    assert second.json["ts"] == "1700000000.000001"


async def test_an_alert_of_a_digest_gets_a_message_of_its_own_when_it_ends(world: Deployment) -> None:
    world.storm = 1
    async with Receiver(slack=True) as receiver:
        slack = {"kind": "slack", "token": {"env": "TOKEN"}, "channel": "C1", "base_url": receiver.url}
        async with world.courier(receiver, **slack):
            await world.publish(make_alert("a", W=20.0), make_alert("b"), make_alert("c"))
            await until(lambda: len(receiver.taken) == 1 and is_kept_waiting())
            world.ahead = seconds(601)
            await until(lambda: len(receiver.taken) == 2)
            await world.publish(make_alert("b", 2, ended=True))
            await until(lambda: len(receiver.taken) == 3)
    assert [each.path for each in receiver.taken] == ["/chat.postMessage"] * 3
    assert receiver.taken[1].json["text"] == "2 more alerts"


async def test_an_incoming_webhook_of_slack_hears_of_the_first_and_the_last_revision_alone(world: Deployment) -> None:
    async with Receiver() as receiver, world.courier(receiver, kind="slack"):
        for revision in (1, 2, 3):
            await world.publish(make_alert("a", revision, ended=revision == 3))
            await until(lambda revision=revision: len(receiver.taken) == (1 if revision < 3 else 2))
            while await world.lag():  # noqa: ASYNC110 -- Kafka tells no one
                await asyncio.sleep(POLL_SECONDS)
    assert [each.json["text"].split(":")[0] for each in receiver.taken] == ["Negative news surges", "Resolved"]


async def test_alertmanager_is_told_every_minute_that_an_alert_goes_on_also_while_it_is_acknowledged(
    world: Deployment,
) -> None:
    def posted() -> list[tuple[str, str]]:
        return [(each["labels"]["alert_id"], each["endsAt"]) for taken in receiver.taken for each in taken.json]

    def said_again() -> bool:
        world.ahead += seconds(10)
        return len(posted()) == 6

    async with Receiver() as receiver, world.courier(receiver, kind="alertmanager"):
        await world.publish(make_alert("a"), make_alert("b"))
        await until(lambda: len(posted()) == 2)
        action = acknowledge("a", by="ana", at=world.now())
        world.actions.apply(action.action_id, action)
        await world.publish(make_alert("a", 2), make_alert("b", 2, ended=True))
        await until(lambda: len(posted()) == 3)
        await until(said_again)
    ends = [ends_at for alert_id, ends_at in posted() if alert_id == "a"]
    assert [alert_id for alert_id, _ in posted()[2:]] == ["b", "a", "a", "a"]
    assert ends == sorted(ends)


async def test_of_two_couriers_one_works_and_the_other_takes_over(world: Deployment) -> None:
    async with Receiver() as receiver:
        async with world.courier(receiver):
            await world.publish(make_alert("a"))
            await until(lambda: bool(receiver.keys))
            async with world.courier(receiver):
                await world.publish(make_alert("b"))
                await until(lambda: len(receiver.keys) == 2)
                await world.publish(make_alert("a", 2))
                await until(lambda: len(receiver.keys) == 3)
        async with world.courier(receiver):
            await world.publish(make_alert("b", 2, ended=True))
            await until(lambda: len(receiver.keys) == 4)
    assert receiver.keys == ["a:1", "b:1", "a:2", "b:2"]


async def test_what_people_do_is_known_before_the_first_alert_is_sent_and_followed_then(world: Deployment) -> None:
    action = silenced_for(world, seconds(3600))
    await world.act(action.action_id, action)
    await world.act("nonsense", None)
    known, stop = asyncio.Event(), asyncio.Event()
    following = asyncio.create_task(follow_actions(world.settings, world.actions, known, stop))
    await asyncio.wait_for(known.wait(), PATIENCE_SECONDS)
    assert world.actions.silence_of(make_alert(), world.now()) is not None
    await world.act(action.action_id, None)
    await until(lambda: world.actions.silence_of(make_alert(), world.now()) is None)
    stop.set()
    await following


async def test_what_a_receiver_was_told_is_on_the_topic_under_its_name(world: Deployment) -> None:
    async with Receiver() as receiver, world.courier(receiver):
        await world.publish(make_alert("a", severity="warning"))
        await until(lambda: bool(receiver.keys))
    async with open_reader(world.settings, "test") as reader:
        newest = await reader.read_newest(Place(world.settings.topic_names.notify_state, 0))
    assert list(newest) == [b"desk/a"]
    assert orjson.loads(newest[b"desk/a"] or b"")["severity"] == "warning"
