"""A labelled event as far as the detector reads it: plain values, which cost a third less than the whole event."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter

from schemas.events import (
    Contract,
    Count,
    Instant,
    ItemStatus,
    LabelledEvent,
    Probability,
    Score,
    Sentiment,
    SentimentLabel,
)


@dataclass(frozen=True, slots=True)
class Feeling:
    """See ``schemas.events.Sentiment``."""

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

    score: Score
    probabilities: dict[SentimentLabel, Probability]


@dataclass(frozen=True, slots=True)
class Subject:
    """See ``schemas.events.Topic``."""

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

    label: str
    probabilities: Annotated[dict[str, Probability], Field(max_length=5)]


@dataclass(frozen=True, slots=True)
class Named:
    """See ``schemas.events.Entity``."""

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

    id: str
    scheme: str
    sentiment: Feeling | None = None


@dataclass(frozen=True, slots=True)
class Speaker:
    """See ``schemas.events.StackRef``."""

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Coordinates:
    """See ``schemas.events.InputRef``."""

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

    topic: str
    partition: Count
    offset: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Fields of ``schemas.events.LabelledEvent`` by the same names and with the same checks; others are not looked at.

    Thousands wait for the merge, and the garbage collector walks over each of their parts.
    """

    __pydantic_config__: ClassVar[ConfigDict] = Contract.model_config

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


News: TypeAlias = Labelled | LabelledEvent
"""Either form: an archive is read as whole events."""

Said: TypeAlias = Feeling | Sentiment
"""Either form of a sentiment."""

read_labelled: Callable[[bytes], Labelled] = TypeAdapter(Labelled).validator.validate_json
