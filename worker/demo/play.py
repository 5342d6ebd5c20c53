"""Plays the demo: broker, topics, a labeller and a detector as processes of their own, the feed, and the view."""

import asyncio
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from schemas.events import AlertEvent
from worker.broker import LocalBroker, free_port
from worker.child import Child
from worker.demo.stream import load_stream
from worker.demo.summary import Seen, render_summary
from worker.detector import Facts
from worker.errors import Fatal
from worker.feeds.jsonl import Line, open_feed, replay, stamp
from worker.kafka.admin import create_topics
from worker.lives import fired_lives
from worker.records import OutRecord
from worker.runner.tasks import stop_on_signals
from worker.settings import Settings, load_settings
from worker.sinks.tail import decode_output, follow, output_places
from worker.sinks.terminal import AlertLines, render_label
from worker.status import read_detector_facts

ROLES = ("labeller", "detector")
READY_SECONDS = 120.0
FINISH_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Screen:
    """Where the demo writes: what it shows, and what it is doing."""

    out: Console
    err: Console

    def say(self, line: str) -> None:
        """Tell what is being done."""
        self.err.print(f"==> {line}", highlight=False)


async def play(screen: Screen, *, trouble: bool, speed: float, keep: bool) -> None:
    """Play the week, show it, and say what happened.

    Args:
        screen: where to write.
        trouble: whether the bank gets into trouble.
        speed: seconds of the week in a second.
        keep: go on running after the summary, until Ctrl-C.

    Raises:
        Fatal: a worker did not start or died, or the trouble gave no alert.
    """
    lines = load_stream(trouble=trouble)
    with tempfile.TemporaryDirectory(prefix="stacknorm-demo-") as folder, LocalBroker(report=screen.say) as broker:
        settings = demo_settings(broker.bootstrap)
        screen.say(f"Apache Kafka is up on {broker.bootstrap}; making the topics")
        await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
        async with run_workers(settings, Path(folder), screen.say):
            seen = Seen()
            started = time.monotonic()
            facts = await _replay_and_watch(settings, lines, speed, screen, seen)
            screen.out.print(Rule(style="dim"))
            screen.out.print(render_summary(seen, facts, time.monotonic() - started))
            if trouble and not fired_lives(seen.alerts):
                raise Fatal("a bank got into trouble and no alert came")
            if keep:
                await _wait_for_interrupt(screen, settings)


def demo_settings(bootstrap_servers: str) -> Settings:
    """The defaults, but for the archive's clock and times that suit a broker on the same machine."""
    return load_settings(
        idle_clock="data",
        kafka={
            "bootstrap_servers": bootstrap_servers,
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 2_000,
            "transaction_timeout_ms": 10_000,
        },
    )


@asynccontextmanager
async def run_workers(settings: Settings, folder: Path, say: Callable[[str], None]) -> AsyncIterator[None]:
    """A labeller and a detector, ready to work; ended in good order.

    Raises:
        Fatal: one did not get ready; the end of its log stands in the message.
    """
    ports = {role: free_port() for role in ROLES}
    workers: dict[str, Child] = {}
    try:
        for role in ROLES:
            workers[role] = _start_worker(settings, role, ports[role], folder)
        say("starting a labeller, which loads the stack, and a detector: some ten seconds")
        for role in ROLES:
            await _await_ready(role, workers[role], ports[role])
        yield
    finally:
        for worker in workers.values():
            worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for worker in workers.values():
            await asyncio.to_thread(worker.wait_or_kill, deadline)


def _start_worker(settings: Settings, role: str, port: int, folder: Path) -> Child:
    own = settings.model_copy(
        update={"http": settings.http.model_copy(update={"port": port}), "instance": f"demo-{role}"}
    )
    command = (sys.executable, "-m", "worker", "run", "--only", role)
    return Child(command, folder / f"{role}.log", environment=own.to_environment())


async def _await_ready(role: str, worker: Child, port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(_is_ready, port):
        if worker.exit_status is not None or time.monotonic() > deadline:
            raise Fatal(f"the {role} did not get ready (exit status {worker.exit_status}):\n{worker.log_tail()}")
        await asyncio.sleep(POLL_SECONDS)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


async def _replay_and_watch(settings: Settings, lines: list[Line], speed: float, screen: Screen, seen: Seen) -> Facts:
    screen.say(f"replaying {len(lines)} headlines at {speed / 1440:g} days a minute")
    screen.out.print(Rule("labels and alerts, as they are committed", style="dim"))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_watch(settings, screen.out, seen, stop))
        await _feed(settings, lines, speed, seen)
        facts = await _await_end(settings, len(lines), seen)
        stop.set()
    return facts


async def _feed(settings: Settings, lines: list[Line], speed: float, seen: Seen) -> None:
    async with open_feed(settings) as write:

        async def send(records: Sequence[OutRecord]) -> None:
            for record in records:
                if record.key is not None:
                    seen.sent_at[record.key.decode()] = time.monotonic()
            await write(records)

        await replay(stamp(lines, settings), speed, send, lambda _: None)


async def _watch(settings: Settings, out: Console, seen: Seen, stop: asyncio.Event) -> None:
    lines = AlertLines()
    async for record in follow(settings, output_places(settings), from_start=True, stop=stop):
        event = decode_output(settings, record)
        if isinstance(event, AlertEvent):
            seen.alerts.append(event)
            if (line := lines.render(event)) is not None:
                out.print(line)
        else:
            seen.add_label(event, time.monotonic())
            out.print(render_label(event), no_wrap=True, overflow="ellipsis")


async def _await_end(settings: Settings, items: int, seen: Seen) -> Facts:
    """Wait until all is labelled and the detector has passed the last label; then for one more look at the alerts."""
    deadline = time.monotonic() + FINISH_SECONDS
    while time.monotonic() < deadline:
        if len(seen.events) >= items:
            facts = await read_detector_facts(settings)
            if facts.clock is not None and facts.clock >= max(event.clock for event in seen.events):
                await asyncio.sleep(POLL_SECONDS)
                return facts
        await asyncio.sleep(POLL_SECONDS)
    raise Fatal(f"{len(seen.events)} of {items} headlines were labelled within {FINISH_SECONDS:.0f} s of the last")


async def _wait_for_interrupt(screen: Screen, settings: Settings) -> None:
    bootstrap = settings.kafka.bootstrap_servers
    screen.say(f"still running: STACKNORM_KAFKA__BOOTSTRAP_SERVERS={bootstrap} stacknorm-worker tail --from-start")
    screen.say("Ctrl-C ends it")
    await stop_on_signals().wait()
