"""Labels, alerts and trends as people read them in a terminal. Pure: events in, rich text out."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.events import (
    AlertEvent,
    AlertKind,
    AlertStatus,
    Evidence,
    KeyType,
    LabelledEvent,
    TrendEvent,
    format_instant,
)
from worker.surge.keys import NEGATIVE, Target

COLOURS = {"negative": "red", "neutral": "bright_black", "positive": "green"}
MARKS = {"negative": "▼", "neutral": "·", "positive": "▲"}
EVIDENCE_SHOWN = 5
_HEADLINES = {
    AlertKind.negative_surge: "Negative news surges",
    AlertKind.negative_volume: "Much more news, bad among it",
    AlertKind.surge: "What is watched surges",
    AlertKind.volume: "Much more news, what is watched among it",
}
STORIES_BETWEEN_LINES = 5


def render_label(event: LabelledEvent) -> Text:
    """One line: clock, sentiment and its score, topic, symbols, title."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{_minute(event)} ", "dim")
    if event.sentiment is None or event.topic is None:
        line.append(f"{'abstained':<14}", "yellow")
        line.append(f"{event.title}  ", "dim")
        line.append(f"({event.abstained_because})", "yellow")
        return line
    colour = COLOURS[event.sentiment.label]
    line.append(f"{MARKS[event.sentiment.label]} {event.sentiment.label:<8} {event.sentiment.score:+.2f} ", colour)
    line.append(f"{event.topic.label[:16]:<16} ", "cyan")
    line.append(f"{','.join(entity.id for entity in event.entities)[:6]:<6} ", "magenta")
    line.append(event.title)
    return line


def _minute(event: LabelledEvent) -> str:
    return event.clock.strftime("%a %d %b %H:%M")


def name_key(event: AlertEvent | TrendEvent) -> str:
    """The key as people know it, such as ``HRVL`` or ``the whole market``."""
    if event.key_type is KeyType.market:
        return "the whole market"
    return printable(event.key.removeprefix("symbol:") if event.key_type is KeyType.entity else event.key)


def describe_key(event: AlertEvent | TrendEvent) -> str:
    """The key with its kind, such as ``entity HRVL`` or ``the whole market``."""
    name = name_key(event)
    return name if event.key_type is KeyType.market else f"{event.key_type.value} {name}"


