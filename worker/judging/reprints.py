"""Copies: the same stream with three in ten of its stories printed again, and whether its alerts are the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from worker.detector import detect
from worker.judging.jumps import OTHERS, QUIET_DAYS, SYMBOL, calm_symbol
from worker.judging.streams import (
    WALL,
    Arrival,
    draw_story,
    draw_times,
    rules_for_streams,
    time_stories,
    write_arrivals,
)
from worker.lives import fired_lives
from worker.surge.rules import Rules

SHARE = 0.3
WITHIN_MS = 72_000_000
"""After its story; less than a window."""

OTHERS_EVERY_MS = 10_800_000
"""Another company's story comes so often: copies would else end a silence, in which exposure stands still."""

NEGATIVES_A_DAY, SURGE_A_DAY, SURGE_DAYS = 10.0, 200.0, 0.3


@dataclass(frozen=True, slots=True)
class Comparison:
    """Alerts of a stream with a surge, and whether reprints leave key, kind and start of each alone."""

    alerts: int
    same: bool


def compare_copies(rules: Rules, seed: int) -> Comparison:
    """A symbol with a surge, without copies and with them."""
    rules, random = rules_for_streams(rules), Random(f"copies {seed}")
    times = draw_times(random, SURGE_A_DAY, QUIET_DAYS, QUIET_DAYS + SURGE_DAYS)
    timed = [
        *calm_symbol(random, NEGATIVES_A_DAY, QUIET_DAYS + 1),
        *((seconds, draw_story(random, SYMBOL, negative=True)) for seconds in times),
    ]
    arrivals = time_stories(timed, rules.profiles.market)
    clocks = [clock_ms for clock_ms, _ in arrivals]
    arrivals += [
        Arrival(clock_ms, draw_story(random, OTHERS[0], negative=False))
        for clock_ms in range(min(clocks), max(clocks), OTHERS_EVERY_MS)
    ]
    stories = [Arrival(clock_ms, story._replace(title=f"story {n}")) for n, (clock_ms, story) in enumerate(arrivals)]
    reprints = [
        Arrival(ms + random.randint(1000, WITHIN_MS), story) for ms, story in stories if random.random() < SHARE
    ]
    alone, together = _fire(rules, stories), _fire(rules, [*stories, *reprints])
    return Comparison(len(alone), alone == together)


def _fire(rules: Rules, arrivals: Iterable[Arrival]) -> list[tuple[object, ...]]:
    lives = fired_lives(detect(rules, write_arrivals(arrivals), emitted_at=WALL))
    return [(life[0].key, life[0].kind, life[0].starts_at) for life in lives]
