"""What a back-test says in plain words. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from schemas.events import AlertEvent, AlertKind, KeyType, ResolveReason
from worker.backtest.run import Backtest
from worker.judging.intervals import count_interval
from worker.sinks.terminal import name_hits, name_key
from worker.surge.lifecycle import is_volume
from worker.surge.rules import Profiles, Rules

KINDS = {
    AlertKind.negative_surge: "surge of bad news",
    AlertKind.negative_volume: "more news, bad among it",
    AlertKind.surge: "surge of what is watched",
    AlertKind.volume: "more news, what is watched among it",
}

_BEYOND_CHANCE = " What fired beyond that is real, or news that comes in bursts."
_BEYOND_CHANCE_WITHOUT_A_WEEK = (
    " What fired beyond that is real, or the daily rhythm of the news, which the baseline does not know: "
    "`stacknorm-worker backfill` learns it."
)


def count(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def figure(value: float) -> str:
    """A small number in two digits, a large one in whole ones."""
    if 0 < value < 0.01:
        return "less than 0.01"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def spell_moment(moment: datetime) -> str:
    """Day and minute, in UTC."""
    return f"{moment:%a} {moment.day} {moment:%b %Y %H:%M}"


def spell_span(start: datetime, end: datetime) -> str:
    """From when to when, the day once where it is one."""
    if start.date() == end.date():
        return f"Between {start:%H:%M} and {end:%H:%M} on {end:%A} {end.day} {end:%B %Y}"
    return f"Between {spell_moment(start)} and {spell_moment(end)}"


def explain_alert(life: Sequence[AlertEvent], rules: Rules) -> Iterator[str]:
    """Why it fired, and how it ended.

    Args:
        life: its revisions since it fired.
        rules: that it was made by.
    """
    first, last = life[0], life[-1]
    yield (
        f"{spell_span(first.first_clock, first.detected_at)}, {_stories(first)} {_about(first)}, where "
        f"{figure(first.expected)} {'was' if first.expected == 1 else 'were'} expected: "
        f"{figure(first.ratio)} times as many."
    )
    copies = f" {count(first.n_copies, 'copy', 'copies')} of them came too and {_were(first.n_copies)} not counted."
    yield f"They came from {count(first.n_sources, 'source', 'sources')}.{copies if first.n_copies else ''}"
    yield _explain_kind(first)
    if first.inhibited_by:
        wider = ", ".join(ref.key for ref in first.inhibited_by)
        yield f"It is part of a wider story, the alert on {wider}, and sinks leave it to that one."
    yield _explain_end(last, rules)


def _stories(alert: AlertEvent) -> str:
    return count(alert.n_negative, f"{name_hits(alert)} story", f"different {name_hits(alert)} stories")


def _about(alert: AlertEvent) -> str:
    return {
        KeyType.entity: f"named {name_key(alert)}",
        KeyType.topic: f"were about {alert.key}",
        KeyType.source: f"came from {alert.key}",
        KeyType.market: "came in from all sources together",
        KeyType.watchlist: f"were about the watch-list {alert.key}",
    }[alert.key_type]


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _explain_kind(alert: AlertEvent) -> str:
    stories = count(alert.n_total, "story", "stories")
    all_of = f"{alert.n_negative} of the {stories} in that time were {name_hits(alert)}"
    if is_volume(alert.kind):
        return f"{all_of}, not clearly a larger share than usual: there was more news, and with it more of these."
    if alert.kind is AlertKind.negative_surge:
        return f"{all_of}, a larger share than usual: the news turned bad, it did not only become more."
    return f"{all_of}, a larger share than usual."


def _explain_end(alert: AlertEvent, rules: Rules) -> str:
    hits = name_hits(alert)
    stories = f"{count(alert.n_negative, f'{hits} story', f'{hits} stories')} in all"
    if alert.ends_at is None:
        return f"It was still firing at the end of the archive, with {stories}."
    flat = rules.profiles == Profiles()
    hours = "hours" if flat else "usual hours (a busy one counts for several)"
    because = {
        ResolveReason.quiet: f"no {hits} story had come for {rules.quiet_hours:g} {hours} or more, a pause "
        "that such a surge does not make while it goes on",
        ResolveReason.withdrawn: "its stories had been corrected or taken back",
        ResolveReason.below_threshold: f"the evidence had faded below {rules.resolve_below:.0%} of the threshold",
        ResolveReason.new_level: f"after {rules.max_frozen_hours:g} hours this much had become the new normal",
        None: "it was resolved",
    }[alert.resolve_reason]
    return f"It ended at {spell_moment(alert.ends_at)}, as {because}; {stories}."


def chance_a_day(found: Backtest) -> float:
    """False alerts a day to expect at this archive's pace of bad news, if the thresholds hold what they promise."""
    return chance_at(found, found.watched_negatives / found.watched_days)


def chance_at(found: Backtest, pace: float) -> float:
    """The same at so many negative stories a day that come evenly, each counted once for each of its keys."""
    return found.rules.budget_a_day * pace / found.rules.negatives_a_day


def alerts_a_day(found: Backtest) -> tuple[float, float, float]:
    """Alerts a day while watching, and its 95 % interval."""
    low, high = count_interval(len(found.lives))
    return len(found.lives) / found.watched_days, low / found.watched_days, high / found.watched_days


def summarise(found: Backtest) -> Iterator[str]:
    """What it comes to, beginning with the most important."""
    rules = found.rules
    if found.watched_from is None or not found.watched_days:
        yield (
            f"Nothing could fire: the detector first learns for {rules.learning_days:g} days of news what is usual, "
            f"and the archive has {_length(found.last - found.first)}."
        )
        return
    rate, low, high = alerts_a_day(found)
    yield (
        f"{count(len(found.lives), 'alert', 'alerts')} in {figure(found.watched_days)} days of watching: "
        f"{figure(rate)} a day (95 % interval {figure(low)} to {figure(high)})."
    )
    pace = found.watched_negatives / found.watched_days
    beyond = _BEYOND_CHANCE_WITHOUT_A_WEEK if rules.profiles == Profiles() else _BEYOND_CHANCE
    yield (
        f"The budget is {rules.budget_a_day:g} false alerts a day where {rules.negatives_a_day:,.0f} negative stories "
        f"a day are counted, each once for each of its keys. Here {figure(pace)} a day were, so chance alone should "
        f"give {figure(chance_a_day(found))} alerts a day.{beyond if low > chance_a_day(found) else ''}"
    )
    if pace > 2 * rules.budget_a_day and not 0.2 < pace / rules.negatives_a_day < 1.5:
        yield (
            f"With surge.negatives_a_day = {float(f'{pace:.1g}'):.0f} the thresholds would be made for this "
            f"pace, and {'more' if pace < rules.negatives_a_day else 'fewer'} alerts would fire."
        )


def _length(length: timedelta) -> str:
    return f"{length / timedelta(days=1):.1f}"


def warn(found: Backtest) -> Iterator[str]:
    """What makes these alerts another thing than live ones."""
    if found.overlap.trained_on:
        yield found.overlap.sentence
    if found.left_out:
        rows = count(len(found.left_out), "row was", "rows were")
        yield f"{rows} left out as no item; the first: {found.left_out[0]}."
    if found.dead:
        yield f"The stack could not label {count(found.dead, 'item', 'items')}; live they would be dead letters."
    if len(found.stacks) > 1:
        names = ", ".join(f"{name} {digest[:12]}" for name, digest in found.stacks)
        yield f"The events were labelled by several stacks ({names}); each new one makes the detector learn anew."
