"""`stacknorm-worker alerts`: what fires, who looks after it, and what nobody wants to be told of."""

import asyncio
import getpass
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from pydantic import ValidationError

from schemas.events import AlertAction, Matcher
from worker.actions import Disposition, acknowledge, dispose, note, silence
from worker.console import err, out, read_length, read_settings_of_a_running_system, read_time
from worker.matchers import parse_matcher

if TYPE_CHECKING:
    from worker.alerts.board import Board
    from worker.settings import Settings

HELP = """Alerts: see what fires, say that you look after it, silence what you know of.

Actions go to a topic beside the alerts. Alerts are published as before; what shows and sends them obeys.

[bold]stacknorm-worker alerts list[/]

[bold]stacknorm-worker alerts show 4f2a81c0[/]

[bold]stacknorm-worker alerts ack 4f2a81c0 --comment "asking the issuer"[/]

[bold]stacknorm-worker alerts silence key=symbol:HRVL --for 8h --comment "results day"[/]

[bold]stacknorm-worker alerts dispose 4f2a81c0 true_alert[/]

ALERT is an alert's id, or its beginning. MATCHER is as in Alertmanager: FIELD=VALUE, FIELD!=VALUE, FIELD=~PATTERN or
FIELD!~PATTERN, of alert_id, kind, severity, status, key_type, key, target; a pattern must match the whole value.
"""

alerts_app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich")

Alert = Annotated[str, typer.Argument(help="The alert's id, or its beginning.", metavar="ALERT")]
By = Annotated[str | None, typer.Option(help="Who does it.", show_default="the name you are logged in by")]
Comment = Annotated[str, typer.Option(help="What others should know.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object an alert, for scripts.")]


@contextmanager
def _refusing() -> Iterator[None]:
    """What cannot be done as it was asked for is the caller's mistake, told in a line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise typer.BadParameter(": ".join([*map(str, first["loc"]), first["msg"]])) from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _parse_matchers(texts: Iterable[str] | None) -> list[Matcher]:
    with _refusing():
        return [parse_matcher(text) for text in texts or ()]


def _login(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise typer.BadParameter("nobody is logged in here; say who you are with --by") from error


async def _read(context: typer.Context) -> "tuple[Settings, Board]":
    from worker.alerts.reading import read_board

    settings = await read_settings_of_a_running_system(context)
    board = await read_board(settings)
    if board.foreign:
        err.print(
            f"{board.foreign} records are neither alerts nor actions of this version, and are passed over",
            style="yellow",
            highlight=False,
        )
    return settings, board


def _print_json(told: dict[str, Any]) -> None:
    print(orjson.dumps(told).decode())  # noqa: T201 -- the output


def _tell(text: str) -> None:
    from worker.sinks.terminal import printable

    out.print(printable(text), markup=False, highlight=False, soft_wrap=True)


@alerts_app.command("list")
def list_alerts(
    context: typer.Context,
    *,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="MATCHER", help="Only what this holds for, such as severity=critical. Give more: all."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Pending and resolved ones too, as a matcher on the status also does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what fires, the strongest first: against what was expected, who looks after it, whether it is silenced.

    stacknorm-worker alerts list --where key_type=entity --where 'severity=~"warning|critical"'
    """
    from worker.alerts.tables import render_list

    matchers, now = _parse_matchers(where), datetime.now(UTC)
    _, board = asyncio.run(_read(context))
    alerts = board.select(matchers, everything=everything)
    if as_json:
        for alert in alerts:
            _print_json(board.describe(alert, now))
    elif alerts:
        out.print(render_list(board, alerts, now))
    else:
        out.print("no alert is so" if matchers or everything else "nothing is firing", style="green")


@alerts_app.command()
def show(context: typer.Context, alert: Alert, *, as_json: AsJson = False) -> None:
    """Show an alert whole, and what people did about it, with the ids to undo that."""
    from worker.alerts.tables import render_whole

    _, board = asyncio.run(_read(context))
    found, now = board.find(alert), datetime.now(UTC)
    if as_json:
        _print_json(board.describe(found, now))
    else:
        out.print(render_whole(board, found, now))


@alerts_app.command()
def silences(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a silence, for scripts.")] = False,
) -> None:
    """Show the silences that hold now or later, and on how many firing alerts they are."""
    from worker.alerts.board import as_data
    from worker.alerts.tables import render_silences

    _, board = asyncio.run(_read(context))
    now = datetime.now(UTC)
    if as_json:
        for each in board.actions.silences(now):
            _print_json(as_data(each))
    else:
        out.print(render_silences(board, now))


@alerts_app.command()
def ack(context: typer.Context, alert: Alert, *, comment: Comment = "", by: By = None) -> None:
    """Acknowledge an alert: you have seen it and look after it. The newest acknowledgement counts.

    stacknorm-worker alerts ack 4f2a81c0 --comment "asking the issuer"
    """
    who, now = _login(by), datetime.now(UTC)
    asyncio.run(_act_on(context, alert, lambda alert_id: acknowledge(alert_id, by=who, at=now, comment=comment)))


