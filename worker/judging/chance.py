"""Chance: Poisson streams without a surge, and the false alerts on them at the stated V."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from stacknorm.bundle import Interval
from worker.detector import detect
from worker.judging.intervals import scale_count
from worker.judging.streams import (
    DAY_SECONDS,
    KEYS_OF_A_STORY,
    TOPICS,
    WALL,
    Timed,
    clock_at,
    count_hits,
    draw_story,
    draw_times,
    rules_for_streams,
    write_timed,
)
from worker.lives import fired_lives
from worker.surge.rules import Rules

MAX_PACE = 20_000.0
"""Of a stream, in negative stories a day, each counted once for each of its keys. A threshold's run length does not
depend on the pace, so more are counted and not simulated."""

SYMBOLS = 300
NEGATIVE_SHARE = 0.5
"""Fewer of the others are to be simulated."""

BAR = 1.5
"""How far the interval may reach beyond the budget."""


@dataclass(frozen=True, slots=True)
class Chance:
    """False alerts among so many negative stories, each counted once for each of its keys, beside V and F."""

    alerts: int
    keyed_negatives: int
    negatives_a_day: float
    budget_a_day: float

    @property
    def a_day(self) -> Interval:
        """False alerts a day at V: exact, as if they were independent."""
        return scale_count(self.alerts, self.negatives_a_day / max(self.keyed_negatives, 1))

    @property
    def days(self) -> float:
        """How long so many stories would take at V."""
        return self.keyed_negatives / self.negatives_a_day

    @property
    def bar(self) -> float:
        """False alerts a day that the interval must not reach beyond."""
        return BAR * self.budget_a_day

    @property
    def met(self) -> bool:
        """Whether the budget is kept, and this is sure enough."""
        return self.a_day.value <= self.budget_a_day and self.a_day.high <= self.bar


def pace_of(rules: Rules) -> float:
    """Negative stories a day of a stream, each counted once for each of its keys."""
    return min(rules.negatives_a_day, MAX_PACE)


def watch_calm(rules: Rules, days: float, seed: int) -> Chance:
    """A stream without a surge on busy and rare symbols, those of the watch-lists among them."""
    rules = rules_for_streams(rules)
    profile = rules.profiles.market
    events = write_timed(_calm(rules, rules.learning_days + days, Random(f"calm {seed}")), profile)
    alerts = fired_lives(detect(rules, events, emitted_at=WALL))
    since = clock_at(rules.learning_days * DAY_SECONDS, profile)
    watched = (event for event in events if event.clock >= since)
    return Chance(len(alerts), count_hits(watched, rules), rules.negatives_a_day, rules.budget_a_day)


def _calm(rules: Rules, days: float, random: Random) -> Iterator[Timed]:
    watched = dict.fromkeys(name for watchlist in rules.watchlists for name in watchlist.entities)
    topics = dict.fromkeys((*TOPICS, *(name for watchlist in rules.watchlists for name in watchlist.topics)))
    symbols = [*watched, *(f"symbol:S{number}" for number in range(SYMBOLS))]
    weights = list(accumulate(1 / (number + 3) for number in range(len(symbols))))
    for seconds in draw_times(random, pace_of(rules) / KEYS_OF_A_STORY / NEGATIVE_SHARE, 0, days):
        symbol = random.choices(symbols, cum_weights=weights)[0]
        yield seconds, draw_story(random, symbol, negative=random.random() < NEGATIVE_SHARE, topics=tuple(topics))
