"""A labelled event as far as the detector reads it: plain values, read faster than the whole event."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, json

from schemas.events import ItemStatus, LabelledEvent, Sentiment, SentimentLabel

Probability = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Instant = Annotated[datetime, Meta(tz=True)]

_FIRST = datetime(1900, 1, 1, tzinfo=UTC)
_END = datetime(2200, 1, 1, tzinfo=UTC)


class Feeling(Struct, frozen=True, gc=False):
    """See ``schemas.events.Sentiment``."""

    score: Annotated[float, Meta(ge=-1, le=1)]
    probabilities: dict[SentimentLabel, Probability]


class Subject(Struct, frozen=True, gc=False):
    """See ``schemas.events.Topic``."""

    label: str
    probabilities: Annotated[dict[str, Probability], Meta(max_length=5)]


class Named(Struct, frozen=True, gc=False):
    """See ``schemas.events.Entity``."""

    id: str
    scheme: str
    sentiment: Feeling | None = None


class Speaker(Struct, frozen=True, gc=False):
    """See ``schemas.events.StackRef``."""

    name: str
    digest: str


class Coordinates(Struct, frozen=True, gc=False):
    """See ``schemas.events.InputRef``."""

    topic: str
    partition: Count
    offset: Count


class Labelled(Struct, frozen=True, gc=False, kw_only=True):
    """Fields of ``schemas.events.LabelledEvent`` by the same names and with the same checks; others are not looked at.

    Thousands wait for the merge: the garbage collector need not walk over their parts, none of which refers back.
    """

    schema_version: Literal[1] = 1
    event_id: str
    item_id: str
    title: str
    url: str | None = None
    source: str
    received_at: Instant
    clock: Instant
    sentiment: Feeling | None = None
    topic: Subject | None = None
    entities: tuple[Named, ...] = ()
    status: ItemStatus = ItemStatus.usable
    revision: Count = 0
    supersedes: str | None = None
    similarity_key: str
    abstained: bool = False
    abstained_because: str | None = None
    degraded: bool = False
    stack: Speaker
    input: Coordinates

    def __post_init__(self) -> None:
        labelled = self.sentiment is not None and self.topic is not None
        if self.abstained is labelled or self.abstained is not (self.abstained_because is not None):
            raise ValueError("an event has both labels, or it abstained and says why")
        if not (_FIRST <= self.received_at < _END and _FIRST <= self.clock < _END):
            raise ValueError("an instant is of the years 1900 to 2199")


News: TypeAlias = Labelled | LabelledEvent
"""Either form: an archive is read as whole events."""

Said: TypeAlias = Feeling | Sentiment
"""Either form of a sentiment."""

read_labelled: Callable[[bytes], Labelled] = json.Decoder(Labelled).decode
"""Raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``, which say less than the whole event would."""
