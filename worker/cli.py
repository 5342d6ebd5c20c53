"""`stacknorm-worker`: the composition root. Reads settings, builds the parts, runs them, and says what went wrong."""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stacknorm.errors import StacknormError
from worker.acls import MEANINGS, Duty, list_grants, render_commands, render_table
from worker.alerts.cli import alerts_app
from worker.backtest.cli import backtest
from worker.console import err, out, read_settings, read_settings_of_a_running_system
from worker.dlq.cli import dlq_app
from worker.errors import Misconfigured, WorkerError
from worker.notify.cli import notify
from worker.records import OutRecord
from worker.replay.cli import replay
from worker.settings import describe_settings

HELP = """Financial text in on Kafka; sentiment, topics, and alerts on surges of bad news out, exactly once.

Try [bold]stacknorm-worker demo[/] first: it brings its own broker and its own news.
Every setting can stand in a TOML file (--settings) or in the environment; [bold]settings[/] lists them.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)
topics_app = typer.Typer(help="Make the topics as they must be, or show how they are.", no_args_is_help=True)
feed_app = typer.Typer(help="Send news to the raw topic.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(feed_app, name="feed")
app.add_typer(dlq_app, name="dlq")
app.add_typer(alerts_app, name="alerts")
app.command()(backtest)
app.command()(replay)
app.command()(notify)


class Role(StrEnum):
    """What a worker may do alone."""

    labeller = "labeller"
    detector = "detector"


def main() -> None:
    """Run a command; what we know ends in one message and exit status 1, or 2 where a person must change something."""
    try:
        app()
    except (WorkerError, StacknormError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, Misconfigured) else 1)


@app.callback()
def prepare(
    context: typer.Context,
    settings: Annotated[Path | None, typer.Option("--settings", "-s", help="A TOML file of settings.")] = None,
) -> None:
    """Remember the settings file; each command reads it when it needs it."""
    context.obj = settings


@app.command()
def run(
    context: typer.Context,
    only: Annotated[Role | None, typer.Option(help="Run one of the two; both without it.")] = None,
) -> None:
    """Run the worker until SIGTERM or Ctrl-C: label what comes, and watch for surges.

    Scale out by starting more of them; Kafka shares out the partitions. Logs go to standard error.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the loop drains: importing torch takes seconds
    from worker.service import serve

    asyncio.run(serve(read_settings(context), labeller=only is not Role.detector, detector=only is not Role.labeller))


@app.command()
def check(
    context: typer.Context,
    bundle: Annotated[bool, typer.Option(help="Load the bundle too, which takes a few seconds.")] = True,
) -> None:
    """Look at settings, broker, topics and bundle before a start; exit status 2 if anything is wrong."""
    from worker.check import check_bundle, check_state, check_topics

    settings = read_settings(context)

    async def look() -> int:
        problems = 0
        findings = [finding async for finding in check_topics(settings)]
        if all(finding.problem is None for finding in findings):
            findings.append(await check_state(settings))
        findings += [check_bundle(settings)] if bundle else []
        for finding in findings:
            problems += finding.problem is not None
            mark = "[green]ok[/]   " if finding.problem is None else "[bold red]wrong[/]"
            out.print(f"{mark} {finding.subject}: {finding.detail}", highlight=False)
            if finding.problem:
                out.print(f"      {finding.problem}", highlight=False, soft_wrap=True)
        return problems

    raise typer.Exit(2 if asyncio.run(look()) else 0)


@app.command()
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look, for scripts.")] = False,
    watch: Annotated[float | None, typer.Option(min=0.1, help="Look again after so many seconds, for ever.")] = None,
) -> None:
    """Show who owns which partition, how far behind it is in records and seconds, and where the detector stands.

    Behind what can be read now: records of an open transaction do not count before it ends.
    """
    import orjson

    from worker.status import Status, describe_status, read_status, render_status

    def show(status: Status) -> None:
        if as_json:
            print(orjson.dumps(describe_status(status)).decode(), flush=True)  # noqa: T201 -- the output of this command
            return
        if watch is not None:
            out.clear()
        out.print(render_status(status))

    async def look() -> None:
        settings = await read_settings_of_a_running_system(context)
        show(await read_status(settings, datetime.now(UTC)))
        while watch is not None:
            await asyncio.sleep(watch)
            show(await read_status(settings, datetime.now(UTC)))

    asyncio.run(look())


@app.command()
def tail(
    context: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Show what is firing now, and end.")] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="From the oldest record on, not from now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line, for pipes.")] = False,
    alerts_only: Annotated[bool, typer.Option("--alerts", help="Alerts alone.")] = False,
) -> None:
    """Follow labels and alerts as they are committed."""
    from schemas.events import AlertEvent, LabelledEvent
    from worker.runner.tasks import stop_on_signals
    from worker.sinks.tail import decode_output, follow, output_places, read_active
    from worker.sinks.terminal import is_worth_a_line, render_alert, render_label

    def show(event: LabelledEvent | AlertEvent) -> None:
        if as_json:
            print(event.to_json().decode(), flush=True)  # noqa: T201 -- the output of this command
        elif not isinstance(event, AlertEvent):
            out.print(render_label(event), no_wrap=True, overflow="ellipsis")
        elif active or is_worth_a_line(event):
            out.print(render_alert(event, whole=active))

    async def follow_all() -> None:
        settings = await read_settings_of_a_running_system(context)
        stop = stop_on_signals()
        places = output_places(settings, labels=not alerts_only)
        async for record in follow(settings, places, from_start=from_start, stop=stop):
            show(decode_output(settings, record))

    async def show_active() -> None:
        firing = await read_active(await read_settings_of_a_running_system(context))
        for alert in firing:
            show(alert)
        if not firing and not as_json:
            out.print("nothing is firing", style="green")

    asyncio.run(show_active() if active else follow_all())


