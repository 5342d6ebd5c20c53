"""Labels and alerts as people read them in a terminal. Pure: events in, rich text out."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.events import AlertEvent, AlertKind, AlertStatus, Evidence, KeyType, LabelledEvent, format_instant

COLOURS = {"negative": "red", "neutral": "bright_black", "positive": "green"}
MARKS = {"negative": "▼", "neutral": "·", "positive": "▲"}
EVIDENCE_SHOWN = 5
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


def name_key(alert: AlertEvent) -> str:
    """The key as people know it, such as ``HRVL`` or ``the whole market``."""
    if alert.key_type is KeyType.market:
        return "the whole market"
    return alert.key.removeprefix("symbol:") if alert.key_type is KeyType.entity else alert.key


def describe_key(alert: AlertEvent) -> str:
    """The key with its kind, such as ``entity HRVL`` or ``the whole market``."""
    name = name_key(alert)
    return name if alert.key_type is KeyType.market else f"{alert.key_type.value} {name}"


def is_worth_a_line(alert: AlertEvent) -> bool:
    """Whether a person wants to see this revision: the first, the last, and every fifth story between them."""
    return alert.revision == 1 or alert.status is AlertStatus.resolved or alert.n_negative % STORIES_BETWEEN_LINES == 0


def render_alert(alert: AlertEvent, *, whole: bool = False) -> RenderableType:
    """A box that says what happened, against what was expected, and by which stories.

    Later revisions take one line, unless ``whole``; so does the end, which stands above the box if ``whole``.
    """
    if alert.status is AlertStatus.resolved:
        end = Text(
            f"■ resolved: {describe_key(alert)} at {alert.ends_at:%a %d %b %H:%M} "
            f"({str(alert.resolve_reason).replace('_', ' ')}), {alert.n_negative} negative stories in all",
            "green",
        )
        return Group(end, _box(alert)) if whole else end
    if alert.revision > 1 and not whole:
        strength = f"W {alert.W:.1f} / h {alert.h:.1f}"
        return Text(f"● still firing: {describe_key(alert)}, {alert.n_negative} negative stories, {strength}", "yellow")
    return _box(alert)


def _box(alert: AlertEvent) -> Panel:
    what = "Negative news surges" if alert.kind is AlertKind.negative_surge else "Much more news, bad among it"
    return Panel(
        Group(_sentence(alert), _evidence_table(alert.evidence), _small_print(alert)),
        title=Text(printable(f"ALERT  {what}: {describe_key(alert)}"), "bold"),
        title_align="left",
        border_style="bold red",
    )


def _sentence(alert: AlertEvent) -> Text:
    hours = (alert.detected_at - alert.first_clock).total_seconds() / 3600
    sources = f"{alert.n_sources} source{'s' if alert.n_sources != 1 else ''}"
    text = Text()
    text.append(f"{alert.n_negative} negative stories", "bold red")
    text.append(f" of {alert.n_total} in {hours:.1f} h, from {sources}, {alert.n_copies} copies folded; ")
    text.append(f"{alert.expected:.2f} were expected", "bold")
    text.append(f" ({alert.ratio:.0f} times)")
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
    return Text(
        f"test: W {alert.W:.1f} >= h {alert.h:.1f} at {alert.R:g} times the rate; "
        f"budget {alert.budget:g} false alerts a day; rule {alert.provenance.rule_version}\n"
        f"alert {alert.alert_id}, evidence since {format_instant(alert.first_clock)}",
        "dim",
    )


def printable(text: str) -> str:
    """Text in which what steers a terminal, or hides, is written as an escape; line ends and tabs stay."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
