"""A worker as a process: builds its parts, serves health and metrics, and drains on SIGTERM."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from worker.check import require_state, require_topics
from worker.engines import load_engine
from worker.health import Checks, serve_health
from worker.kafka.connection import await_broker
from worker.log import configure_logging, get_logger
from worker.memory import settle_memory
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.tasks import run_until_all, run_until_first, stop_on_signals, wait_for_stop
from worker.runner.vitals import Vitals
from worker.runner.watchdog import SILENT_SHARE, watch_loop
from worker.settings import Settings

log = get_logger()


async def serve(settings: Settings, *, labeller: bool, detector: bool) -> None:
    """Run the roles until SIGTERM or SIGINT; when one fails the other drains too.

    Raises:
        WorkerError: what only a restart or a person mends.
        StacknormError: the bundle cannot be loaded or trusted.
    """
    configure_logging(settings.log.level, settings.log.format)
    client = settings.kafka.model_copy(update={"client_id": f"{settings.kafka.client_id}-{settings.instance}"})
    settings = settings.model_copy(update={"kafka": client})
    stop = stop_on_signals()
    vitals: list[Vitals] = []
    roles: list[Coroutine[Any, Any, None]] = []
    for wanted, name, role in ((labeller, "labeller", _label), (detector, "detector", _detect)):
        if wanted:
            vitals.append(Vitals(name))
            roles.append(role(settings, stop, vitals[-1]))
    limit_seconds = settings.kafka.max_poll_interval_ms / 1000 * SILENT_SHARE
    async with (
        serve_health(settings.http.host, settings.http.port, checks_of(vitals)) as port,
        watch_loop(limit_seconds),
    ):
        log.info("worker.starting", labeller=labeller, detector=detector, instance=settings.instance, http_port=port)
        await run_until_all(stop, *roles)
    log.info("worker.stopped")


async def _label(settings: Settings, stop: asyncio.Event, vitals: Vitals) -> None:
    vitals.waiting_for = "its stack"
    engine = await asyncio.to_thread(load_engine, settings.engine)
    log.info("engine.loaded", stack=engine.identity.name, digest=engine.identity.digest)
    settle_memory()
    if await _is_set_up(settings, stop, vitals):
        await run_labeller(settings, engine, stop, vitals)


async def _detect(settings: Settings, stop: asyncio.Event, vitals: Vitals) -> None:
    rules = settings.rules
    _tell_primer(settings)
    if await _is_set_up(settings, stop, vitals):
        await run_detector(settings, rules, stop, vitals)


def _tell_primer(settings: Settings) -> None:
    if (primer := settings.primer) is not None:
        log.info("primer.loaded", path=str(settings.surge.primer), keys=len(primer.baselines), stack=primer.stack.name)
        if (problem := primer.judge_volume(settings.surge.negatives_a_day)) is not None:
            log.warning("primer.volume", problem=problem)


async def _is_set_up(settings: Settings, stop: asyncio.Event, vitals: Vitals) -> bool:
    """Wait for the broker, and look at the topics; False if the worker is to stop before."""
    vitals.waiting_for = "the broker"
    await run_until_first(await_broker(settings.kafka), wait_for_stop(stop))
    if stop.is_set():
        return False
    await require_topics(settings)
    await require_state(settings)
    return True


def checks_of(vitals: Sequence[Vitals]) -> Checks:
    """What the roles together say of life and readiness."""

    def live() -> str | None:
        return "; ".join(problem for each in vitals if (problem := each.live())) or None

    def ready() -> str | None:
        return "; ".join(problem for each in vitals if (problem := each.ready())) or None

    return Checks(live, ready)
