"""What is sent to a receiver, and what its answer means. Pure; knows no HTTP client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from worker.notify.decision import News

RETRIED = frozenset({408, 425, 429})
SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Letter:
    """One POST; its url and headers may hold secrets."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """It has arrived; ``reference`` is where it stands, in the receiver's terms."""

    reference: str | None = None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It may arrive later. ``lost``: not by this reference, since the message there is gone."""

    reason: str
    after_seconds: float | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It never will."""

    reason: str


Answer = Delivered | TryAgain | Refused


class Channel(Protocol):
    """How a kind of receiver is spoken to.

    ``most`` is how many revisions one letter may hold; where ``revises`` is false only the first and the last are told;
    ``resend_seconds`` is after how long what goes on is said again.
    """

    most: int
    revises: bool
    resend_seconds: float | None

    def compose(self, news: Sequence[News], now: datetime) -> Letter:
        """The letter about these."""

    def compose_digest(self, news: Sequence[News], now: datetime) -> Letter:
        """One letter about all that is over the storm cap."""

    def read(self, reply: Reply, now: datetime) -> Answer:
        """What the answer means."""


def read_status(reply: Reply, now: datetime) -> Answer:
    """What the status of an answer means, whoever gave it. Redirects are not followed, but may end."""
    if 200 <= reply.status < 300:
        return Delivered()
    reason = f"status {reply.status}: {show(reply.body)}"
    if 400 <= reply.status < 500 and reply.status not in RETRIED:
        return Refused(reason)
    return TryAgain(reason, retry_after(reply, now))


def retry_after(reply: Reply, now: datetime) -> float | None:
    """How many seconds the answer asks to wait: given as seconds or as a date."""
    asked = reply.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    try:
        at = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def show(body: bytes) -> str:
    """The beginning of an answer, for the log."""
    text = body[: 4 * SHOWN_CHARS].decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text[:SHOWN_CHARS]).strip() or "(no text)"


def idempotency_key(news: News) -> str:
    """The same for the same revision, however often it is sent."""
    return f"{news.alert.alert_id}:{news.alert.revision}"
