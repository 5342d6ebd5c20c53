"""Copies: the same stream with three in ten of its stories printed again, and whether its alerts are the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from worker.detector import detect
from worker.judging.jumps import QUIET_DAYS, SYMBOL, calm_symbol
from worker.judging.streams import WALL, Timed, draw_story, draw_times, rules_for_streams, write_timed
from worker.lives import fired_lives
from worker.surge.rules import Rules

SHARE = 0.3
WITHIN_SECONDS = 72_000
"""After its story; less than a window."""

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
    timed = [(seconds, story._replace(title=f"story {number}")) for number, (seconds, story) in enumerate(timed)]
    reprints = [(s + random.uniform(1, WITHIN_SECONDS), story) for s, story in timed if random.random() < SHARE]
    alone, together = _fire(rules, timed), _fire(rules, [*timed, *reprints])
    return Comparison(len(alone), alone == together)


def _fire(rules: Rules, timed: Iterable[Timed]) -> list[tuple[object, ...]]:
    events = write_timed(timed, rules.profiles.market)
    lives = fired_lives(detect(rules, events, emitted_at=WALL))
    return [(life[0].key, life[0].kind, life[0].starts_at) for life in lives]
