"""How long a receiver that fails is left alone. Pure: time and chance are given."""

from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_SECONDS = 1.0
LONGEST_ASKED_SECONDS = 3600.0


@dataclass(slots=True)
class Backoff:
    """Doubles with each failure, up to ``most_seconds``, less up to half of it by chance; longer if it is asked to."""

    most_seconds: float = 60.0
    failures: int = 0
    until: datetime | None = None

    def fail(self, now: datetime, chance: float, asked_seconds: float | None = None) -> float:
        """After a failure: for how many seconds to wait. ``chance`` lies in [0, 1)."""
        grown = min(self.most_seconds, FIRST_SECONDS * 2.0 ** min(self.failures, 16))
        seconds = grown * (1 - chance / 2)
        if asked_seconds is not None:
            seconds = max(seconds, min(asked_seconds, LONGEST_ASKED_SECONDS))
        self.failures += 1
        self.until = now + timedelta(seconds=seconds)
        return seconds

    def succeed(self) -> None:
        """It answers again."""
        self.failures, self.until = 0, None

    def is_over(self, now: datetime) -> bool:
        """Whether it may be tried now."""
        return self.until is None or now >= self.until

    @property
    def is_worth_saying(self) -> bool:
        """Whether this failure is one to log: the first, the second, the fourth and so on, then every thirtieth."""
        return self.failures & (self.failures - 1) == 0 or self.failures % 30 == 0
