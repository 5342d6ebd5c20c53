"""Timers of named states, in order of (instant, name)."""

from heapq import heappop, heappush


class Timers:
    """A heap that is allowed to be early: who takes a timer asks the state whether it is really due.

    So a name that is put off, as a key is with every cluster, costs nothing until its old instant comes.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._queued: dict[str, int] = {}

    def schedule(self, name: str, due_ms: int) -> None:
        """Wake ``name`` at ``due_ms`` or before."""
        queued_ms = self._queued.get(name)
        if queued_ms is None or due_ms < queued_ms:
            self._queued[name] = due_ms
            heappush(self._heap, (due_ms, name))

    def take_before(self, limit_ms: int) -> tuple[int, str] | None:
        """The first timer below ``limit_ms``, None if there is none."""
        while self._heap and self._heap[0][0] < limit_ms:
            due_ms, name = heappop(self._heap)
            if self._queued.get(name) == due_ms:
                del self._queued[name]
                return due_ms, name
        return None