@alerts_app.command("note")
def take_note(
    context: typer.Context,
    alert: Alert,
    text: Annotated[str, typer.Argument(help="What is to be known.", metavar="TEXT")],
    *,
    by: By = None,
) -> None:
    """Leave a note on an alert, beside those that are there.

    stacknorm-worker alerts note 4f2a81c0 "trading was halted at 09:40"
    """
    who, now, token = _login(by), datetime.now(UTC), secrets.token_hex(4)
    asyncio.run(_act_on(context, alert, lambda alert_id: note(alert_id, text, by=who, at=now, token=token)))


@alerts_app.command("dispose")
def judge(
    context: typer.Context,
    alert: Alert,
    disposition: Annotated[Disposition, typer.Argument(help="What it turned out to be.", metavar="DISPOSITION")],
    *,
    comment: Comment = "",
    by: By = None,
) -> None:
    """Say what an alert turned out to be: true_alert, false_alert, duplicate or expected. The newest counts.

    stacknorm-worker alerts dispose 4f2a81c0 false_alert --comment "an old story, told again"
    """
    who, now = _login(by), datetime.now(UTC)
    asyncio.run(
        _act_on(context, alert, lambda alert_id: dispose(alert_id, disposition, by=who, at=now, comment=comment))
    )


async def _act_on(context: typer.Context, prefix: str, make: Callable[[str], AlertAction]) -> None:
    from worker.alerts.sending import send
    from worker.alerts.tables import tell_deed
    from worker.sinks.terminal import describe_key

    settings, board = await _read(context)
    alert = board.find(prefix)
    with _refusing():
        action = make(alert.alert_id)
    await send(settings, action.action_id, action)
    _tell(f"{tell_deed(action)} by {action.by}: {describe_key(alert)} ({action.action_id})")


@alerts_app.command("silence")
def hush(
    context: typer.Context,
    matchers: Annotated[
        list[str] | None, typer.Argument(metavar="MATCHER...", help="What is silenced: what all of them hold for.")
    ] = None,
    *,
    length: Annotated[str, typer.Option("--for", help="How long: 90m, 2h, 1d12h, 2w; at most 90 days from now.")],
    since: Annotated[
        str | None, typer.Option("--from", help="When it begins, such as 2026-03-05T08:30Z.", show_default="now")
    ] = None,
    alert: Annotated[str | None, typer.Option(metavar="ALERT", help="Silence just this alert.")] = None,
    comment: Annotated[str, typer.Option(help="Why; may be left out with --alert.", show_default=False)] = "",
    by: By = None,
) -> None:
    """Silence what you know of, for some time: it is published and listed as before, and nobody is told.

    stacknorm-worker alerts silence key=symbol:HRVL --for 8h --comment "results day"

    stacknorm-worker alerts silence key_type=topic 'key=~"Opinion|Markets"' --for 1w --comment "too wide for us"

    stacknorm-worker alerts silence --alert 4f2a81c0 --for 2h
    """
    asked, who, now = _parse_matchers(matchers), _login(by), datetime.now(UTC)
    if not asked and alert is None:
        raise typer.BadParameter("say what to silence: MATCHER..., or --alert ALERT")
    if alert is None and not comment.strip():
        raise typer.BadParameter("say why with --comment: others will wonder")
    with _refusing():
        starts_at = now if since is None else read_time(since)
        ends_at = starts_at + read_length(length)
        if ends_at <= now:
            raise ValueError("the silence would be over already")

    async def act() -> None:
        from worker.alerts.board import TOLD
        from worker.alerts.sending import send
        from worker.alerts.tables import find_silenced, tell_matchers, tell_time
        from worker.sinks.terminal import describe_key

        settings, board = await _read(context)
        just_this = () if alert is None else (_parse_matchers([f"alert_id={board.find(alert).alert_id}"])[0],)
        with _refusing():
            action = silence(
                (*just_this, *asked),
                starts_at,
                ends_at,
                by=who,
                at=now,
                token=secrets.token_hex(4),
                comment=comment,
            )
        await send(settings, action.action_id, action)
        _tell(
            f"silenced from {tell_time(starts_at)} until {tell_time(ends_at)} by {who}: {tell_matchers(action)} "
            f"({action.action_id})"
        )
        on, firing = find_silenced(board, action), board.select([], everything=False)
        named = ", ".join(describe_key(each) for each in on[:TOLD]) + (", ..." if len(on) > TOLD else "")
        _tell(f"of the {len(firing)} alerts that fire it is on {len(on)}{f': {named}' if on else ''}")

    asyncio.run(act())


@alerts_app.command()
def undo(
    context: typer.Context,
    action: Annotated[str, typer.Argument(help="Its id as `show` and `silences` tell it, or the beginning of it.")],
) -> None:
    """Undo an action: take back an acknowledgement, a note or a judgement, or end a silence.

    stacknorm-worker alerts undo silence:7d21c0aa
    """

    async def act() -> None:
        from worker.alerts.sending import send
        from worker.alerts.tables import tell_deed

        settings, board = await _read(context)
        action_id = board.find_action(action)
        done = board.actions.get(action_id)
        assert done is not None  # it was just found there
        await send(settings, action_id, None)
        _tell(f"undone: {tell_deed(done)} by {done.by} at {done.at:%Y-%m-%d %H:%M} ({action_id})")

    asyncio.run(act())
