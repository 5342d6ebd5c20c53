"""Slack and what speaks its tongue: by an incoming webhook, or as an app whose messages can be revised. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

from schemas.events import AlertEvent, Evidence
from worker.notify.decision import News
from worker.notify.letters import Answer, Delivered, Letter, Refused, Reply, TryAgain, read_status, retry_after, show
from worker.notify.wording import chance, digest_headline, headline, is_link, shorten, strongest, summary, top_evidence

# Slack's own words for what may come right by itself, and for a message that is no longer there.
PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})
ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
MARKS = str.maketrans({"*": "\u2217", "_": "\u02cd", "~": "\u223c", "`": "\u02cb"})  # look alike, and mark nothing up
SECTION_CHARS = 2900  # Slack takes 3000


class SlackWebhook:
    """An incoming webhook: posts when an alert is new and when it ends; what is posted cannot be revised."""

    most = 1
    revises = False
    resend_seconds: float | None = None

    def __init__(self, url: str) -> None:
        self._url = url

    def compose(self, news: Sequence[News], now: datetime) -> Letter:  # noqa: ARG002 -- the signature of a channel
        """See `Channel`."""
        (each,) = news
        return _letter(self._url, render(each.alert))

    def compose_digest(self, news: Sequence[News], now: datetime) -> Letter:  # noqa: ARG002 -- the signature of a channel
        """See `Channel`."""
        return _letter(self._url, render_digest(news))

    def read(self, reply: Reply, now: datetime) -> Answer:
        """See `Channel`."""
        return read_status(reply, now)


class SlackApp:
    """The Web API: one message an alert, revised in place, or answered in its thread.

    Its reference is the channel and the time stamp that Slack gave the message.
    """

    most = 1
    revises = True
    resend_seconds: float | None = None

    def __init__(self, base_url: str, token: str, channel: str, revisions: Literal["update", "thread"]) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._channel = channel
        self._revisions = revisions

    def compose(self, news: Sequence[News], now: datetime) -> Letter:  # noqa: ARG002 -- the signature of a channel
        """See `Channel`."""
        (each,) = news
        body = render(each.alert)
        method = "chat.postMessage"
        if each.told.reference is None:
            body |= {"channel": self._channel, "metadata": _metadata(each.alert)}
        else:
            channel, _, stamp = each.told.reference.partition(" ")
            if self._revisions == "update":
                method = "chat.update"
                body |= {"channel": channel, "ts": stamp, "metadata": _metadata(each.alert)}
            else:
                body |= {"channel": channel, "thread_ts": stamp}
        return _letter(f"{self._base_url}/{method}", body, self._headers)

    def compose_digest(self, news: Sequence[News], now: datetime) -> Letter:  # noqa: ARG002 -- the signature of a channel
        """See `Channel`."""
        body = render_digest(news) | {"channel": self._channel}
        return _letter(f"{self._base_url}/chat.postMessage", body, self._headers)

    def read(self, reply: Reply, now: datetime) -> Answer:
        """See `Channel`. Slack answers 200 also where it refuses."""
        if not 200 <= reply.status < 300:
            return read_status(reply, now)
        try:
            said = orjson.loads(reply.body)
            fine, error = said["ok"], str(said.get("error", "unknown"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return TryAgain(f"no answer of Slack's: {show(reply.body)}")
        if fine is True:
            return Delivered(_reference(said))
        if error in GONE:
            return TryAgain(f"Slack says {show(error.encode())}", lost=True)
        if error in PASSING:
            return TryAgain(f"Slack says {show(error.encode())}", retry_after(reply, now))
        return Refused(f"Slack says {show(error.encode())}")


def _reference(said: Mapping[str, Any]) -> str | None:
    """The message that was posted; one in a thread is not the alert's own."""
    message = said.get("message")
    thread = message.get("thread_ts") if isinstance(message, dict) else None
    if not isinstance(said.get("ts"), str) or (thread is not None and thread != said["ts"]):
        return None
    return f"{said.get('channel', '')} {said['ts']}"


def _letter(url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Letter:
    return Letter(url, orjson.dumps(body), {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def _metadata(alert: AlertEvent) -> Mapping[str, Any]:
    payload = {"alert_id": alert.alert_id, "revision": alert.revision}
    return {"event_type": "stacknorm_alert", "event_payload": payload}


def escape(text: str) -> str:
    """Text that Slack shows as it is: no links, mentions or emphasis come of it."""
    return shorten(text).translate(MARKS).translate(ESCAPED)


def render(alert: AlertEvent) -> dict[str, Any]:
    """A message about one alert."""
    title = escape(headline(alert))
    mark = {"resolved": ":large_green_circle:", "pending": ":white_circle:"}.get(alert.status.value, ":red_circle:")
    severity = f" ({alert.severity.value})" if alert.severity else ""
    parts = [_section(f"{mark} *{title}*{severity}\n{escape(summary(alert))}")]
    stories = "\n".join(_story(each) for each in top_evidence(alert))
    if stories:
        parts.append(_section(stories))
    parts.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _small_print(alert)}]})
    return {
        "text": f"{title}{severity}: {escape(summary(alert))}",
        "blocks": parts,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def render_digest(news: Sequence[News]) -> dict[str, Any]:
    """A message about many alerts."""
    named = [f"• {escape(headline(alert))}: {escape(summary(alert))}" for alert in strongest(news)]
    title = digest_headline(news)
    body = _section("\n".join([f":warning: *{title}*, the strongest:", *named]))
    return {"text": title, "blocks": [body], "unfurl_links": False, "unfurl_media": False}


def _section(text: str) -> dict[str, Any]:
    lines, length = [], 0
    for line in text.split("\n"):
        length += len(line) + 1
        if length > SECTION_CHARS:
            break
        lines.append(line)
    return {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines) or "…"}}


def _story(story: Evidence) -> str:
    title = escape(story.title) or "(no title)"
    shown = f"<{story.url.translate(ESCAPED)}|{title}>" if story.url is not None and is_link(story.url) else title
    copies = f", {story.copies} copies" if story.copies else ""
    return f"• {shown} ({escape(story.source)}{copies}, {story.score:+.2f})"


def _small_print(alert: AlertEvent) -> str:
    parts = [f"alert {escape(alert.alert_id)}, revision {alert.revision}"]
    if (odds := chance(alert)) is not None:
        parts.append(odds)
    if alert.quality:
        parts.append("doubts: " + ", ".join(each.replace("_", " ") for each in alert.quality))
    return shorten("; ".join(parts), SECTION_CHARS)
