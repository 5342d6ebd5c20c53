"""How far alerts can be trusted, in plain words and as numbers to draw. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2

from stacknorm.bundle import Interval
from stacknorm.evaluation.axes import Axis, axis_over
from worker.backtest.run import Backtest
from worker.backtest.sentences import alerts_a_day, chance_at, count, figure
from worker.judging.chance import MAX_PACE
from worker.judging.intervals import scale_count
from worker.judging.judge import Judgement
from worker.judging.jumps import BAR, MAX_STORIES, Jump
from worker.judging.resampling import MIN_DAYS
from worker.surge.keys import NEGATIVE
from worker.surge.rules import Profiles

STORY_TICKS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Rate:
    """Alerts a day of some news."""

    name: str
    found: Interval


@dataclass(frozen=True, slots=True)
class Rates:
    """Alerts a day on one axis, beside marks of what there may be or should be."""

    rows: tuple[Rate, ...]
    marks: tuple[tuple[float, str], ...]
    axis: Axis


@dataclass(frozen=True, slots=True)
class Trust:
    """What the page shows of a judgement."""

    judgement: Judgement
    chance: Rates
    archive: Rates | None
    typical: Jump
    surges: tuple[tuple[float, tuple[Jump, ...]], ...]
    false_alerts: tuple[str, ...]
    speed: tuple[str, ...]
    copies: str
    protocol: tuple[str, ...]


def show_trust(found: Backtest, judgement: Judgement) -> Trust:
    """The judgement of a back-test as it is shown."""
    rates = dict.fromkeys(jump.rate_a_day for jump in judgement.jumps)
    return Trust(
        judgement=judgement,
        chance=_draw_chance(judgement),
        archive=_draw_archive(found, judgement),
        typical=typical_jump(judgement),
        surges=tuple((rate, tuple(jump for jump in judgement.jumps if jump.rate_a_day == rate)) for rate in rates),
        false_alerts=tuple(tell_false_alerts(found, judgement)),
        speed=tuple(tell_speed(judgement)),
        copies=tell_copies(judgement),
        protocol=tuple(tell_protocol(found, judgement)),
    )


def place_stories(stories: float) -> float:
    """Where a number of stories stands between the first and the last tick, each twice the one before."""
    low, high = log2(STORY_TICKS[0]), log2(STORY_TICKS[-1])
    return (log2(max(stories, STORY_TICKS[0])) - low) / (high - low)


def spell_hours(hours: float) -> str:
    """A length of time as one says it."""
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{figure(hours)} h" if hours < 48 else f"{figure(hours / 24)} days"


def _draw_chance(judgement: Judgement) -> Rates:
    chance = judgement.chance
    marks = ((chance.budget_a_day, f"budget {chance.budget_a_day:g}"), (chance.bar, f"bar {chance.bar:g}"))
    return _draw((Rate("made-up news without a surge", chance.a_day),), marks)


def _draw_archive(found: Backtest, judgement: Judgement) -> Rates | None:
    resampled = judgement.resampled
    if resampled is None:
        return None
    expected = chance_at(found, resampled.pace)
    rows = [Rate("shuffled: no real surge is left", resampled.a_day)]
    if found.watched_days:
        rows.append(Rate("as it was", scale_count(len(found.lives), 1 / found.watched_days)))
    return _draw(tuple(rows), ((expected, f"chance alone {figure(expected)}"),))


def _draw(rows: tuple[Rate, ...], marks: tuple[tuple[float, str], ...]) -> Rates:
    places = [Interval(value=place, low=place, high=place) for place, _ in marks]
    return Rates(rows, marks, axis_over([*(row.found for row in rows), *places], from_zero=True))


def tell_false_alerts(found: Backtest, judgement: Judgement) -> Iterator[str]:
    """How often it fires where there is no surge."""
    chance = judgement.chance
    yield (
        f"Made-up news without any surge gave {figure(chance.a_day.value)} alerts a day, all of them false "
        f"({count(chance.alerts, 'alert', 'alerts')} in {figure(chance.days)} days of {chance.negatives_a_day:,.0f} "
        f"negative stories; 95 % interval {_range(chance.a_day)}). {_tell_budget(judgement)}"
    )
    resampled = judgement.resampled
    if resampled is None:
        yield (
            "How often real news fires without a surge is not known from this archive: that takes at least "
            f"{MIN_DAYS} whole days, not silent for most of their hours, to draw from; it has {found.days}."
        )
        return
    yield (
        f"Real news comes in bursts, and made-up news does not. Shuffled until no real surge was left, this archive's "
        f"own news still gave {figure(resampled.a_day.value)} alerts a day ({_range(resampled.a_day)} in 95 % of "
        f"{len(resampled.streams)} shuffles), where {figure(chance_at(found, resampled.pace))} are to be expected if "
        f"its {figure(resampled.pace)} negative stories a day came evenly{_compare_real(found)}. What fires "
        "beyond that tells that much was written, not that the news was worse than usual."
        f"{_blame_rhythm(found)} No bar is set for it."
    )


def _blame_rhythm(found: Backtest) -> str:
    if found.rules.profiles != Profiles():
        return ""
    return (
        " Some of it may be the rhythm of the day and the week, which `stacknorm-worker backfill` teaches the detector."
    )


def _tell_budget(judgement: Judgement) -> str:
    chance = judgement.chance
    if chance.a_day.value > chance.budget_a_day:
        return f"The budget of {chance.budget_a_day:g} a day is not kept."
    if not chance.met:
        return f"The budget of {chance.budget_a_day:g} a day is kept, but up to {chance.bar:g} cannot be made sure of."
    return f"The budget of {chance.budget_a_day:g} a day is kept."


def _compare_real(found: Backtest) -> str:
    return f"; unshuffled it gave {figure(alerts_a_day(found)[0])}" if found.watched_days else ""


def _range(found: Interval) -> str:
    return f"{figure(found.low)} to {figure(found.high)}"


def tell_speed(judgement: Judgement) -> Iterator[str]:
    """How soon it fires where there is a surge."""
    jumps, usual = judgement.jumps, typical_jump(judgement)
    yield (
        f"A company with {usual.rate_a_day:g} negative stories a day had {usual.times:g} times as many all at once: "
        f"the alert came after {figure(usual.stories.value)} of them (95 % interval of the mean "
        f"{_range(usual.stories)}), in {spell_hours(usual.hours(usual.stories.value))}."
    )
    late = [jump for jump in jumps if jump.stories.value > jump.bar]
    if late:
        told = "; ".join(f"{_name(jump)}, {figure(jump.stories.value)} for {figure(jump.by_the_test)}" for jump in late)
        yield (
            f"It took more than {BAR:g} times the stories that the bare test needs here: {told}. A surge that goes on "
            "for long before it is told becomes part of what is usual."
        )
    else:
        yield f"No surge took more than {BAR:g} times the stories that the bare test needs, on average."
    missed = [jump for jump in jumps if jump.missed]
    if missed:
        told = "; ".join(f"{_name(jump)}, {jump.missed} of {len(jump.trials)} surges" for jump in missed)
        yield f"Without an alert within {MAX_STORIES} stories: {told}."
    surges = sum(len(jump.trials) for jump in jumps)
    again, by_chance = sum(jump.opened_again for jump in jumps), sum(jump.by_chance for jump in jumps)
    if again:
        beside = f", where chance opens {count(by_chance, 'alert', 'alerts')} in as many stories" if by_chance else ""
        yield f"Of {surges} surges {again} opened more than one alert{beside}."
    else:
        yield f"None of {surges} surges opened more than one alert."


def typical_jump(judgement: Judgement) -> Jump:
    """The one to speak of first: neither the rarest key nor the busiest, neither the slowest surge nor the fastest."""
    return judgement.jumps[len(judgement.jumps) // 2]


def _name(jump: Jump) -> str:
    return f"{jump.rate_a_day:g} a day, {jump.times:g} times as many"


def tell_copies(judgement: Judgement) -> str:
    """Whether copies change alerts."""
    same, all_of = sum(each.same for each in judgement.copies), len(judgement.copies)
    alerts = count(sum(each.alerts for each in judgement.copies), "alert", "alerts")
    return (
        f"Of {all_of} made-up streams with a surge, {same} had the same alerts on the same keys at the same times once "
        f"three in ten stories were printed again ({alerts} in all)."
    )


def tell_protocol(found: Backtest, judgement: Judgement) -> Iterator[str]:
    """How it was measured."""
    which = "negative" if found.rules.targets == (NEGATIVE,) else "watched for"
    trials = len(judgement.jumps[0].trials)
    yield (
        "Made-up news is drawn from Poisson processes of known rates, and goes through the detector under the settings "
        "of this back-test: V, F, priors and watch-lists."
    )
    if found.rules.negatives_a_day > MAX_PACE:
        yield (
            f"It comes at {MAX_PACE:,.0f} negative stories a day, and its false alerts are counted up to "
            f"{found.rules.negatives_a_day:,.0f}: how many stories lie between two of them does not depend on the pace."
        )
    yield (
        f"A surge follows two calm weeks of a company whose news is negative one time in four; {trials} are tried of "
        f"each kind. The bare test is simulated at the baseline the company had by then. Both are stopped after "
        f"{MAX_STORIES} stories, which then count as if the alert had come there."
    )
    if judgement.resampled is not None:
        yield (
            "A shuffle gives each date all stories of a whole UTC day of the archive that is the same day of the week, "
            f"drawn with replacement from {found.days}, and then deals out anew, over all dates, which stories are "
            f"{which} (a block bootstrap). Copies are folded first: no copy is ever counted, and a day that is drawn "
            "twice in a row would else be a copy of itself."
        )
    yield "Chance is drawn from fixed seeds: the same archive and settings give the same numbers."
