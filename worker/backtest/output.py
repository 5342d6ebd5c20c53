"""What the command leaves: alerts and trends as data, and a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from schemas.events import AlertEvent
from stacknorm.bundle import Interval
from worker.backtest.parquet import require_polars, write_alerts, write_windows
from worker.backtest.run import Backtest
from worker.backtest.sentences import figure
from worker.errors import Misconfigured
from worker.judging.judge import Judgement
from worker.judging.jumps import MAX_STORIES, Jump
from worker.sinks.terminal import describe_key
from worker.surge.lifecycle import is_volume
from worker.surge.trends import TrendRecord

FORMATS = (".jsonl", ".parquet")
MINUTE = "%Y-%m-%d %H:%M"


def check_out(path: Path) -> None:
    """Whether events can be written there; to be asked before the work, not after it.

    Raises:
        Misconfigured: another ending, no such folder, or polars is missing.
    """
    if path.suffix not in FORMATS:
        raise Misconfigured(f"events are written to {' or '.join(FORMATS)}, not to {path}")
    check_folder(path)
    if path.suffix == ".parquet":
        require_polars(path)


def check_folder(path: Path) -> None:
    """Whether the folder is there.

    Raises:
        Misconfigured: it is not.
    """
    if not path.parent.is_dir():
        raise Misconfigured(f"{path} cannot be written: there is no folder {path.parent}")


def write_out(alerts: Sequence[AlertEvent], path: Path) -> None:
    """Every revision, in order: one AlertEvent a line, or one a row."""
    if path.suffix == ".parquet":
        write_alerts(alerts, path)
    else:
        path.write_bytes(b"".join(alert.to_json() + b"\n" for alert in alerts))


def write_trends(trends: Sequence[TrendRecord], path: Path) -> None:
    """The newest record of each window: one TrendEvent a line, or one a row."""
    if path.suffix == ".parquet":
        write_windows([trend.event for trend in trends], path)
    else:
        path.write_bytes(b"".join(trend.value + b"\n" for trend in trends))


def render_table(found: Backtest) -> Table:
    """The alerts, as they stood at the end."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("key", "kind", "severity", "fired (UTC)", "ended"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for column in ("negative", "expected", "times"):
        table.add_column(column, justify="right")
    for first, last in ((life[0], life[-1]) for life in found.lives):
        ended = "[red]firing[/]" if last.ends_at is None else f"{last.ends_at:{MINUTE}}"
        counts = (str(last.n_negative), figure(last.expected), figure(last.ratio))
        kind = "volume" if is_volume(first.kind) else "surge"
        table.add_row(describe_key(first), kind, str(last.severity), f"{first.detected_at:{MINUTE}}", ended, *counts)
    return table


def render_judgement(found: Judgement) -> Table:
    """What was measured of the detector, beside what its design promises."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("what", "measured", "bar", ""):
        table.add_column(column)
    chance = found.chance
    table.add_row(
        f"false alerts a day, V = {chance.negatives_a_day:,.0f}",
        f"{spell_interval(chance.a_day)}, {chance.alerts} in all",
        f"{chance.budget_a_day:g}, upper end {chance.bar:g}",
        spell_verdict(met=chance.met),
    )
    if (resampled := found.resampled) is not None:
        measured = f"{spell_interval(resampled.a_day)}, {figure(resampled.pace)} negative stories a day"
        table.add_row("alerts a day, archive shuffled", measured, "none", "")
    for jump in found.jumps:
        name = f"{jump.rate_a_day:g} a day, {jump.times:g} times as many"
        table.add_row(
            name, _spell_jump(jump), f"{jump.bar:.1f}, one alert{_spell_chance(jump)}", spell_verdict(met=jump.met)
        )
    same = f"{sum(each.same for each in found.copies)} of {len(found.copies)} streams the same"
    alerts = sum(each.alerts for each in found.copies)
    table.add_row("30 % copies", f"{same}, {alerts} alerts", "all", spell_verdict(met=found.copies_met))
    return table


def spell_interval(found: Interval) -> str:
    """A number with its interval."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def spell_verdict(*, met: bool) -> str:
    """For a terminal."""
    return "[green]met[/]" if met else "[bold red]missed[/]"


def _spell_chance(jump: Jump) -> str:
    return f", {jump.by_chance} more by chance" if jump.by_chance else ""


def _spell_jump(jump: Jump) -> str:
    stories = jump.stories
    of = f"of {len(jump.trials)}"
    again = f", {jump.opened_again} {of} opened a second alert" if jump.opened_again else ""
    missed = f", {jump.missed} {of} had none in {MAX_STORIES}" if jump.missed else ""
    return f"{stories.value:.1f} stories ({stories.low:.1f} to {stories.high:.1f}){again}{missed}"
