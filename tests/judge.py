"""`python -m tests.judge`: the detector on streams whose truth is known, beside what its design promises.

Chance: Poisson streams without a surge; false alerts a day at the stated V, with an exact interval, against the budget.
Speed: a key's rate jumps; stories until the alert, beside a bare simulation of the test at that key's own baseline.
Copies: 30 % reprints; the same alerts. Once: alerts that one surge opened on its key.
Daily cycle: 80 % more by day and less by night; false alerts a day with a primer of the weeks before, and without.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from random import Random
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from schemas.events import AlertEvent, LabelledEvent
from tests.daily_cycle import Cycle
from tests.surge_streams import DAY_SECONDS, WALL, arrivals, at, stream
from worker.backtest.poisson import count_interval
from worker.detector import detect
from worker.lives import fired_lives
from worker.surge.rules import Rules
from worker.surge.runs import make_bank
from worker.surge.statistics import RATES, run_statistic

RULES = Rules()
THRESHOLDS = make_bank(*RULES.stakes(None)).thresholds
SOURCES = ("a", "b", "c", "d")
TOPICS = "vwxyz"
KEYS_OF_A_STORY = 4
LEARNING_DAYS = 3.1
QUIET_DAYS = 14.0
SYMBOL = "SYM"
MAX_STORIES = 120
BAR_CHANCE, BAR_SPEED = 1.5, 1.3

Item = tuple[float, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated: days without surges in each of some streams, and trials of each jump."""

    streams: int
    days: float
    trials: int
    rates: Sequence[float]
    jumps: Sequence[float]
    cycle_days: float


FULL = Plan(streams=8, days=5.0, trials=20, rates=(1, 10, 100), jumps=(4, 8, 16, 50), cycle_days=14)
QUICK = Plan(streams=1, days=0.5, trials=2, rates=(10,), jumps=(8, 50), cycle_days=5)


@dataclass(frozen=True, slots=True)
class Chance:
    """False alerts among so many negative stories, each counted once for each of its keys."""

    alerts: int
    keyed_negatives: int

    def a_day(self, alerts: float) -> float:
        """At the V of the rules."""
        return alerts / self.keyed_negatives * RULES.negatives_a_day

    @property
    def interval(self) -> tuple[float, float]:
        """False alerts a day: 95 %, exact, as if they were independent."""
        low, high = count_interval(self.alerts)
        return self.a_day(low), self.a_day(high)


@dataclass(frozen=True, slots=True)
class Trial:
    """A jump: negative stories until the alert, the same by the bare test, and alerts it opened.

    Both stop at ``MAX_STORIES``, where the stream ends; an alert that has not come then counts as if it came there.
    """

    stories: int
    by_the_test: float
    opened: int


# Chance


def measure_chance(plan: Plan) -> Chance:
    """Streams at the stated V on 300 symbols, busy and rare ones."""
    alerts = negatives = 0
    for seed in range(plan.streams):
        events = stream(_calm(Random(seed), LEARNING_DAYS + plan.days))
        since = at(3 * DAY_SECONDS)
        alerts += len(fired_lives(detect(RULES, events, emitted_at=WALL)))
        negatives += sum(_is_negative(event) for event in events if event.clock >= since)
    return Chance(alerts, negatives * KEYS_OF_A_STORY)


def _calm(random: Random, days: float) -> Iterator[Item]:
    """Half of the stories are negative: fewer of the others are to be simulated."""
    rate = 2 * RULES.negatives_a_day / KEYS_OF_A_STORY
    symbols = [f"S{number}" for number in range(300)]
    weights = [1 / (number + 3) for number in range(300)]
    for seconds in arrivals(random, rate, 0, days):
        yield seconds, _story(random, random.choices(symbols, weights)[0], negative=random.random() < 0.5)


def _story(random: Random, symbol: str, *, negative: bool) -> dict[str, Any]:
    topic, source = random.choice(TOPICS), random.choice(SOURCES)
    return {"negative": negative, "symbols": (symbol,), "source": source, "topic": topic}


