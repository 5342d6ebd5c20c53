"""An alert in plain words, for messages. Pure."""

from collections.abc import Sequence

from schemas.events import AlertEvent, AlertKind, AlertStatus, Evidence
from worker.notify.decision import News, strongest_first
from worker.sinks.terminal import describe_key

DIGEST_NAMED = 10
EVIDENCE_SHOWN = 3
TITLE_CHARS = 300


def headline(alert: AlertEvent) -> str:
    """What happened, in a few words, such as ``Negative news surges: entity HRVL``."""
    if alert.status is AlertStatus.resolved:
        return f"Resolved: {describe_key(alert)}"
    what = "Negative news surges" if alert.kind is AlertKind.negative_surge else "Much more news, bad among it"
    return f"{what}: {describe_key(alert)}"


def summary(alert: AlertEvent) -> str:
    """How much came, against what was expected; of a resolved one, how it ended."""
    hours = (alert.detected_at - alert.first_clock).total_seconds() / 3600
    sources = f"{alert.n_sources} source{'s' if alert.n_sources != 1 else ''}"
    stories = f"{alert.n_negative} negative stories of {alert.n_total} in {hours:.1f} h, from {sources}"
    if alert.status is AlertStatus.resolved:
        return f"{stories}; ended: {str(alert.resolve_reason).replace('_', ' ')}"
    return f"{stories}; {alert.expected:.2f} were expected ({alert.ratio:.0f} times)"


def chance(alert: AlertEvent) -> str | None:
    """How often chance alone gives such an alert; None where that is not known."""
    if alert.chance_a_day is None:
        return None
    if alert.chance_a_day <= 0:
        return "chance alone gives practically none"
    return f"chance alone gives {alert.chance_a_day:.2g} a day"


def top_evidence(alert: AlertEvent) -> Sequence[Evidence]:
    """The stories to name: the worst of those behind the alert."""
    return sorted(alert.evidence, key=lambda story: story.score)[:EVIDENCE_SHOWN]


def is_link(url: str | None) -> bool:
    """Whether a url of the news may stand behind a title."""
    return url is not None and url.startswith(("https://", "http://")) and not set(url) & set('<>|" \n\r\t\\')


def shorten(text: str, most: int = TITLE_CHARS) -> str:
    """Cut to so many characters, line ends and other control characters taken out."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def digest_headline(news: Sequence[News]) -> str:
    """How many alerts a digest is of."""
    ended = sum(each.ended for each in news)
    return f"{len(news)} more alerts" + (f", {ended} of them resolved by now" if ended else "")


def strongest(news: Sequence[News]) -> Sequence[AlertEvent]:
    """The alerts that a digest names."""
    return [each.alert for each in strongest_first(news)[:DIGEST_NAMED]]
