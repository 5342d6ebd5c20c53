"""What stands still although there is work to do. Pure: takes ``now`` and facts."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_SECONDS = 2.0


@dataclass(slots=True)
class WatchClock:
    """Seconds that pass between looks, at most two each: of a process that was suspended nothing can be expected."""

    seconds: float = 0.0
    _looked_at: float | None = None

    def look(self, now_seconds: float) -> float:
        """The seconds so far; to be asked every second."""
        if self._looked_at is not None:
            self.seconds += min(MOST_SECONDS, now_seconds - self._looked_at)
        self._looked_at = now_seconds
        return self.seconds


@dataclass(slots=True)
class Unchanged:
    """How long a value has been the same."""

    _value: Hashable = None
    _since: float = 0.0

    def note(self, value: Hashable, now_seconds: float) -> float:
        """Seconds since it became this value; 0 for None, which stands for nothing."""
        if value is None or value != self._value:
            self._value, self._since = value, now_seconds
        return now_seconds - self._since


class Stand(NamedTuple):
    """Where the work on a partition stands: the offset fetched next, the one committed last, and if more is to do."""

    position: int
    committed: int
    behind: bool


class Still(NamedTuple):
    """A partition that stands still, and for how long."""

    partition: int
    seconds: float


@dataclass(slots=True)
class Standstill:
    """Since when each owned partition has not moved; owned by the labeller's loop."""

    _unchanged: dict[int, Unchanged] = field(default_factory=dict)

    def note(self, stands: Mapping[int, Stand], now_seconds: float) -> Still | None:
        """Take note of all owned partitions; to be called every second.

        Returns:
            The partition that has stood still longest; None while each has nothing to do or has moved since last time.
        """
        kept = {partition: self._unchanged.get(partition, Unchanged()) for partition in stands}
        self._unchanged = kept
        still = [
            Still(partition, kept[partition].note(stand if stand.behind else None, now_seconds))
            for partition, stand in stands.items()
        ]
        longest = max(still, key=lambda each: each.seconds, default=None)
        return longest if longest and longest.seconds else None

    def excuse(self) -> None:
        """Begin anew: it was not the worker that held them up."""
        self._unchanged = {}