@feed_app.command("jsonl")
def feed_jsonl(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="One NewsItem a line.", exists=True, dir_okay=False)],
    speed: Annotated[
        float | None, typer.Option(min=0, help="Seconds of the archive in a second; as fast as possible without it.")
    ] = None,
) -> None:
    """Send an archive of news.

    With idle_clock = "data" records carry published_at as their time, and heartbeats to every partition move the
    clocks along; with "wall" they carry the time of sending. The whole file is read before anything is sent.
    """
    from worker.feeds.jsonl import open_feed, read_archive, replay, stamp

    settings = read_settings(context)
    lines = read_archive(file, in_order=settings.idle_clock == "data")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    async def send() -> None:
        async with open_feed(settings) as write:
            with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
                task = progress.add_task(f"feeding {file.name}", total=len(lines))

                def written(records: list[OutRecord]) -> None:
                    progress.advance(task, sum(record.value is not None for record in records))

                await replay(stamp(lines, settings), speed, write, written)

    asyncio.run(send())
    err.print(f"fed {len(lines)} items to {settings.topic_names.raw}")


@topics_app.command("create")
def create(context: typer.Context) -> None:
    """Make the topics that do not exist yet; existing ones are left as they are."""
    from worker.kafka.admin import create_topics

    settings = read_settings(context)
    created = asyncio.run(create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor))
    for spec in settings.topic_specs:
        out.print(f"{'created' if spec.name in created else 'exists '}  {spec.name}", highlight=False)


@topics_app.command("describe")
def describe(context: typer.Context) -> None:
    """Show the topics as they are, and what differs from how they must be."""
    from worker.kafka.admin import describe_topics
    from worker.topics import describe_retention, find_differences

    settings = read_settings(context)
    found = asyncio.run(describe_topics(settings.kafka, [spec.name for spec in settings.topic_specs]))
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("topic", "partitions", "copies", "cleanup", "kept"):
        table.add_column(column)
    for state in (found[spec.name] for spec in settings.topic_specs if spec.name in found):
        cleanup, kept = state.config.get("cleanup.policy", ""), describe_retention(state)
        table.add_row(state.name, str(state.partitions), str(state.replication_factor), cleanup, kept)
    out.print(table)
    for spec in settings.topic_specs:
        for problem in find_differences(spec, found.get(spec.name)):
            out.print(f"[bold red]wrong[/] {problem}", highlight=False, soft_wrap=True)


@app.command("settings")
def show_settings(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the table in the README.")] = False,
) -> None:
    """List every setting with its default, and check those that are given."""
    read_settings(context)
    if markdown:
        print(render_settings())  # noqa: T201 -- the output of this command
        return
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("setting", "default", "meaning"):
        table.add_column(column)
    for setting in describe_settings():
        table.add_row(setting.name, setting.default, setting.meaning)
    out.print(table)


@app.command()
def acls(
    context: typer.Context,
    duty: Annotated[Duty | None, typer.Argument(help="What the principal does.", show_default=False)] = None,
    principal: Annotated[str, typer.Option(help="Who does it, as the broker names it.")] = "User:NAME",
    markdown: Annotated[bool, typer.Option("--markdown", help="All duties, as the table in docs/security.md.")] = False,
) -> None:
    """Print the `kafka-acls.sh` commands that allow a principal what its duty needs, and no more."""
    settings = read_settings(context)
    if markdown:
        print(render_table(settings))  # noqa: T201 -- the output of this command
        return
    for each in Duty if duty is None else (duty,):
        print(f"# {each}: {MEANINGS[each]}")  # noqa: T201 -- the output of this command
        grants = list_grants(each, settings)
        print("\n".join(render_commands(grants, principal, settings.kafka.bootstrap_servers)))  # noqa: T201 -- likewise


def render_settings() -> str:
    """All settings as a Markdown table."""
    rows = (f"| `{setting.name}` | `{setting.default}` | {setting.meaning} |" for setting in describe_settings())
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


@app.command()
def broker(
    fetch: Annotated[bool, typer.Option("--fetch", help="Only fetch Apache Kafka into the cache, and end.")] = False,
    nodes: Annotated[int, typer.Option(min=1, max=3, help="1 or 3.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the first node on loopback.")] = 9092,
    folder: Annotated[Path | None, typer.Option(help="Keeps the data; without it they go with the broker.")] = None,
) -> None:
    """A local Apache Kafka for trials: no container, no Java, nothing to install. Runs until Ctrl-C."""
    from worker.broker import LocalBroker, default_cache, fetch_jars

    def report(line: str) -> None:
        err.print(f"==> {line}", highlight=False)

    if fetch:
        fetch_jars(default_cache(), report)
        return
    with LocalBroker(nodes, folder=folder, port=port, report=report) as local:
        err.print(f"Apache Kafka listens on [bold]{local.bootstrap}[/]; Ctrl-C ends it", highlight=False)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        except KeyboardInterrupt:
            err.print("stopping")


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave broker and workers running until Ctrl-C.")] = False,
    trouble: Annotated[bool, typer.Option(help="Without the trouble the same week should give no alert.")] = True,
    days_per_minute: Annotated[float, typer.Option(min=0.1, help="Days of the week in a minute.")] = 6.0,
) -> None:
    """A week of news through a real Apache Kafka: labels and alerts as they come, then a summary.

    Nothing is scripted: the labels are the default stack's, the alerts the detector's on its default rules.
    """
    from worker.demo.play import Screen, play

    asyncio.run(play(Screen(out, err), trouble=trouble, speed=days_per_minute * 1440, keep=keep))
