"""`stacknorm-worker backtest`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from stacknorm.progress import Report, draw_on
from worker.console import err, out, read_settings, read_time
from worker.errors import Misconfigured

if TYPE_CHECKING:
    from worker.backtest.run import Backtest

PUBLISHED = "published_at"

Files = Annotated[
    list[Path],
    typer.Argument(
        help="News items (.jsonl, .csv, .parquet) or labelled events (.jsonl).", exists=True, dir_okay=False
    ),
]
Start = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Leave out what is before it.")]
End = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Leave out what is at or after it.")]
Time = Annotated[str, typer.Option(metavar="COLUMN", help="When an item was known.")]
Zone = Annotated[str | None, typer.Option(metavar="NAME", help="Of times that name none: UTC, America/New_York.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that are no items.")]
Cache = Annotated[Path | None, typer.Option(help="Keep labels in this folder.")]


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """As text."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


def backtest(
    context: typer.Context,
    files: Files,
    *,
    start: Start = None,
    end: End = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Every revision of every alert: .jsonl or .parquet.")
    ] = None,
    trends: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Every window of every key: .jsonl or .parquet.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="One page with pictures and words, which loads nothing.")] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Tell how far the alerts can be trusted; some minutes.")
    ] = False,
    time: Time = PUBLISHED,
    zone: Zone = None,
    skip_bad: SkipBad = False,
    cache: Cache = None,
) -> None:
    """Show which alerts old news would have given, and why. Needs no Kafka.

    The same labels, merge and detector as live: the alerts are those of `feed jsonl` into new topics with
    idle_clock = "data". Labels are kept on disk, so a second run is quick. What it cannot tell: docs/backtest.md.

    With --judge it also tells how often chance or bursts alone fire under your settings, and how soon a surge is told.

    Example:  stacknorm-worker backtest 2025.jsonl --from 2025-06-01 --out alerts.jsonl --html report.html
    """
    from worker.backtest.archive import Selection
    from worker.backtest.output import check_folder, check_out, write_out, write_trends
    from worker.backtest.page import render_backtest
    from worker.backtest.run import run_backtest
    from worker.judging.judge import Plan

    settings = read_settings(context)
    selection = Selection(read_moment("--from", start), read_moment("--to", end), time, read_zone(zone), skip_bad)
    for data_file in filter(None, (out_file, trends)):
        check_out(data_file)
    if html is not None:
        check_folder(html)
    with open_progress() as report:
        found = run_backtest(
            files,
            settings,
            selection=selection,
            cache=cache,
            trends=trends is not None,
            judging=Plan() if judge else None,
            processes=os.cpu_count() or 1,
            report=report,
        )
    _show(found)
    if out_file is not None:
        write_out(found.alerts, out_file)
        out.print(f"wrote {out_file}", highlight=False, soft_wrap=True)
    if trends is not None:
        write_trends(found.trends, trends)
        out.print(f"wrote {trends}", highlight=False, soft_wrap=True)
    if html is not None:
        html.write_text(render_backtest(found), encoding="utf-8")
        out.print(f"wrote {html}", highlight=False, soft_wrap=True)


def _show(found: "Backtest") -> None:
    from worker.backtest.output import render_judgement, render_table
    from worker.backtest.sentences import summarise, warn

    if (labelling := found.labelling) is not None:
        err.print(f"{labelling.asked:,} texts labelled; labels are kept in {labelling.kept_in}", soft_wrap=True)
    for sentence in warn(found):
        err.print(f"[bold yellow]note:[/] {sentence}", highlight=False, soft_wrap=True)
    if found.alerts:
        out.print(render_table(found))
    for sentence in summarise(found):
        out.print(sentence, highlight=False, soft_wrap=True)
    if found.judgement is not None:
        out.print(render_judgement(found.judgement))


@contextmanager
def open_progress() -> Iterator[Report]:
    """A report that draws bars on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        yield draw_on(progress)


def read_moment(option: str, given: str | None) -> datetime | None:
    """A day or an instant, in UTC where it names no zone."""
    if given is None:
        return None
    try:
        return read_time(given)
    except ValueError as error:
        raise Misconfigured(f"{option} {given} is no time; write 2026-03-02 or 2026-03-02T09:30:00Z") from error


def read_zone(name: str | None) -> ZoneInfo | None:
    """The zone of `--zone`."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise Misconfigured(
            f"--zone {name} is not known here; write UTC, or a name such as America/New_York"
        ) from error
