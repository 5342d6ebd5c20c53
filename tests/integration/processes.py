"""Workers as real processes: started, frozen, killed, awaited; nothing is left running, and their logs tell."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.child import Child

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 180.0
STOP_SECONDS = 20.0
WORKER = ("-m", "worker")


class Fleet:
    """The worker processes of one run. A context manager: at its end all are gone, after a failure their logs shown.

    Args:
        settings: of all workers, by their dotted names.
        folder: for the logs.
        program: what Python runs.
    """

    def __init__(self, settings: Mapping[str, object], folder: Path, program: Sequence[str] = WORKER) -> None:
        self._settings = settings
        self._folder = folder
        self._program = program
        self._running: dict[str, Child] = {}
        self._logs: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._running.values():
            child.kill()
        if error is not None:
            for name in self._logs:
                print(f"--- {name}\n{self.log_tail(name)}")

    def start(self, role: str, name: str) -> None:
        """Start ``worker run --only role``; ``name`` is its instance, and tells it apart here."""
        self.start_command(name, "run", "--only", role)

    def start_command(self, name: str, *arguments: str) -> None:
        """Start another command of the worker."""
        self._logs[name] = self._folder / f"{name}.log"
        environment = environment_of({**self._settings, "instance": name})
        command = (sys.executable, *self._program, *arguments)
        self._running[name] = Child(command, self._logs[name], environment=environment)

    def freeze(self, name: str) -> None:
        """Stop it where it stands; what it has sent is on its way."""
        self._running[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen one go on."""
        self._running[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._running.pop(name).kill()

    def terminate(self, name: str) -> int:
        """SIGTERM; its exit status."""
        child = self._running.pop(name)
        child.send_signal(signal.SIGTERM)
        return child.wait_or_kill(time.monotonic() + STOP_SECONDS)

    def stop(self) -> dict[str, int]:
        """SIGTERM to all that run; by name, their exit status."""
        for child in self._running.values():
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        return {name: self._running.pop(name).wait_or_kill(deadline) for name in list(self._running)}

    def count_said(self, name: str, event: str) -> int:
        """How often a worker has logged an event, dead or alive."""
        return self._logs[name].read_text(errors="replace").count(f'"event":"{event}"')

    def log_tail(self, name: str, lines: int = 40) -> str:
        """The last that a worker said, dead or alive."""
        return "\n".join(self._logs[name].read_text(errors="replace").splitlines()[-lines:])

    async def await_that(
        self, what: str, ask: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until ``ask`` says so.

        Raises:
            AssertionError: it did not in time, or a worker ended by itself.
        """
        deadline = time.monotonic() + seconds
        while not await ask():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            for name, child in self._running.items():
                assert child.exit_status is None, f"{name} ended with status {child.exit_status} while awaiting: {what}"
            await asyncio.sleep(POLL_SECONDS)


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Our environment with these settings, by their dotted names, in place of any others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STACKNORM_")}
    given = {"STACKNORM_" + name.upper().replace(".", "__"): str(value) for name, value in settings.items()}
    return inherited | given