def _is_negative(event: LabelledEvent) -> bool:
    return event.sentiment is not None and event.sentiment.label == "negative"


# Jumps


def try_jump(rate_a_day: float, jump: float, random: Random) -> Trial:
    """Two calm weeks of one symbol, a quarter of its stories negative, then a jump of the negative ones."""
    start, days = QUIET_DAYS * DAY_SECONDS, MAX_STORIES / (rate_a_day * jump)
    items = list(_calm_symbol(random, rate_a_day, QUIET_DAYS + days))
    more = arrivals(random, rate_a_day * (jump - 1), QUIET_DAYS, QUIET_DAYS + days)
    items += [(seconds, _story(random, SYMBOL, negative=True)) for seconds in more]
    alerts = _opened(detect(RULES, stream(items), emitted_at=WALL, run_out=True))
    found = [alert for alert in alerts if alert.starts_at >= at(start)]
    negatives = sorted(seconds for seconds, story in items if story["negative"])
    stories = sum(at(start) <= at(seconds) <= found[0].starts_at for seconds in negatives) if found else MAX_STORIES
    baseline = found[0].baseline if found else None
    a, b = (baseline.a, baseline.b) if baseline else _baseline_before([s for s in negatives if s < start])
    by_the_test = fmean(_bare_test(a, b, rate_a_day * jump, random) for _ in range(50))
    return Trial(min(stories, MAX_STORIES), by_the_test, len(found))


def _baseline_before(negatives: Sequence[float]) -> tuple[float, float]:
    """What two calm weeks teach of a symbol, by the rules."""
    prior, half_life_seconds = RULES.priors.entity, RULES.half_life_days * DAY_SECONDS
    kept = sum(0.5 ** ((QUIET_DAYS * DAY_SECONDS - seconds) / half_life_seconds) for seconds in negatives)
    days = (1 - 0.5 ** (QUIET_DAYS / RULES.half_life_days)) * RULES.half_life_days / log(2)
    return prior.a0 + kept, prior.b0 + days


def _calm_symbol(random: Random, rate_a_day: float, days: float) -> Iterator[Item]:
    for seconds in arrivals(random, 4 * rate_a_day, 0, days):
        yield seconds, _story(random, SYMBOL, negative=random.random() < 0.25)


def _opened(alerts: Sequence[AlertEvent]) -> list[AlertEvent]:
    """The revision with which each alert on the symbol fired."""
    return [life[0] for life in fired_lives(alerts) if life[0].key == f"symbol:{SYMBOL}"]


def _bare_test(a: float, b: float, rate_a_day: float, random: Random) -> int:
    """Stories until one of the charts is at its threshold, of four or more, at rest when the rate jumps."""
    runs = [[0, 0.0] for _ in RATES]
    for count in range(1, MAX_STORIES):
        gap = random.expovariate(rate_a_day)
        for run, multiple, h in zip(runs, RATES, THRESHOLDS, strict=True):
            run[1] += gap
            if not run[0] or run_statistic(int(run[0]), run[1], a, b, multiple) <= 0:
                run[:] = [0, 0.0]
            run[0] += 1
            if run[0] >= RULES.min_clusters and run_statistic(int(run[0]), run[1], a, b, multiple) >= h:
                return count
    return MAX_STORIES


# Copies


def _detect(items: Iterable[Item]) -> list[AlertEvent]:
    return detect(RULES, stream(items), emitted_at=WALL)


def compare_copies(seed: int) -> tuple[int, bool]:
    """Alerts of a stream with a surge, and whether 30 % reprints within a day leave key, kind and start alone."""
    random = Random(seed)
    items = list(_calm_symbol(random, 10, QUIET_DAYS + 1))
    items += [(s, _story(random, SYMBOL, negative=True)) for s in arrivals(random, 200, QUIET_DAYS, QUIET_DAYS + 0.3)]
    items = [(seconds, {**story, "title": f"story {number}"}) for number, (seconds, story) in enumerate(items)]
    copied = [*items, *((s + random.uniform(1, 72_000), story) for s, story in items if random.random() < 0.3)]
    alone, together = (
        [(life[0].key, life[0].kind, life[0].starts_at) for life in fired_lives(_detect(each))]
        for each in (items, copied)
    )
    return len(alone), alone == together


