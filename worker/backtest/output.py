"""What the command leaves: alerts and trends as data, and a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from schemas.events import AlertEvent
from worker.backtest.parquet import require_polars, write_alerts, write_windows
from worker.backtest.run import Backtest
from worker.backtest.sentences import figure
from worker.errors import Misconfigured
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
