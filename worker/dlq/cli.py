"""`stacknorm-worker dlq`: what lies in the dead-letter topic, why, and sending it again."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import orjson
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from worker.console import err, out, read_settings_of_a_running_system, read_time
from worker.dlq.letters import Letter, Selection, describe, describe_whole, parse_condition
from worker.dlq.redrive import RedriveRules, Tally, redrive
from worker.dlq.tables import Survey, render_letter, render_survey, render_tally
from worker.errors import Misconfigured, Retriable, WorkerError

if TYPE_CHECKING:
    from worker.dlq.reading import DeadLog

dlq_app = typer.Typer(
    help="Dead letters: see why records failed, send them again, hand them on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="FIELD=WHOLE or FIELD~PART, of kind, topic, partition, offset, reason. Give more: of each field one holds."
    ),
]
Since = Annotated[str | None, typer.Option(help="Failed at or after this time, such as 2026-03-05T08:30Z.")]
Until = Annotated[str | None, typer.Option(help="Failed before this time. Without a zone it is UTC.")]


def _select(where: list[str] | None, since: str | None, until: str | None) -> Selection:
    try:
        times = (None if text is None else read_time(text) for text in (since, until))
        return Selection(tuple(parse_condition(each) for each in where or ()), *times)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


async def _watch(log: "DeadLog", what: str) -> AsyncIterator[Letter]:
    """The letters, with a bar on standard error where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=log.end - log.first)
        async for letter in log.letters():
            progress.update(task, completed=letter.offset - log.first)
            yield letter


def _tell_foreign(log: "DeadLog") -> None:
    if log.foreign:
        err.print(
            f"{log.foreign} records on {log.place.topic} are no dead letters, and are passed over",
            style="yellow",
            highlight=False,
        )


@dlq_app.command("list")
def list_letters(
    context: typer.Context,
    *,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    newest: Annotated[int, typer.Option(min=0, help="How many of the newest letters are shown.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Count letters by kind and topic, and show the newest."""
    from worker.dlq.reading import open_dead_log

    selection = _select(where, since, until)

    async def look() -> Survey:
        async with open_dead_log(await read_settings_of_a_running_system(context)) as log:
            survey = Survey(await log.read_notes(), newest=deque(maxlen=newest))
            async for letter in _watch(log, "reading dead letters"):
                if selection.holds(letter):
                    survey.add(letter)
            _tell_foreign(log)
            return survey

    survey = asyncio.run(look())
    if as_json:
        letters = [describe(letter, survey.notes.get(letter.identity)) for letter in survey.newest]
        print(orjson.dumps({"counts": survey.describe_counts(), "newest": letters}).decode())  # noqa: T201 -- the output
    else:
        out.print(render_survey(survey))


@dlq_app.command()
def show(
    context: typer.Context,
    coordinates: Annotated[str, typer.Argument(help="Of the raw record, as in `list`: TOPIC-PARTITION-OFFSET.")],
) -> None:
    """Show a letter whole: the record, and why it failed."""
    from worker.dlq.reading import open_dead_log

    async def find() -> bool:
        async with open_dead_log(await read_settings_of_a_running_system(context)) as log:
            notes = await log.read_notes()
            found = [letter async for letter in log.letters() if letter.coordinates == coordinates]
            for letter in found:
                out.print(render_letter(letter, notes.get(letter.identity)))
            _tell_foreign(log)
            return bool(found)

    if not asyncio.run(find()):
        raise WorkerError(f"no dead letter of {coordinates}; `stacknorm-worker dlq list` shows which there are")


@dlq_app.command("redrive")
def redrive_letters(
    context: typer.Context,
    *,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    max_letters: Annotated[int | None, typer.Option("--max", min=1, help="Send at most so many.")] = None,
    max_times: Annotated[
        int, typer.Option(min=1, help="Refuse a record that was sent again so often already, and failed again.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Send letters to their raw topic and partition again, as new records at its end.

    Key, value and headers are the original ones, and a header stacknorm-redriven counts how often. The timestamp is the
    original one too: the item was known then, and the clock of a partition never falls. No letter goes twice, however
    often this is run and wherever it is interrupted. Exit status 1 if letters that are meant were refused: redriven
    too often, kept without their value, or older than the raw topic keeps records.
    """
    selection, tally = _select(where, since, until), Tally()

    async def send() -> RedriveRules:
        return await _redrive(context, selection, tally, max_times=max_times, max_letters=max_letters, dry_run=dry_run)

    rules = asyncio.run(send())
    out.print(render_tally(tally, rules, dry_run=dry_run))
    raise typer.Exit(1 if tally.refused else 0)


async def _redrive(
    context: typer.Context,
    selection: Selection,
    tally: Tally,
    *,
    max_times: int,
    max_letters: int | None,
    dry_run: bool,
) -> RedriveRules:
    from worker.dlq.reading import open_dead_log
    from worker.dlq.sending import open_delivery, read_rules

    settings, now = await read_settings_of_a_running_system(context), datetime.now(UTC)
    rules = await read_rules(settings, max_times, now)
    async with open_delivery(settings, dry_run=dry_run) as deliver, open_dead_log(settings, whole=not dry_run) as log:
        redriven = set(await log.read_notes())
        letters = _watch(log, "redriving")
        try:
            await redrive(
                letters, redriven, selection, rules, deliver=deliver, tally=tally, now=now, max_letters=max_letters
            )
        except WorkerError as error:
            out.print(render_tally(tally, rules, dry_run=dry_run))
            raise Retriable(f"{error}. Run the same again: no letter is sent twice") from error
        _tell_foreign(log)
    return rules


@dlq_app.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A new file of JSON lines, or - for standard output.", dir_okay=False)],
    *,
    where: Where = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write letters whole, one JSON object a line: bytes as text where they are UTF-8, and in base64."""
    from worker.dlq.reading import open_dead_log

    selection = _select(where, since, until)

    async def write(into: BinaryIO) -> int:
        written = 0
        async with open_dead_log(await read_settings_of_a_running_system(context)) as log:
            notes = await log.read_notes()
            async for letter in _watch(log, "exporting"):
                if selection.holds(letter):
                    into.write(orjson.dumps(describe_whole(letter, notes.get(letter.identity))) + b"\n")
                    written += 1
            _tell_foreign(log)
        return written

    if str(file) == "-":
        asyncio.run(write(sys.stdout.buffer))
        return
    try:
        with file.open("xb") as into:
            written = asyncio.run(write(into))
    except OSError as error:
        raise Misconfigured(f"cannot write {file}: {error.strerror}") from error
    err.print(f"wrote {written} letters to {file}", highlight=False)