# Daily cycle


def measure_cycle(plan: Plan) -> tuple[Chance, Chance]:
    """With a primer, and without one: the same days of 20 symbols with 20 negative stories a day."""
    alerts_with = alerts_without = negatives = 0
    for seed in range(max(1, plan.streams // 2)):
        cycle = Cycle(seed, symbols=20, days_before=21, days_after=plan.cycle_days, rules=RULES)
        alerts_with += len(cycle.alerts_with())
        alerts_without += len(cycle.alerts_without())
        negatives += cycle.keyed_negatives
    return Chance(alerts_with, negatives), Chance(alerts_without, negatives)


# All of it


def judge(plan: Plan) -> tuple[Table, bool]:
    """The table, and whether every bar is met."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("what", "measured", "bar", ""):
        table.add_column(column)
    verdicts: list[bool] = []

    def add(what: str, measured: str, bar: str, met: bool) -> None:
        verdicts.append(met)
        table.add_row(what, measured, bar, "[green]met[/]" if met else "[bold red]missed[/]")

    chance = measure_chance(plan)
    low, high = chance.interval
    add(
        f"false alerts a day, at {RULES.negatives_a_day:,.0f} negative stories a day",
        f"{chance.a_day(chance.alerts):.2f} ({low:.2f} to {high:.2f}), {chance.alerts} in all",
        f"{RULES.budget_a_day:g}, upper end {BAR_CHANCE * RULES.budget_a_day:g}",
        chance.a_day(chance.alerts) <= RULES.budget_a_day and high <= BAR_CHANCE * RULES.budget_a_day,
    )
    primed, flat = measure_cycle(plan)
    add(
        "daily cycle of 80 %, with a primer",
        f"{primed.a_day(primed.alerts):.2f} ({primed.interval[0]:.2f} to {primed.interval[1]:.2f}), "
        f"{primed.alerts} in all; without {flat.a_day(flat.alerts):.1f}, {flat.alerts}",
        f"{RULES.budget_a_day:g}",
        primed.a_day(primed.alerts) <= RULES.budget_a_day < flat.interval[0],
    )
    for rate in plan.rates:
        for jump in plan.jumps:
            trials = [try_jump(rate, jump, Random(f"{rate} {jump} {seed}")) for seed in range(plan.trials)]
            add(f"{rate:g} a day, {jump:g} times as many", *spell_trials(trials))
    same = [compare_copies(seed) for seed in range(plan.trials)]
    add(
        "30 % copies",
        f"{sum(equal for _, equal in same)} of {len(same)} streams the same, {sum(count for count, _ in same)} alerts",
        "all",
        all(equal for _, equal in same) and any(count for count, _ in same),
    )
    return table, all(verdicts)


def spell_trials(trials: Sequence[Trial]) -> tuple[str, str, bool]:
    """Measured, bar, and whether it is met."""
    stories, by_the_test = fmean(trial.stories for trial in trials), fmean(trial.by_the_test for trial in trials)
    bar = BAR_SPEED * by_the_test
    once = max(trial.opened for trial in trials)
    missed = sum(not trial.opened for trial in trials)
    none = f", {missed} of {len(trials)} had none in {MAX_STORIES} stories" if missed else ""
    measured = f"{stories:.1f} stories to the alert, at most {once} alert{'s' if once != 1 else ''} a surge{none}"
    return measured, f"{bar:.1f}, one alert", stories <= bar and once <= 1


def main() -> None:
    """Print the table; exit status 1 where a bar is missed."""
    table, met = judge(QUICK if "--quick" in sys.argv[1:] else FULL)
    Console(width=140).print(table)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
