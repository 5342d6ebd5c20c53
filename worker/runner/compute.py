"""A thread that computes beside the event loop, which heartbeats live on."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

Value = TypeVar("Value")


class Compute(Protocol):
    """Where a loop's computing is done, one call at a time, in order."""

    @property
    def busy_seconds(self) -> float:
        """How long the present call has been running; 0 between calls."""

    async def run(self, call: Callable[[], Value]) -> Value:
        """The value, or the exception, of a call."""

    def stop(self) -> None:
        """End after the calls that wait."""


class ComputeThread:
    """One thread for all calls, since torch keeps threads for each that calls it; one call at a time, in order.

    A daemon, unlike an executor's: a model that hangs must not hold the process back when it should end.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._busy_since: float | None = None
        threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def busy_seconds(self) -> float:
        """How long the present call has been running; 0 between calls."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, call: Callable[[], Value]) -> Value:
        """The value, or the exception, of a call made in the thread."""
        answer: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._calls.put((answer, call))
        return await answer

    def stop(self) -> None:
        """End the thread after the calls that wait."""
        self._calls.put(None)

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            answer, call = entry
            self._busy_since = time.monotonic()
            try:
                value, error = call(), None
            except BaseException as raised:  # noqa: BLE001 -- handed to who awaits it
                value, error = None, raised
            self._busy_since = None
            with contextlib.suppress(RuntimeError):  # the loop has ended
                answer.get_loop().call_soon_threadsafe(_answer, answer, value, error)


def _answer(answer: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
