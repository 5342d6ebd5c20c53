"""Synthetic labelled streams with known rates, for the tests of the detector."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from schemas.events import (
    Entity,
    InputRef,
    ItemStatus,
    LabelledEvent,
    Progress,
    Sentiment,
    StackRef,
    Topic,
)
from worker.judging.streams import DAY_SECONDS, draw_times

__all__ = ["DAY_SECONDS", "STACK", "START", "WALL", "arrivals", "at", "event", "mark", "sentiment", "stream"]

START = datetime(2026, 3, 2, tzinfo=UTC)
WALL = datetime(2026, 11, 24, tzinfo=UTC)
STACK = StackRef(name="test", digest="d1")
arrivals = draw_times


def at(seconds: float) -> datetime:
    """An instant of the stream, on whole milliseconds."""
    return START + timedelta(milliseconds=round(seconds * 1000))


def sentiment(negative: bool) -> Sentiment:
    p = 0.9 if negative else 0.1
    return Sentiment(
        label="negative" if negative else "neutral",
        score=-p,
        probabilities={"negative": p, "neutral": 1 - p, "positive": 0.0},
        entropy=0.1,
        disagreement=0.0,
    )


def event(
    number: int,
    seconds: float,
    *,
    negative: bool = True,
    symbols: Sequence[str] = ("ACME",),
    source: str = "wire",
    topic: str = "markets",
    topic_probability: float = 0.9,
    title: str | None = None,
    abstained: bool = False,
    status: ItemStatus = ItemStatus.usable,
    stack: StackRef = STACK,
    partition: int = 0,
) -> LabelledEvent:
    """One labelled event; its title is its number unless given, so that no two are copies."""
    return LabelledEvent(
        event_id=f"news.raw-{partition}-{number}",
        item_id=f"item-{number}",
        title=f"story {number}" if title is None else title,
        source=source,
        received_at=at(seconds),
        clock=at(seconds),
        labelled_at=WALL,
        sentiment=None if abstained else sentiment(negative),
        topic=None if abstained else Topic(label=topic, probabilities={topic: topic_probability}),
        entities=tuple(Entity(id=symbol, scheme="symbol") for symbol in symbols),
        status=status,
        similarity_key="s" if title is not None else f"s{number}",
        abstained=abstained,
        abstained_because="language" if abstained else None,
        stack=stack,
        input=InputRef(topic="news.raw", partition=partition, offset=number),
    )


def mark(seconds: float, next_offset: int, partition: int = 0) -> Progress:
    return Progress(
        partition=partition,
        clock=at(seconds),
        labelled_next_offset=next_offset,
        raw_next_offset=next_offset,
        lag=0,
        stack=STACK,
    )


def stream(items: Iterable[tuple[float, dict[str, object]]]) -> list[LabelledEvent]:
    """Events from (seconds, options of ``event``), in order of time."""
    ordered = sorted(items, key=lambda item: item[0])
    return [event(number, seconds, **options) for number, (seconds, options) in enumerate(ordered)]  # type: ignore[arg-type]
