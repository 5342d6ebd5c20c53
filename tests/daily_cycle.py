"""A market whose news comes by day and hardly by night, and what a primer of its first weeks is worth after them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import cos, pi, sin
from random import Random
from typing import Any

from schemas.events import AlertEvent, LabelledEvent
from stacknorm.progress import Report
from tests.surge_streams import DAY_SECONDS, WALL, arrivals, at, stream
from worker.backfill.run import Backfill, learn
from worker.backtest.replay import Runs, replay_events
from worker.detector import detect
from worker.judging.streams import KEYS_OF_A_STORY
from worker.lives import fired_lives
from worker.surge.rules import Rules

AMPLITUDE = 0.8


def usual(hour: int) -> float:
    """The mean of 1 + 0.8 cos over an hour of the day."""
    return 1 + AMPLITUDE * 12 / pi * (sin(2 * pi * (hour + 1) / 24) - sin(2 * pi * hour / 24))


def cycle(random: Random, symbols: int, days: float, amplitude: float = AMPLITUDE) -> Iterator[tuple[float, Any]]:
    """20 negative stories a day of each symbol, and as many others; by day up to nine times as many as by night."""
    for seconds in arrivals(random, 40 * symbols * (1 + amplitude), 0, days):
        if random.random() * (1 + amplitude) < 1 + amplitude * cos(2 * pi * seconds / DAY_SECONDS):
            yield (
                seconds,
                {
                    "negative": random.random() < 0.5,
                    "symbols": (f"S{random.randrange(symbols)}",),
                    "source": random.choice("abcd"),
                    "topic": random.choice("vwxyz"),
                },
            )


def learn_from(events: list[LabelledEvent], rules: Rules) -> Backfill:
    """What a backfill of these events learns."""

    def tell(report: Report) -> Iterator[Runs]:
        return replay_events([events], report)

    return learn(tell, 1, rules, WALL)


@dataclass(frozen=True)
class Cycle:
    """Days to learn from, and days to watch after them."""

    seed: int
    symbols: int
    days_before: float
    days_after: float
    rules: Rules

    @cached_property
    def events(self) -> list[LabelledEvent]:
        return stream(cycle(Random(self.seed), self.symbols, self.days_before + self.days_after))

    @property
    def before(self) -> list[LabelledEvent]:
        return [event for event in self.events if event.clock < at(self.days_before * DAY_SECONDS)]

    @property
    def after(self) -> list[LabelledEvent]:
        return self.events[len(self.before) :]

    @cached_property
    def learned(self) -> Backfill:
        return learn_from(self.before, Rules())

    @property
    def keyed_negatives(self) -> int:
        """Of the days that are watched."""
        return sum(KEYS_OF_A_STORY * (event.sentiment.label == "negative") for event in self.after if event.sentiment)

    def alerts_without(self) -> list[AlertEvent]:
        """Those that fire of a detector that has seen the days before."""
        alerts = detect(self.rules, self.events, emitted_at=WALL)
        fired = (life[0] for life in fired_lives(alerts))
        return [alert for alert in fired if alert.detected_at >= self.after[0].clock]

    def alerts_with(self) -> list[AlertEvent]:
        """Those that fire of a detector that starts from the primer."""
        alerts = detect(self.learned.primer.apply(self.rules), self.after, emitted_at=WALL)
        return [life[0] for life in fired_lives(alerts)]
