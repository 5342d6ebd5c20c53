"""The events on the topics, as frozen pydantic models; the JSON Schemas beside this file are generated from them.

Instants are RFC 3339 in UTC with milliseconds, bytes are base64url, probabilities lie in [0, 1]. A field without a
real value is absent. Readers ignore fields they do not know, so that a newer writer does not stop an older reader.
"""

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, PlainSerializer, model_validator


@lru_cache(maxsize=1024)  # of an event most are those of the one before
def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC, cut to milliseconds, such as ``2026-03-02T09:30:00.125Z``."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[
    AwareDatetime,
    Field(ge=datetime(1900, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
    PlainSerializer(format_instant, when_used="json"),
]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Measure = Annotated[float, Field(allow_inf_nan=False)]
SentimentLabel = Literal["negative", "neutral", "positive"]


class Contract(BaseModel):
    """What all models here have in common: frozen, no coercion, bytes as base64url."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64"
    )

    def to_json(self) -> bytes:
        """The event as it travels: JSON without absent fields."""
        return self.model_dump_json(exclude_none=True).encode()


class Event(Contract):
    """A value of a topic."""

    schema_version: Literal[1] = 1


class ItemStatus(StrEnum):
    """What a feed says of its item: fit for use, a correction of an earlier one, or taken back."""

    usable = "usable"
    corrected = "corrected"
    withdrawn = "withdrawn"


class NewsItem(Event):
    """A piece of financial text, as a producer writes it to ``news.raw``.

    Without ``id`` the item is known by a hash of source, title and url.
    """

    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    title: str = ""
    body: str | None = None
    published_at: Instant | None = None
    source: Annotated[str, Field(max_length=256)] | None = None
    url: Annotated[str, Field(max_length=2048)] | None = None
    language: Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] | None = None
    symbols: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=64), FailFast()
    ] = ()
    revision: Count = 0
    status: ItemStatus = ItemStatus.usable
    supersedes: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self.status is not ItemStatus.withdrawn and not (self.title.strip() or (self.body or "").strip()):
            raise ValueError("title and body are both empty; only a withdrawn item may have no text")
        return self


class InputRef(Contract):
    """Coordinates of a raw record."""

    topic: str
    partition: Count
    offset: Count


class StackRef(Contract):
    """Which stack spoke: its name and the sha256 of its manifest."""

    name: str
    digest: str


class Sentiment(Contract):
    """Calibrated sentiment of the whole item.

    ``score`` is p(positive) - p(negative). ``entropy`` (of the pooled distribution) and ``disagreement`` (mutual
    information between the members) are in nats.
    """

    label: SentimentLabel
    score: Score
    probabilities: dict[SentimentLabel, Probability]
    entropy: Annotated[Measure, Field(ge=0)]
    disagreement: Annotated[Measure, Field(ge=0)]


class Topic(Contract):
    """Calibrated topic: the best label, and the probabilities of the best five, best first."""

    label: str
    probabilities: Annotated[dict[str, Probability], Field(max_length=5)]


class Entity(Contract):
    """Something the item is about, such as ``{"id": "AAPL", "scheme": "symbol"}``."""

    id: str
    scheme: str
    sentiment: Sentiment | None = None
    relevance: Probability | None = None


class LabelledEvent(Event):
    """A labelled item on ``news.labelled``; exactly one for each raw record that is neither dead nor a heartbeat.

    ``clock`` never falls within a partition; detection runs on it alone. ``event_id`` is derived from ``input``, so a
    consumer can drop repeats under at-least-once delivery. ``sentiment`` and ``topic`` are absent where the stack
    abstained, and ``abstained_because`` says why.
    """

    event_id: str
    item_id: str
    title: str
    url: str | None = None
    source: str
    published_at: Instant | None = None
    received_at: Instant
    clock: Instant
    labelled_at: Instant
    sentiment: Sentiment | None = None
    topic: Topic | None = None
    entities: tuple[Entity, ...] = ()
    status: ItemStatus = ItemStatus.usable
    revision: Count = 0
    supersedes: str | None = None
    similarity_key: str
    abstained: bool = False
    abstained_because: str | None = None
    degraded: bool = False
    stack: StackRef
    input: InputRef

    @model_validator(mode="after")
    def _labels_or_a_reason(self) -> Self:
        labelled = self.sentiment is not None and self.topic is not None
        if self.abstained is labelled or self.abstained is not (self.abstained_because is not None):
            raise ValueError("an event has both labels, or it abstained and says why")
        return self


class Progress(Event):
    """A promise on ``news.progress``: later clocks of this labelled partition are at or after ``clock``.

    It counts once a reader has reached ``labelled_next_offset`` of the labelled partition. ``lag`` is the number of
    raw records behind the end of the raw partition when the mark was made. Also the labeller's public heartbeat.
    """

    partition: Count
    clock: Instant
    labelled_next_offset: Count
    raw_next_offset: Count
    lag: Count
    stack: StackRef


class DeadLetter(Event):
    """A record that will never work, on ``news.dead``, with all that is needed to send it again.

    ``timestamp_ms`` is the record's own (-1 where it had none). ``kind`` is a short stable word, ``reason`` a sentence.
    """

    input: InputRef
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int
    kind: str
    reason: str
    attempts: Annotated[int, Field(ge=1)] = 1
    failed_at: Instant


class AlertStatus(StrEnum):
    """Where an alert stands in its life."""

    pending = "pending"
    firing = "firing"
    resolved = "resolved"


class AlertKind(StrEnum):
    """``negative_surge``: more bad news, and a larger share of all news; ``negative_volume``: only more of it.

    ``surge`` and ``volume`` are the same of another target than negative sentiment.
    """

    negative_surge = "negative_surge"
    negative_volume = "negative_volume"
    surge = "surge"
    volume = "volume"


class Severity(StrEnum):
    """How far an alert has gone beyond its threshold, at its height; rising."""

    info = "info"
    warning = "warning"
    critical = "critical"


class KeyType(StrEnum):
    """What a key groups items by. A plain ``global`` key is the whole market, a ``watchlist`` is a user's own set."""

    topic = "topic"
    entity = "entity"
    source = "source"
    market = "global"
    watchlist = "watchlist"


class ResolveReason(StrEnum):
    """Why an alert ended: evidence faded or did not come, it became the new normal, or its stories were taken back."""

    below_threshold = "below_threshold"
    quiet = "quiet"
    new_level = "new_level"
    withdrawn = "withdrawn"


class Baseline(Contract):
    """Gamma belief about the key's negative clusters a day: mean a / b; ``learning`` while nothing may fire.

    ``share`` is the usual share of negative ones among all clusters.
    """

    a: Annotated[Measure, Field(gt=0)]
    b: Annotated[Measure, Field(gt=0)]
    share: Probability | None = None
    learning: bool


class AlertRef(Contract):
    """Another alert."""

    alert_id: str
    key_type: KeyType
    key: str


class Evidence(Contract):
    """One story behind an alert: its first mention, and how many copies of it were folded into it.

    ``status`` is absent until the story was corrected or withdrawn.
    """

    item_id: str
    title: str
    url: str | None = None
    source: str
    score: Score
    received_at: Instant
    copies: Count
    status: ItemStatus | None = None


class Provenance(Contract):
    """What the alert was computed from: stack digests, rule version, coordinates of the evidence in its order."""

    stack: StackRef
    rule_version: str
    inputs: tuple[InputRef, ...]


class AlertEvent(Event):
    """A revision of an alert on ``news.alerts``; the newest revision of each ``alert_id`` is its state.

    Clocks: ``first_clock`` is that of the run's first negative story, ``starts_at`` when the test crossed its
    threshold, ``detected_at`` that of the record or timer behind this revision, ``ends_at`` of its end;
    ``emitted_at`` alone is wall time. Counts are of stories (copies folded) since ``first_clock``; ``n_sources`` stops
    at 16. ``expected`` is how many negative ones the baseline gives in that time, or in an hour if it is shorter;
    ``ratio`` = n_negative / expected. The test is the Gamma-Poisson run-CUSUM: ``W`` of the rate multiple ``R`` against
    its threshold ``h``, for a ``budget`` of false alerts a day. ``p_value`` is the chance of so many stories or more in
    this time at the usual rate, ``chance_a_day`` how many alerts of this strength chance alone gives a day, over all
    keys. ``inhibited_by`` are wider alerts that tell the same story. ``quality`` says what speaks against the numbers.
    Of another ``target`` than negative sentiment, what is called negative here is what the target counts.
    """

    alert_id: str
    revision: Annotated[int, Field(ge=1)]
    status: AlertStatus
    kind: AlertKind
    key_type: KeyType
    key: str
    first_clock: Instant
    starts_at: Instant
    detected_at: Instant
    emitted_at: Instant
    ends_at: Instant | None = None
    resolve_reason: ResolveReason | None = None
    n_negative: Count
    n_total: Count
    n_copies: Count
    n_sources: Count
    expected: Annotated[Measure, Field(gt=0)]
    ratio: Annotated[Measure, Field(ge=0)]
    R: Annotated[Measure, Field(gt=1)]
    W: Measure
    h: Annotated[Measure, Field(gt=0)]
    budget: Annotated[Measure, Field(gt=0)]
    severity: Severity | None = None
    p_value: Probability | None = None
    chance_a_day: Annotated[Measure, Field(ge=0)] | None = None
    target: str | None = None
    inhibited_by: tuple[AlertRef, ...] = ()
    quality: tuple[Literal["model_changed", "degraded_stack"], ...] = ()
    baseline: Baseline
    evidence: Annotated[tuple[Evidence, ...], Field(max_length=10)]
    incomplete_partitions: tuple[Count, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _ends_when_resolved(self) -> Self:
        ended = self.ends_at is not None and self.resolve_reason is not None
        if (self.status is AlertStatus.resolved) is not ended:
            raise ValueError("a resolved alert, and no other, has ends_at and resolve_reason")
        return self


class Matcher(Contract):
    """What an alert's ``field`` must be, in Alertmanager's terms; a pattern must match the whole value."""

    field: Literal["alert_id", "kind", "severity", "status", "key_type", "key", "target"]
    op: Literal["=", "!=", "=~", "!~"]
    value: Annotated[str, Field(max_length=256)]


class ActionKind(StrEnum):
    """What a person can do about alerts; a silence is on whatever matches, the others are on one alert."""

    acknowledge = "acknowledge"
    silence = "silence"
    note = "note"
    disposition = "disposition"


class AlertAction(Event):
    """What a person did, on ``news.actions``; the newest of each ``action_id`` counts, and one without value is undone.

    Sinks obey it; alerts are published as before. A silence holds from ``starts_at`` to before ``ends_at``.
    """

    action_id: Annotated[str, Field(min_length=1, max_length=256)]
    kind: ActionKind
    by: Annotated[str, Field(min_length=1, max_length=256)]
    at: Instant
    comment: Annotated[str, Field(max_length=4096)] = ""
    alert_id: str | None = None
    matchers: Annotated[tuple[Matcher, ...], Field(max_length=16)] = ()
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    disposition: Literal["true_alert", "false_alert", "duplicate", "expected"] | None = None

    @model_validator(mode="after")
    def _says_on_what(self) -> Self:
        silence = self.kind is ActionKind.silence
        window = self.starts_at is not None and self.ends_at is not None and self.starts_at < self.ends_at
        if silence and not (self.matchers and window and self.alert_id is None):
            raise ValueError("a silence has matchers, starts_at and a later ends_at, and no alert_id")
        if not silence and (self.alert_id is None or self.matchers or self.starts_at or self.ends_at):
            raise ValueError(f"action {self.kind.value} has an alert_id, and neither matchers nor a time")
        if (self.kind is ActionKind.disposition) is not (self.disposition is not None):
            raise ValueError("action disposition, and no other, has a disposition")
        if self.kind is ActionKind.note and not self.comment.strip():
            raise ValueError("a note has a comment")
        return self


WindowLength = Literal["5m", "1h", "1d"]


class TrendEvent(Event):
    """A key in a window of time, on ``news.trends``; the newest record of each key and window is its state.

    Windows lie side by side from midnight UTC on, on the clock of detection: ``starts_at`` is in, ``ends_at`` is not.
    ``clock`` is the instant at which this was told: before ``ends_at`` while the window is open, and at it the
    ``final`` record, after which none comes. Windows without an item have no record. ``n_items`` = ``n_clusters`` +
    ``n_copies``. Clusters are stories, copies folded: negative where p(negative) is at least one half, as in alerts,
    else positive where p(positive) is, else neutral; ``mean_score`` is the mean of their scores, absent where the
    window has copies alone. ``stack`` is the newest one heard, ``rule_version`` that of the detector.
    """

    key_type: KeyType
    key: str
    window: WindowLength
    starts_at: Instant
    ends_at: Instant
    final: bool
    clock: Instant
    n_items: Annotated[int, Field(ge=1)]
    n_clusters: Count
    n_negative: Count
    n_neutral: Count
    n_positive: Count
    n_copies: Count
    mean_score: Score | None = None
    stack: StackRef
    rule_version: str

    @property
    def record_key(self) -> str:
        """The key of its record, such as ``entity:symbol:AAPL|5m|2026-03-02T09:30:00.000Z``."""
        return f"{self.key_type.value}:{self.key}|{self.window}|{format_instant(self.starts_at)}"

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.n_negative + self.n_neutral + self.n_positive != self.n_clusters:
            raise ValueError("n_clusters is the sum of n_negative, n_neutral and n_positive")
        if self.n_clusters + self.n_copies != self.n_items:
            raise ValueError("n_items is the sum of n_clusters and n_copies")
        if (self.mean_score is not None) is not (self.n_clusters > 0):
            raise ValueError("a window with clusters, and no other, has a mean_score")
        if self.final is not (self.clock >= self.ends_at):
            raise ValueError("a window is final from its end on")
        return self


EVENTS: dict[str, type[Event]] = {
    "news_item": NewsItem,
    "labelled_event": LabelledEvent,
    "progress": Progress,
    "dead_letter": DeadLetter,
    "alert_event": AlertEvent,
    "alert_action": AlertAction,
    "trend_event": TrendEvent,
}
