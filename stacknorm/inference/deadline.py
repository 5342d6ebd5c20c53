"""Calls that are waited for only so long: a call that is late is left to itself, and its caller goes on without it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class Deadline:
    """Runs the calls of each name in a thread of its own and waits `seconds` for each; owned by one engine.

    A thread cannot be stopped: while a late call runs on, further calls of its name are late at once, so that at most
    one thread a name is ever lost.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._late: dict[str, Future[Any]] = {}

    def __call__(self, name: str, call: Callable[[], Result]) -> Result:
        """The result of `call`.

        Raises:
            TimeoutError: it took longer, or an earlier call of this name has not ended yet.
        """
        late = self._late.get(name)
        if late is not None and not late.done():
            raise TimeoutError(f"still busy with an earlier batch after {self._seconds:g} s")
        thread = self._threads.setdefault(name, ThreadPoolExecutor(1, thread_name_prefix=f"member-{name}"))
        running = thread.submit(call)
        try:
            return running.result(self._seconds)
        except TimeoutError:
            if running.done():
                raise
            self._late[name] = running
            raise TimeoutError(f"took longer than {self._seconds:g} s") from None


def wait_forever(name: str, call: Callable[[], Result]) -> Result:
    """Run `call` here, however long it takes: what a `Deadline` is where none is set."""
    del name
    return call()
