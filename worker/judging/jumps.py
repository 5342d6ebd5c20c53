"""Surges put in: a key's negative stories become many times as many, and how many come until the alert.

Beside it the bare test, simulated at that key's own baseline from the jump on: what the design promises.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from random import Random
from statistics import fmean

from stacknorm.bundle import Interval
from worker.detector import detect
from worker.judging.intervals import mean_interval
from worker.judging.streams import (
    DAY_SECONDS,
    WALL,
    Timed,
    clock_at,
    draw_story,
    draw_times,
    rules_for_streams,
    write_timed,
)
from worker.lives import fired_lives
from worker.surge.rules import Rules
from worker.surge.runs import make_bank
from worker.surge.statistics import RATES, run_statistic

SYMBOL = "symbol:SYM"
OTHERS = tuple(f"symbol:S{number}" for number in range(10))
OTHERS_A_DAY = 24.0
"""Stories of other symbols: a feed is never silent for hours because one company is."""

QUIET_DAYS = 14.0
NEGATIVE_SHARE = 0.25
MAX_STORIES = 120
MAX_DRAWS = 20
BARE_TESTS = 50
BAR = 1.3
"""How many times as many stories as by the bare test an alert may take."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A jump: negative stories until the alert, the same by the bare test, and alerts it opened.

    Both stop at ``MAX_STORIES``, where the stream ends; an alert that has not come then counts as if it came there.
    """

    stories: int
    by_the_test: float
    opened: int


@dataclass(frozen=True, slots=True)
class Jump:
    """Trials of a symbol whose negative stories, so many a day, become so many times as many.

    Chance alone opens ``chance_a_story`` alerts for each: F / V.
    """

    rate_a_day: float
    times: float
    trials: tuple[Trial, ...]
    chance_a_story: float = 0.0

    @property
    def stories(self) -> Interval:
        """The mean of stories until the alert."""
        return mean_interval([trial.stories for trial in self.trials])

    @property
    def by_the_test(self) -> float:
        """The mean of stories that the bare test takes."""
        return fmean(trial.by_the_test for trial in self.trials)

    @property
    def bar(self) -> float:
        """Stories that the alert may take."""
        return BAR * self.by_the_test

    @property
    def missed(self) -> int:
        """Trials in which no alert came."""
        return sum(not trial.opened for trial in self.trials)

    @property
    def opened_again(self) -> int:
        """Trials in which one surge opened more than one alert."""
        return sum(trial.opened > 1 for trial in self.trials)

    @property
    def by_chance(self) -> int:
        """Alerts that chance opens in all trials, beside those of the surges; a part of one is none."""
        return int(len(self.trials) * MAX_STORIES * self.chance_a_story)

    @property
    def met(self) -> bool:
        """Whether alerts come soon enough, and once but for chance."""
        return self.stories.value <= self.bar and self.opened_again <= self.by_chance

    def hours(self, stories: float) -> float:
        """How long so many stories take during the surge."""
        return 24 * stories / (self.rate_a_day * self.times)


def try_jump(rules: Rules, rate_a_day: float, times: float, seed: int) -> Trial:
    """Two calm weeks of one symbol, a quarter of its stories negative, then a jump of the negative ones.

    They are drawn again where an alert that chance opened in them is not over, as long as that is not the rule: the
    surge would be part of it.
    """
    rules, random = rules_for_streams(rules), Random(f"{rate_a_day:g} {times:g} {seed}")
    for _ in range(MAX_DRAWS):
        trial, began_in_an_alert = _try_once(rules, rate_a_day, times, random)
        if not began_in_an_alert:
            break
    return trial


def _try_once(rules: Rules, rate_a_day: float, times: float, random: Random) -> tuple[Trial, bool]:
    profile = rules.profiles.market
    days = MAX_STORIES / (rate_a_day * times)
    timed = [*calm_symbol(random, rate_a_day, QUIET_DAYS + days), *_others(random, QUIET_DAYS + days)]
    more = draw_times(random, rate_a_day * (times - 1), QUIET_DAYS, QUIET_DAYS + days)
    timed += [(seconds, draw_story(random, SYMBOL, negative=True)) for seconds in more]
    alerts = detect(rules, write_timed(timed, profile), emitted_at=WALL, run_out=True)
    lives = [life for life in fired_lives(alerts) if life[0].key == SYMBOL]
    start = clock_at(QUIET_DAYS * DAY_SECONDS, profile)
    began_in_an_alert = any(life[0].starts_at < start <= (life[-1].ends_at or start) for life in lives)
    found = [life[0] for life in lives if life[0].starts_at >= start]
    negatives = sorted(seconds for seconds, story in timed if SYMBOL in story.entities and story.is_negative)
    clocks = [clock_at(seconds, profile) for seconds in negatives]
    stories = sum(start <= clock <= found[0].starts_at for clock in clocks) if found else MAX_STORIES
    baseline = found[0].baseline if found else None
    a, b = (baseline.a, baseline.b) if baseline else _baseline_after(negatives, rules)
    by_the_test = fmean(_bare_test(rules, (a, b), rate_a_day * times, random) for _ in range(BARE_TESTS))
    return Trial(min(stories, MAX_STORIES), by_the_test, len(found)), began_in_an_alert


def calm_symbol(random: Random, rate_a_day: float, days: float) -> Iterator[Timed]:
    """A symbol with so many negative stories a day, a quarter of all."""
    for seconds in draw_times(random, rate_a_day / NEGATIVE_SHARE, 0, days):
        yield seconds, draw_story(random, SYMBOL, negative=random.random() < NEGATIVE_SHARE)


def _others(random: Random, days: float) -> Iterator[Timed]:
    for seconds in draw_times(random, OTHERS_A_DAY, 0, days):
        yield seconds, draw_story(random, random.choice(OTHERS), negative=random.random() < NEGATIVE_SHARE)


def _baseline_after(negatives: Sequence[float], rules: Rules) -> tuple[float, float]:
    """What the calm weeks teach of a symbol, by the rules."""
    prior, half_life_seconds = rules.priors.entity, rules.half_life_days * DAY_SECONDS
    ages = [QUIET_DAYS * DAY_SECONDS - seconds for seconds in negatives if seconds < QUIET_DAYS * DAY_SECONDS]
    days = (1 - 0.5 ** (QUIET_DAYS / rules.half_life_days)) * rules.half_life_days / log(2)
    return prior.a0 + sum(0.5 ** (age / half_life_seconds) for age in ages), prior.b0 + days


def _bare_test(rules: Rules, baseline: tuple[float, float], rate_a_day: float, random: Random) -> int:
    """Stories until one of the charts is at its threshold, of four or more, at rest when the rate jumps."""
    thresholds = make_bank(*rules.stakes(None)).thresholds
    runs = [(0, 0.0) for _ in RATES]
    for count in range(1, MAX_STORIES):
        gap = random.expovariate(rate_a_day)
        for n, (multiple, h) in enumerate(zip(RATES, thresholds, strict=True)):
            y, g = runs[n][0], runs[n][1] + gap
            if not y or run_statistic(y, g, *baseline, multiple) <= 0:
                y, g = 0, 0.0
            runs[n] = y + 1, g
            if y + 1 >= rules.min_clusters and run_statistic(y + 1, g, *baseline, multiple) >= h:
                return count
    return MAX_STORIES
