"""A child process that dies with the process that started it, even if that one is killed."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType


class Child:
    """A process in a group of its own, whose output goes to a file, and a watchdog that ends it if we vanish.

    The watchdog waits for the end of a pipe whose other end only we hold, so it also works after SIGKILL, and, unlike
    Linux's PR_SET_PDEATHSIG, whichever thread started it and on any Unix.

    Args:
        command: program and arguments.
        log_file: all that it says is appended here.
        environment: added to ours.
        leftovers: a folder that the watchdog removes after the kill.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        leftovers: Path | None = None,
    ) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        script = 'cat; kill -9 "-$1"; [ -z "$2" ] || { sleep 1; rm -rf -- "$2"; }'
        self._watchdog = subprocess.Popen(
            ("/bin/sh", "-c", script, "sh", str(self._process.pid), str(leftovers or "")),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_tail(self, lines: int = 40) -> str:
        """The last lines that it said."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def send_signal(self, number: int) -> None:
        """Send it a signal, such as SIGTERM; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it and its children at once, as a crash would."""
        self._end_watchdog()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait_or_kill(self, deadline: float) -> int:
        """Its exit status; killed if it has not ended by ``deadline`` of the monotonic clock."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        return self._process.returncode

    def _end_watchdog(self) -> None:
        self._watchdog.kill()
        self._watchdog.wait()
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
