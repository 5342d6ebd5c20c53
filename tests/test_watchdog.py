"""The event loop is watched from a thread: how late it runs is measured, and one that does not run ends the process."""

import asyncio
import subprocess
import sys
import threading
import time

from prometheus_client import REGISTRY

from worker.runner.watchdog import watch_loop

HELD_UP = """
import asyncio, time
from worker.log import configure_logging
from worker.runner.watchdog import watch_loop

async def main():
    async with watch_loop(2.0):
        await asyncio.sleep(1)
        time.sleep(60)

configure_logging("info", "json")
asyncio.run(main())
"""


def lag_seconds() -> float:
    return REGISTRY.get_sample_value("stacknorm_loop_lag_seconds_sum") or 0.0


async def test_a_loop_that_runs_is_left_alone_and_its_lag_is_measured() -> None:
    ended: list[float] = []
    before = lag_seconds()
    async with watch_loop(20.0, ended.append):
        await asyncio.sleep(0.1)
        time.sleep(1.5)  # noqa: ASYNC251 -- what is to be noticed
        for _ in range(15):
            await asyncio.sleep(0.1)
    assert lag_seconds() - before > 0.9
    assert ended == []
    assert await asyncio.to_thread(_wait_until_gone)


def _wait_until_gone() -> bool:
    deadline = time.monotonic() + 10
    while any(thread.name == "watchdog" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_loop_that_is_held_up_ends_the_process_which_says_where_it_stands() -> None:
    done = subprocess.run([sys.executable, "-c", HELD_UP], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert '"event":"loop.held_up"' in done.stderr
    assert "the event loop has not run for 2 s; ending" in done.stderr
    assert 'File "<string>", line 9 in main' in done.stderr
