"""`stacknorm-worker notify` as a process: one courier for each receiver, none of which waits for another."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta

from schemas.events import (
    AlertEvent,
    AlertKind,
    AlertStatus,
    Baseline,
    Evidence,
    InputRef,
    KeyType,
    Provenance,
    Severity,
    StackRef,
)
from worker.actions import Actions
from worker.check import require_topics
from worker.errors import Misconfigured
from worker.health import Checks, serve_health
from worker.kafka.connection import await_broker
from worker.log import configure_logging, get_logger
from worker.notify.alertmanager import AlertmanagerChannel
from worker.notify.backoff import Backoff
from worker.notify.courier import Courier, Desk
from worker.notify.decision import News
from worker.notify.letters import Answer, Channel
from worker.notify.people import follow_actions
from worker.notify.plan import Address, AlertmanagerReceiver, Plan, SlackReceiver
from worker.notify.sending import Post, open_post
from worker.notify.slack import SlackApp, SlackWebhook
from worker.notify.storm import StormCap
from worker.notify.webhook import WebhookChannel
from worker.runner.tasks import run_until_all, run_until_first, stop_on_signals, wait_for_stop
from worker.runner.vitals import Vitals
from worker.settings import Settings

STILL_SECONDS = 180.0  # a courier that made no turn for so long hangs
LOOK_SECONDS = 5.0

log = get_logger()


async def serve(settings: Settings, plan: Plan) -> None:
    """Bring alerts to all receivers until SIGTERM or SIGINT; when one courier ends by a fault the others end too.

    Raises:
        WorkerError: what only a restart or a person mends.
    """
    configure_logging(settings.log.level, settings.log.format)
    client = settings.kafka.model_copy(update={"client_id": f"{settings.kafka.client_id}-{settings.instance}"})
    settings = settings.model_copy(update={"kafka": client})
    stop = stop_on_signals()
    vitals = [Vitals(f"receiver {address.receiver.name}") for address in plan.addresses]
    async with serve_health(settings.http.host, settings.http.port, _checks_of(vitals)) as port:
        receivers = [address.receiver.name for address in plan.addresses]
        log.info("notify.starting", receivers=receivers, instance=settings.instance, http_port=port)
        await run_until_first(await_broker(settings.kafka), wait_for_stop(stop))
        if not stop.is_set():
            await require_topics(settings)
            await bring(settings, plan, vitals, stop)
    log.info("notify.stopped")


async def bring(settings: Settings, plan: Plan, vitals: Sequence[Vitals], stop: asyncio.Event) -> None:
    """Bring alerts to all receivers until ``stop``; ``vitals`` are theirs.

    Raises:
        WorkerError: what only a restart or a person mends.
    """
    actions, known = Actions(), asyncio.Event()
    couriers = []
    async with AsyncExitStack() as stack:
        for address, each in zip(plan.addresses, vitals, strict=True):
            post = await stack.enter_async_context(open_post_to(plan, address))
            backoff = Backoff(address.receiver.max_backoff_seconds)
            desk = Desk(address.receiver.name, make_channel(address), post, _make_storm_cap(address), backoff)
            couriers.append(Courier(settings, plan.routes, actions, desk, each))
        following, watching = follow_actions(settings, actions, known, stop), _watch_couriers(couriers, vitals, stop)
        await run_until_all(stop, following, watching, *(_run_when_known(courier, known, stop) for courier in couriers))


async def _run_when_known(courier: Courier, known: asyncio.Event, stop: asyncio.Event) -> None:
    """Nobody is told of what is silenced only because the silence was not read yet."""
    await run_until_first(wait_for_stop(known), wait_for_stop(stop))
    if not stop.is_set():
        await courier.run(stop)


async def _watch_couriers(couriers: Sequence[Courier], vitals: Sequence[Vitals], stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        for courier, each in zip(couriers, vitals, strict=True):
            turned = courier.turned_at_seconds
            still = turned is not None and loop.time() - turned > STILL_SECONDS and each.waiting_for is None
            each.stuck = f"no turn for {STILL_SECONDS:.0f} s" if still else None
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


def _checks_of(vitals: Sequence[Vitals]) -> Checks:
    def live() -> str | None:
        return "; ".join(problem for each in vitals if (problem := each.live())) or None

    def ready() -> str | None:
        return "; ".join(problem for each in vitals if (problem := each.ready())) or None

    return Checks(live, ready)


def open_post_to(plan: Plan, address: Address) -> AbstractAsyncContextManager[Post]:
    """The way to a receiver."""
    proxy = plan.proxy.get_secret_value() if plan.proxy is not None else None
    return open_post(address.receiver.timeout_seconds, proxy, plan.ca_file)


def make_channel(address: Address) -> Channel:
    """How a receiver is spoken to."""
    receiver, url = address.receiver, address.url.get_secret_value()
    secret = address.secret.get_secret_value() if address.secret is not None else None
    if isinstance(receiver, AlertmanagerReceiver):
        return AlertmanagerChannel(url, secret, receiver.resend_seconds)
    if isinstance(receiver, SlackReceiver):
        if secret is None:
            return SlackWebhook(url)
        assert receiver.channel is not None
        return SlackApp(url, secret, receiver.channel, receiver.revisions)
    return WebhookChannel(url, secret)


def _make_storm_cap(address: Address) -> StormCap | None:
    receiver = address.receiver
    if isinstance(receiver, AlertmanagerReceiver):
        return None
    return StormCap(receiver.storm_cap, timedelta(seconds=receiver.storm_window_seconds))


async def send_test(plan: Plan, receiver: str) -> Answer:
    """Send one receiver an alert that says that it is a test; no Kafka is needed.

    Raises:
        Misconfigured: there is no such receiver.
    """
    address = next((each for each in plan.addresses if each.receiver.name == receiver), None)
    if address is None:
        names = ", ".join(each.receiver.name for each in plan.addresses)
        raise Misconfigured(f"there is no receiver {receiver!r}; there are {names}")
    channel, now = make_channel(address), datetime.now(UTC)
    async with open_post_to(plan, address) as post:
        return await post.send(channel.compose([News(make_test_alert(now))], now), channel, now)


def make_test_alert(now: datetime) -> AlertEvent:
    """An alert about nothing, which says so."""
    test = "TEST of stacknorm-worker notify: nothing has happened"
    began = now - timedelta(minutes=30)
    return AlertEvent(
        alert_id=f"test-{now:%Y%m%dT%H%M%S}",
        revision=1,
        status=AlertStatus.firing,
        kind=AlertKind.negative_surge,
        key_type=KeyType.topic,
        key=test,
        first_clock=began,
        starts_at=now,
        detected_at=now,
        emitted_at=now,
        n_negative=4,
        n_total=5,
        n_copies=0,
        n_sources=2,
        expected=0.1,
        ratio=40,
        R=32,
        W=12.5,
        h=12,
        budget=2,
        severity=Severity.info,
        baseline=Baseline(a=1, b=10, learning=False),
        evidence=(Evidence(item_id="test", title=test, source="test", score=-1, received_at=began, copies=0),),
        provenance=Provenance(
            stack=StackRef(name="test", digest="0" * 64),
            rule_version="test",
            inputs=(InputRef(topic="test", partition=0, offset=0),),
        ),
    )
