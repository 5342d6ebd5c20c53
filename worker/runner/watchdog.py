"""Watches the event loop, which heartbeats and health live on: how late it runs, and whether it runs at all."""

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worker.errors import Fatal
from worker.log import get_logger
from worker.metrics import LOOP_LAG_SECONDS
from worker.standstill import Unchanged, WatchClock

TICK_SECONDS = 0.5
SILENT_SHARE = 0.8
"""Of max_poll_interval_ms: after that a worker that holds still ends, since its partitions go to another anyway."""
LOOK_SECONDS = 1.0
LAST_WORDS_SECONDS = 2.0

log = get_logger()


async def watch_polls(polls: Callable[[], int | None], max_poll_seconds: float) -> None:
    """A loop that ends with an error when a member of a group has not fetched for most of its time.

    Args:
        polls: how often it began or ended to fetch; None while it need not.
        max_poll_seconds: after which it has lost its partitions.

    Raises:
        Fatal: it would soon be no member any more, without anyone knowing.
    """
    limit_seconds = SILENT_SHARE * max_poll_seconds
    clock, unchanged = WatchClock(), Unchanged()
    while True:
        await asyncio.sleep(LOOK_SECONDS * min(1.0, max_poll_seconds / 10))
        seconds = unchanged.note(polls(), clock.look(asyncio.get_running_loop().time()))
        if seconds > limit_seconds:
            raise Fatal(f"nothing was fetched for {seconds:.1f} s, of max_poll_interval_ms = {max_poll_seconds:g} s")


@asynccontextmanager
async def watch_loop(limit_seconds: float, end: Callable[[float], None] | None = None) -> AsyncIterator[None]:
    """While open, measure how late the loop is; call ``end`` from a thread once it has not run for the limit.

    Args:
        limit_seconds: how long the loop may be held up.
        end: told the limit; without it the process says where every thread stands, and ends with status 1.
    """
    ticks = 0
    closed = threading.Event()

    async def tick() -> None:
        nonlocal ticks
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - asked - TICK_SECONDS))

    def watch() -> None:
        clock, unchanged = WatchClock(), Unchanged()
        while not closed.wait(LOOK_SECONDS):
            if unchanged.note(ticks, clock.look(time.monotonic())) >= limit_seconds:
                (end or end_process)(limit_seconds)
                return

    ticking = asyncio.create_task(tick())
    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        closed.set()
        ticking.cancel()


def end_process(seconds: float) -> None:
    """Say where every thread stands and end, although the loop does not run; also where nobody reads what is said."""

    def speak() -> None:
        log.critical("loop.held_up", seconds=seconds, error=f"the event loop has not run for {seconds:g} s; ending")
        faulthandler.dump_traceback(sys.stderr, all_threads=True)

    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(LAST_WORDS_SECONDS)
    os._exit(1)
