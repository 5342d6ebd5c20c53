"""What a backfill says to a person: the week as a picture, and what to set. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from rich.table import Table

from schemas.events import KeyType
from worker.backfill.run import Backfill
from worker.backtest.sentences import count, figure
from worker.settings import Settings
from worker.surge.exposure import HOURS, WHOLE

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BLOCKS = " ▁▂▃▄▅▆▇█"
BUSY, QUIET = 1.25, 0.8
"""From these multiples of the mean on an hour or a day is worth a word."""

NAMES = {
    KeyType.market: "the whole market",
    KeyType.topic: "topics",
    KeyType.entity: "entities",
    KeyType.source: "sources",
    KeyType.watchlist: "watch-lists",
}


def draw_week(weights: Sequence[int]) -> Iterator[str]:
    """A line for each day, a block for each hour; the tallest is the busiest of the week. None of a flat one."""
    if len(set(weights)) == 1:
        return
    most = max(weights)
    yield f"     {'0':<6}{'6':<6}{'12':<6}18    UTC"
    for day, name in enumerate(DAYS):
        row = weights[24 * day : 24 * day + 24]
        yield f"{name}  {''.join(BLOCKS[round(weight / most * (len(BLOCKS) - 1))] for weight in row)}"


def describe_week(weights: Sequence[int]) -> str:
    """Its busy and quiet days and hours in words."""
    if len(set(weights)) == 1:
        return "Every hour of the week is like the others, or there is too little to tell them apart."
    by_day = [sum(weights[24 * day : 24 * day + 24]) / 24 / WHOLE for day in range(7)]
    working = [sum(weights[hour:HOURS:24][:5]) / 5 / WHOLE for hour in range(24)]
    usual = sum(working) / 24
    said = [
        _name_hours("busy on working days", [value / usual >= BUSY for value in working]),
        _name_hours("quiet on working days", [value / usual <= QUIET for value in working]),
        _name_days("busy days", [value >= BUSY for value in by_day]),
        _name_days("quiet days", [value <= QUIET for value in by_day]),
    ]
    found = "; ".join(each for each in said if each)
    top, bottom = max(weights) / WHOLE, min(weights) / WHOLE
    end = f"the busiest hour has {figure(top)} times the news of a mean one, the quietest {figure(bottom)}"
    return f"{found}; {end}." if found else f"{end[0].upper()}{end[1:]}."


def _name_hours(what: str, chosen: Sequence[bool]) -> str:
    hours = [hour for hour in range(24) if chosen[hour]]
    if not hours:
        return ""
    stretches = [[place[1] for place in run] for _, run in groupby(enumerate(hours), lambda place: place[1] - place[0])]
    if len(stretches) > 1 and stretches[0][0] == 0 and stretches[-1][-1] == 23:
        stretches = [*stretches[1:-1], stretches[-1] + stretches[0]]
    return f"{what}: {', '.join(f'{run[0]:02}-{(run[-1] + 1) % 24:02} h' for run in stretches)}"


def _name_days(what: str, chosen: Sequence[bool]) -> str:
    days = [name for name, is_so in zip(DAYS, chosen, strict=True) if is_so]
    return f"{what}: {', '.join(days)}" if days else ""


def render_priors(found: Backfill) -> Table:
    """What is believed of a new key of each type, before and now."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("a new key of")
    for column in ("keys met", "usual a day", "now a day", "shape now"):
        table.add_column(column, justify="right")
    names = found.primer.baselines
    for key_type, words in NAMES.items():
        prior, before = found.primer.priors[key_type], found.rules.priors.of(key_type)
        met = sum(name.startswith(f"{key_type.value}:") for name in names)
        table.add_row(words, f"{met:,}", figure(before.mean_a_day), figure(prior.mean_a_day), f"{prior.a0:.2g}")
    return table


def summarise(found: Backfill) -> Iterator[str]:
    """What was learned of, and what it changes."""
    primer = found.primer
    archive, volume = primer.archive, primer.negatives_a_day
    yield (
        f"{count(len(primer.baselines), 'key', 'keys')} in {archive.days:,.1f} days "
        f"({archive.first:%Y-%m-%d} to {archive.last:%Y-%m-%d}, silences left out), "
        f"labelled by {primer.stack.name} {primer.stack.digest[:12]}."
    )
    yield (
        f"V: {volume.proposed:,.0f} negative stories a day, each counted once for each of its keys "
        f"({volume.low:,.0f} to {volume.high:,.0f}); surge.negatives_a_day is {found.rules.negatives_a_day:,.0f}."
    )
    yield (
        f"The archive itself gives {count(found.alerts_before, 'alert', 'alerts')} without the primer, "
        f"and {found.alerts_after:,} by the week and the priors in it."
    )


def advise(found: Backfill, settings: Settings, path: Path) -> Iterator[str]:
    """What to set next."""
    yield f"surge.primer = {path}"
    if (problem := found.primer.judge_volume(settings.surge.negatives_a_day)) is not None:
        yield problem
