"""An event loop whose time passes when nothing else can happen: hours of waiting take no time, and repeat exactly."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

Value = TypeVar("Value")


class _Waiting(selectors.SelectSelector):
    """Instead of waiting, lets time pass."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError(f"everything waits for ever, at {self.seconds:.3f} s")
        self.seconds += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of its own time, from 0 s. Nothing outside of it can wake it: no sockets, no threads."""

    def __init__(self) -> None:
        self._waiting = _Waiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._waiting.seconds


def run_virtually(main: Coroutine[Any, Any, Value]) -> Value:
    """Run to the end, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class VirtualCompute:
    """Computes in no time at all, and then lets some virtual time pass; see `worker.runner.compute.Compute`."""

    def __init__(self, random: Random, most_seconds: float) -> None:
        self._random = random
        self._most_seconds = most_seconds
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the present call has been running; 0 between calls."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    async def run(self, call: Callable[[], Value]) -> Value:
        """The value, or the exception, of a call."""
        self._since = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self._random.random() * self._most_seconds)
            return call()
        finally:
            self._since = None

    def stop(self) -> None:
        """Nothing waits here."""
