"""Active hours: the days and times of a week, in a place's own time. Pure."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Hours:
    """From ``opens`` to before ``closes`` on these days (Monday is 0), by the clocks of ``zone``.

    Where ``closes`` is not after ``opens`` it is of the next day; where both are the same the whole day is meant.
    """

    zone: ZoneInfo
    days: frozenset[int]
    opens: time
    closes: time

    def is_open(self, now: datetime) -> bool:
        """Whether ``now`` lies within; when clocks are put back, the hour that comes twice counts twice."""
        local = now.astimezone(self.zone)
        at, today = local.time(), local.weekday()
        if self.opens < self.closes:
            return today in self.days and self.opens <= at < self.closes
        yesterday = (local.date() - timedelta(days=1)).weekday()
        return (today in self.days and at >= self.opens) or (yesterday in self.days and at < self.closes)

    def __str__(self) -> str:
        days = ", ".join(DAYS[day] for day in sorted(self.days))
        return f"{days} {self.opens:%H:%M}-{self.closes:%H:%M} {self.zone.key}"


def parse_days(text: str) -> frozenset[int]:
    """``Mon-Fri``, ``Sat,Sun`` or ``Fri-Mon,Wed``.

    Raises:
        ValueError: it names what is no day.
    """
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        start = _number(first)
        end = _number(last) if last else start
        days |= {day % 7 for day in range(start, end + 1 if end >= start else end + 8)}
    return frozenset(days)


def _number(day: str) -> int:
    if day.strip() not in DAYS:
        raise ValueError(f"{day.strip()!r} is no day; days are {', '.join(DAYS)}")
    return DAYS.index(day.strip())
