"""Alerts and what people did about them, as people read them in a terminal. Pure: a board in, rich text out.

What people and feeds wrote is shown as text alone, without markup, and without what steers a terminal.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.events import ActionKind, AlertAction, AlertEvent, AlertStatus, Severity
from worker.alerts.board import Board
from worker.matchers import match_all, render_matcher
from worker.sinks.terminal import describe_key, printable, render_alert

SEVERITY_STYLES = {Severity.info: "cyan", Severity.warning: "yellow", Severity.critical: "bold red"}
_RIGHT = {"negative", "expected", "W/h", "age", "firing"}
_DONE = {ActionKind.acknowledge: "acknowledged", ActionKind.note: "noted"}


def _line(text: str, style: str = "") -> Text:
    return Text(" ".join(printable(text).split()), style, no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    """A table whose last column gives way where the terminal is too narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in _RIGHT else "left", no_wrap=column != columns[-1])
    return table


def tell_time(at: datetime) -> str:
    """An instant to the minute, such as ``2026-03-05 08:30``, in UTC as all times here."""
    return f"{at:%Y-%m-%d %H:%M}"


def tell_length(length: timedelta) -> str:
    """How long something takes, in its own unit: ``12 min``, ``3.2 h``, ``5.1 d``."""
    hours = length / timedelta(hours=1)
    if hours < 1:
        return f"{length / timedelta(minutes=1):.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def render_list(board: Board, alerts: Sequence[AlertEvent], now: datetime) -> RenderableType:
    """For `alerts list`: an alert a line, who looks after it, and until when nobody is told of it."""
    short = board.shorten()
    table = _table(
        "alert", "status", "severity", "on", "negative", "expected", "W/h", "age", "acknowledged", "silenced until"
    )
    for alert in alerts:
        acknowledged = board.actions.acknowledgement_of(alert.alert_id)
        silence = board.actions.silence_of(alert, now)
        table.add_row(
            short[alert.alert_id],
            alert.status.value,
            Text(alert.severity.value, SEVERITY_STYLES[alert.severity]) if alert.severity else "",
            _line(describe_key(alert)),
            f"{alert.n_negative} of {alert.n_total}",
            f"{alert.expected:.2f}",
            f"{alert.W / alert.h:.2f}",
            tell_length((alert.ends_at or now) - alert.starts_at),
            _line(acknowledged.by if acknowledged else ""),
            _line(tell_time(silence.ends_at) if silence and silence.ends_at else ""),
        )
    return table


def render_whole(board: Board, alert: AlertEvent, now: datetime) -> RenderableType:
    """For `alerts show`: the alert whole, the narrower ones that it includes, then what people did about it."""
    done = board.done_about(alert, now)
    whole = Group(render_alert(alert), *_tell_included(board, alert))
    if not done:
        return Group(whole, Text("nobody has done anything about it", "dim"))
    short = board.shorten()[alert.alert_id]
    table = _table("at", "by", "did", "action", "comment")
    for action in done:
        table.add_row(
            tell_time(action.at),
            _line(action.by),
            tell_deed(action),
            _line(action.action_id.replace(alert.alert_id, short)),
            Text(printable(action.comment)),
        )
    return Group(whole, table)


def _tell_included(board: Board, alert: AlertEvent) -> list[Text]:
    """The narrower alerts that this one tells of, in a line; nothing where there are none."""
    short = board.shorten()
    names = [f"{describe_key(other)} ({short[other.alert_id]})" for other in board.find_included(alert)]
    return [Text(printable(f"includes: {', '.join(names)}"))] if names else []


def tell_deed(action: AlertAction) -> str:
    """What was done, such as ``silenced until 2026-03-05 17:00``."""
    if action.ends_at is not None:
        return f"silenced until {tell_time(action.ends_at)}"
    if action.disposition is not None:
        return f"judged {action.disposition.replace('_', ' ')}"
    return _DONE[action.kind]


def render_silences(board: Board, now: datetime) -> RenderableType:
    """For `alerts silences`: those that hold or will, and on how many firing alerts they are."""
    silences = board.actions.silences(now)
    if not silences:
        return Text("no silence holds, now or later", "green")
    table = _table("action", "from", "until", "firing", "by", "on", "comment")
    for silence in silences:
        assert silence.starts_at is not None and silence.ends_at is not None  # noqa: PT018 -- the contract sees to it
        table.add_row(
            _line(silence.action_id),
            tell_time(silence.starts_at),
            tell_time(silence.ends_at),
            str(len(find_silenced(board, silence))),
            _line(silence.by),
            _line(tell_matchers(silence)),
            Text(printable(silence.comment)),
        )
    return table


def find_silenced(board: Board, silence: AlertAction) -> list[AlertEvent]:
    """The firing alerts that a silence is on."""
    return [
        alert
        for alert in board.alerts.values()
        if alert.status is AlertStatus.firing and match_all(silence.matchers, alert)
    ]


def tell_matchers(silence: AlertAction) -> str:
    """What a silence is on, as it would be typed."""
    return " ".join(render_matcher(matcher) for matcher in silence.matchers)