def render_trend(trend: TrendEvent) -> Text:
    """One line: the window, the mean score, stories and the negative ones among them, copies, key."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{trend.starts_at:%a %d %b %H:%M} {trend.window} ", "dim")
    if trend.mean_score is None:
        line.append(f"{'':5} ")
    else:
        colour = "negative" if trend.mean_score < 0 else "positive" if trend.mean_score > 0 else "neutral"
        line.append(f"{trend.mean_score:+.2f} ", COLOURS[colour])
    line.append(f"{trend.n_clusters:>4} stories {trend.n_negative:>4} negative {trend.n_copies:>4} copies  ")
    line.append(describe_key(trend), "magenta")
    return line


def name_hits(alert: AlertEvent) -> str:
    """What the stories are that it counts: ``negative``, or the label that is watched."""
    target = Target.parse(alert.target) if alert.target else NEGATIVE
    return target.label if target.task == "sentiment" else f"“{target.label}”"


class AlertLines:
    """What a person wants to see of alerts as they come: each once in a box when it fires, little of what follows.

    Remembers which alerts wait, and which have fired.
    """

    def __init__(self) -> None:
        self._pending: set[str] = set()
        self._fired: set[str] = set()

    def render(self, alert: AlertEvent) -> RenderableType | None:
        """A box, a line, or nothing: of the stories that follow only every fifth is worth a line."""
        if alert.status is AlertStatus.pending:
            new = alert.alert_id not in self._pending
            self._pending.add(alert.alert_id)
            return _render_pending(alert) if new else None
        if alert.status is AlertStatus.resolved:
            waited = alert.alert_id in self._pending and alert.alert_id not in self._fired
            self._pending.discard(alert.alert_id)
            self._fired.discard(alert.alert_id)
            return None if waited else _render_end(alert)
        new = alert.alert_id not in self._fired
        self._fired.add(alert.alert_id)
        return render_alert(alert) if new else _render_revision(alert)


def _render_pending(alert: AlertEvent) -> Text:
    count, strength = f"{alert.n_negative} {name_hits(alert)} stories", f"W {alert.W:.1f} / h {alert.h:.1f}"
    return Text(f"○ pending: {describe_key(alert)}, {count}, {strength}, too little evidence yet", "dim yellow")


def _render_revision(alert: AlertEvent) -> Text | None:
    if alert.n_negative % STORIES_BETWEEN_LINES:
        return None
    count, strength = f"{alert.n_negative} {name_hits(alert)} stories", f"W {alert.W:.1f} / h {alert.h:.1f}"
    return Text(f"● still firing: {describe_key(alert)}, {count}, {strength}", "yellow")


def _render_end(alert: AlertEvent) -> Text:
    return Text(
        f"■ resolved: {describe_key(alert)} at {alert.ends_at:%a %d %b %H:%M} "
        f"({str(alert.resolve_reason).replace('_', ' ')}), {alert.n_negative} {name_hits(alert)} stories in all",
        "green",
    )


def render_alert(alert: AlertEvent) -> RenderableType:
    """A box that says what happened, against what was expected, and by which stories; its end above, if it has."""
    box = Panel(
        Group(_sentence(alert), _evidence_table(alert.evidence), _small_print(alert)),
        title=Text(f"ALERT  {_HEADLINES[alert.kind]}: {describe_key(alert)}", "bold"),
        title_align="left",
        border_style="bold red",
    )
    return box if alert.status is not AlertStatus.resolved else Group(_render_end(alert), box)


def _sentence(alert: AlertEvent) -> Text:
    hours = (alert.detected_at - alert.first_clock).total_seconds() / 3600
    sources = f"{alert.n_sources} source{'s' if alert.n_sources != 1 else ''}"
    text = Text()
    text.append(f"{alert.n_negative} {name_hits(alert)} stories", "bold red")
    text.append(f" of {alert.n_total} in {hours:.1f} h, from {sources}, {alert.n_copies} copies folded; ")
    text.append(f"{alert.expected:.2f} were expected", "bold")
    text.append(f" ({alert.ratio:.0f} times)")
    if alert.inhibited_by:
        text.append(f"\npart of the alert on {', '.join(ref.key for ref in alert.inhibited_by)}", "dim")
    return text


def _evidence_table(evidence: tuple[Evidence, ...]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=5)
    table.add_column(style="red", justify="right", no_wrap=True, min_width=5)
    table.add_column(overflow="ellipsis", no_wrap=True)
    table.add_column(style="dim", no_wrap=True, min_width=28)
    for story in evidence[:EVIDENCE_SHOWN]:
        source = f"{story.source[:18]}{f' +{story.copies}' if story.copies else ''}"
        table.add_row(
            f"{story.received_at:%H:%M}", f"{story.score:+.2f}", Text(printable(story.title)), Text(printable(source))
        )
    return table


def _small_print(alert: AlertEvent) -> Text:
    against = f"W {alert.W:.1f} {'>=' if alert.h <= alert.W else '<'} h {alert.h:.1f}"
    severity = "" if alert.severity is None else f"{alert.severity}; "
    return Text(
        f"{severity}test: {against} at {alert.R:g} times the rate; "
        f"budget {alert.budget:g} false alerts a day; rule {alert.provenance.rule_version}\n"
        f"alert {alert.alert_id}, evidence since {format_instant(alert.first_clock)}",
        "dim",
    )


def printable(text: str) -> str:
    """Text in which what steers a terminal, or hides, is written as an escape; line ends and tabs stay."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
