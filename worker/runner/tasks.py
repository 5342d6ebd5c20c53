"""Running loops side by side until the first ends, and ending what remains in time."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set, for loops that end in good order."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_until_first(*loops: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends or fails, then cancel the others; a failure is raised."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


async def run_together(*loops: Coroutine[Any, Any, None]) -> None:
    """Run until all have ended by themselves; the first that fails cancels the others, and its failure is raised."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def run_until_all(stop: asyncio.Event, *loops: Coroutine[Any, Any, None]) -> None:
    """Run until all have ended; the first to end or fail stops the others, which drain. A failure is raised."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


async def wait_for_stop(stop: asyncio.Event) -> None:
    """A loop that ends when this is set, as it is to stop."""
    await stop.wait()
