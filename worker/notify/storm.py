"""The storm cap: so many new alerts one by one in any window of time, and the rest together at its end. Pure."""

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(slots=True)
class StormCap:
    """No more than ``most`` new alerts alone, and one digest, in any ``window``.

    Owned by the loop of one receiver. A restart forgets what was sent, and so allows as many again.
    """

    most: int
    window: timedelta
    _sent: deque[datetime] = field(default_factory=deque)
    _over: set[str] = field(default_factory=set)
    _digested: datetime | None = None

    def admit(self, alert_id: str, now: datetime) -> bool:
        """Whether a new alert may be sent alone; if not it is for the next digest, as all are that come before it."""
        if not self._over and self._count(now) < self.most:
            return True
        self._over.add(alert_id)
        return False

    def count(self, now: datetime) -> None:
        """One was sent alone."""
        self._sent.append(now)

    def is_over(self, alert_id: str) -> bool:
        """Whether the alert waits for the digest."""
        return alert_id in self._over

    def is_digest_due(self, now: datetime) -> bool:
        """Whether alerts wait, and the window is over in which they were too many."""
        digested = self._digested is not None and now < self._digested + self.window
        return bool(self._over) and not digested and self._count(now) < self.most

    def close(self, alert_ids: AbstractSet[str], now: datetime) -> None:
        """A digest of these was sent."""
        self._over -= alert_ids
        self._digested = now

    def retain(self, alert_ids: AbstractSet[str]) -> None:
        """Only these are still to be sent."""
        self._over &= alert_ids

    def _count(self, now: datetime) -> int:
        while self._sent and now >= self._sent[0] + self.window:
            self._sent.popleft()
        return len(self._sent)
