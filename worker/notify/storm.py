"""The storm cap: so many new alerts one by one in a window of time, and the rest together at its end. Pure."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(slots=True)
class StormCap:
    """Counts the new alerts of a window, which begins with the first of them and lasts ``window``.

    Owned by the loop of one receiver. A restart begins a new window.
    """

    most: int
    window: timedelta
    _began: datetime | None = None
    _sent: int = 0
    _over: set[str] = field(default_factory=set)

    def admit(self, alert_id: str, now: datetime) -> bool:
        """Whether a new alert may be sent alone; if not it is for the digest of this window."""
        if self._began is None or (now >= self._began + self.window and not self._over):
            self._began, self._sent = now, 0
        if alert_id in self._over:
            return False
        if self._sent < self.most:
            return True
        self._over.add(alert_id)
        return False

    def count(self) -> None:
        """One was sent alone."""
        self._sent += 1

    def is_digest_due(self, now: datetime) -> bool:
        """Whether the window is over and has left alerts behind."""
        return bool(self._over) and self._began is not None and now >= self._began + self.window

    def is_over(self, alert_id: str) -> bool:
        """Whether the alert waits for the digest."""
        return alert_id in self._over

    def close(self, alert_ids: AbstractSet[str], now: datetime) -> None:
        """A digest of these was sent, so that the next window begins."""
        self._over -= alert_ids
        self._began, self._sent = now, 0

    def retain(self, alert_ids: AbstractSet[str]) -> None:
        """Only these are still to be sent."""
        self._over &= alert_ids
