"""Labelled streams as the detector reads them, from a few facts about each story; and how to make stories up.

Made-up streams begin on a Monday at 0:00 UTC, and their seconds are of exposure: where an hour of the week counts for
less, less comes in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from random import Random
from typing import NamedTuple, cast

from schemas.events import Entity, InputRef, LabelledEvent, Sentiment, SentimentLabel, StackRef, Topic
from worker.surge.exposure import FLAT, MONDAY_MS, Profile
from worker.surge.keys import NEGATIVE, Mentions, count_on
from worker.surge.revision import instant_of
from worker.surge.rules import Priors, Profiles, Rules

DAY_SECONDS = 86_400.0
STACK = StackRef(name="judge", digest="")
UNNAMED = "judge"
"""The topic that all are said to be read from, which stands where no source is named."""

WALL = datetime(2026, 3, 2, tzinfo=UTC)
"""When alerts on made-up streams are said to be written."""

_START_MS = MONDAY_MS + 2930 * 7 * 86_400_000
SOURCES = ("a", "b", "c", "d")
TOPICS = tuple("vwxyz")
KEYS_OF_A_STORY = 4
"""Of a made-up one: the market, its source, its topic and its company."""


class Story(NamedTuple):
    """What the detector looks at: labels that are at least half probable, and entities as alerts name them.

    Stories of the same title are copies of each other; without one a story is like no other.
    """

    sentiment: str | None
    topic: str | None
    source: str
    entities: tuple[str, ...] = ()
    title: str = ""

    @property
    def is_negative(self) -> bool:
        """Whether it is bad news."""
        return self.sentiment == NEGATIVE.label


class Arrival(NamedTuple):
    """A story at a clock."""

    clock_ms: int
    story: Story


Timed = tuple[float, Story]
"""A made-up story at so many seconds."""


def rules_for_streams(rules: Rules) -> Rules:
    """The same V, F and watch-lists for made-up news, which is labelled by its sentiment alone.

    All keys have the market's week, since all are busy at the same time. A primer's keys are not those of the streams,
    nor is what it expects of new ones. Watch-lists with a budget of their own are left out: what they fire is not
    within F.
    """
    return replace(
        rules,
        targets=(NEGATIVE,),
        watchlists=tuple(watchlist for watchlist in rules.watchlists if watchlist.budget_a_day is None),
        profiles=Profiles(*(5 * (rules.profiles.market,))),
        priors=Priors(),
        primed=None,
    )


def draw_times(random: Random, rate_a_day: float, start_day: float, end_day: float) -> list[float]:
    """A Poisson process, in seconds."""
    times, now = [], start_day * DAY_SECONDS
    while (now := now + random.expovariate(rate_a_day / DAY_SECONDS)) < end_day * DAY_SECONDS:
        times.append(now)
    return times


def draw_story(random: Random, entity: str, *, negative: bool, topics: tuple[str, ...] = TOPICS) -> Story:
    """A story about an entity, on any topic from any source."""
    return Story("negative" if negative else "neutral", random.choice(topics), random.choice(SOURCES), (entity,))


def clock_at(seconds: float, profile: Profile = FLAT) -> datetime:
    """When so many seconds of exposure have gone by since the start, on whole milliseconds."""
    return instant_of(_clock_ms(seconds, profile))


def _clock_ms(seconds: float, profile: Profile) -> int:
    return profile.clock_ms(profile.exposure_ms(_START_MS) + round(seconds * 1000))


def time_stories(timed: Iterable[Timed], profile: Profile = FLAT) -> list[Arrival]:
    """When made-up stories arrive."""
    return [Arrival(_clock_ms(seconds, profile), story) for seconds, story in timed]


def write_timed(timed: Iterable[Timed], profile: Profile = FLAT) -> list[LabelledEvent]:
    """Made-up stories as events, in order of time."""
    return write_arrivals(time_stories(timed, profile))


def write_arrivals(arrivals: Iterable[Arrival], stack: StackRef = STACK) -> list[LabelledEvent]:
    """Stories as the events of one partition, in order of time, labelled by a stack."""
    ordered = sorted(arrivals, key=itemgetter(0))
    return [_write(number, instant_of(clock_ms), story, stack) for number, (clock_ms, story) in enumerate(ordered)]


def _write(number: int, clock: datetime, story: Story, stack: StackRef) -> LabelledEvent:
    title = story.title or f"story {number}"
    return LabelledEvent(
        event_id=f"judge-0-{number}",
        item_id=f"item-{number}",
        title=title,
        source=story.source,
        received_at=clock,
        clock=clock,
        labelled_at=clock,
        sentiment=_sentiment(story.sentiment),
        topic=_topic(story.topic),
        entities=tuple(map(_entity, story.entities)),
        similarity_key=title,
        stack=stack,
        input=InputRef(topic=UNNAMED, partition=0, offset=number),
    )


@lru_cache
def _sentiment(label: str | None) -> Sentiment:
    """Sure of a label, or of none."""
    others = 1 / 3 if label is None else 0.05
    probabilities = dict.fromkeys(("negative", "neutral", "positive"), others)
    if label is not None:
        probabilities[label] = 0.9
    return Sentiment(
        label=cast("SentimentLabel", label or "neutral"),
        score=probabilities["positive"] - probabilities["negative"],
        probabilities=cast("dict[SentimentLabel, float]", probabilities),
        entropy=0.0,
        disagreement=0.0,
    )


@lru_cache(maxsize=1 << 10)
def _topic(label: str | None) -> Topic:
    return Topic(label="", probabilities={}) if label is None else Topic(label=label, probabilities={label: 0.9})


@lru_cache(maxsize=1 << 14)
def _entity(name: str) -> Entity:
    scheme, _, identity = name.partition(":")
    return Entity(id=identity, scheme=scheme)


def count_hits(events: Iterable[LabelledEvent], rules: Rules) -> int:
    """Events that are hits, each counted once for each of its keys."""
    return sum(_hits_of(events, Mentions(rules.watchlists), rules))


def _hits_of(events: Iterable[LabelledEvent], mentions: Mentions, rules: Rules) -> Iterator[bool]:
    for event in events:
        for count in count_on(event, mentions.of(event), rules.targets):
            yield count.hit
