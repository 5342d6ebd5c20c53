"""An archive's own arrivals without its surges: whole days drawn anew, and dealt out anew which stories are negative.

A block bootstrap (Kuensch 1989). News comes in bursts and by the hour and day of the week, and whole days, each put on
a date of its own day of the week, keep that.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from random import Random

import numpy as np

from schemas.events import KeyType, LabelledEvent, StackRef
from stacknorm.bundle import Interval
from worker.detector import detect
from worker.judging.streams import UNNAMED, WALL, Arrival, Story, count_hits, write_arrivals
from worker.lives import fired_lives
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.exposure import Exposure
from worker.surge.keys import MIN_PROBABILITY, Mentions
from worker.surge.revision import clock_of
from worker.surge.rules import Rules

WEEK_DAYS = 7
MIN_DAYS = 14
"""Whole ones: two of each day of the week to draw from, and more than a week to watch once the detector has learned."""

Days = Mapping[int, Sequence[Arrival]]
"""The arrivals of each day since the epoch, one day after the other."""

_MENTIONS = Mentions()


@dataclass(frozen=True, slots=True)
class Watched:
    """A stream: its alerts, the exposure in which they could fire, and its hits in it, once for each of their keys."""

    alerts: int
    days: float
    keyed_hits: int


@dataclass(frozen=True, slots=True)
class Resampled:
    """All streams that were drawn from an archive; at least one, and all of them watched for some time."""

    streams: tuple[Watched, ...]

    @property
    def a_day(self) -> Interval:
        """Alerts a day, and between what they are in 95 % of the streams."""
        rates = [stream.alerts / stream.days for stream in self.streams]
        low, high = np.quantile(rates, (0.025, 0.975))
        return Interval(value=sum(rates) / len(rates), low=float(low), high=float(high))

    @property
    def pace(self) -> float:
        """Hits a day, each counted once for each of its keys."""
        return sum(stream.keyed_hits for stream in self.streams) / sum(stream.days for stream in self.streams)


class Arrivals:
    """The events of an archive as arrivals, by their ids. Owned by one thread.

    Memory: some 400 bytes an event.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Arrival] = {}

    def add(self, event: LabelledEvent) -> None:
        """Take an event, in any order."""
        self._by_id[event.event_id] = Arrival(clock_of(event.clock), read_story(event))

    def of(self, event_ids: Iterable[str]) -> list[Arrival]:
        """Those of some events, in order of time."""
        return sorted((self._by_id[event_id] for event_id in event_ids), key=itemgetter(0))


def read_story(event: LabelledEvent) -> Story:
    """What the detector looks at, less what is said of single entities."""
    mentions = _MENTIONS.of(event)
    named = {mention.type: mention.name for mention in mentions}
    entities = tuple(mention.name for mention in mentions if mention.type is KeyType.entity)
    probabilities = {} if event.sentiment is None else event.sentiment.probabilities
    sentiment = next((label for label, p in probabilities.items() if p >= MIN_PROBABILITY), None)
    return Story(sentiment, named.get(KeyType.topic), named.get(KeyType.source, UNNAMED), entities)


def split_days(arrivals: Sequence[Arrival]) -> Days:
    """The whole UTC days; an archive begins and ends within a day.

    Args:
        arrivals: in the order of time.
    """
    if not arrivals:
        return {}
    found: defaultdict[int, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        found[arrival.clock_ms // DAY_MS].append(arrival)
    return {day: found[day] for day in range(min(found) + 1, max(found))}


def draw_days(days: Days, dates: int, random: Random) -> list[Arrival]:
    """The first dates, on each of them the arrivals of one of the days that are its day of the week."""
    drawn: list[Arrival] = []
    for date in islice(sorted(days), dates):
        day = random.choice(range(min(days) + (date - min(days)) % WEEK_DAYS, max(days) + 1, WEEK_DAYS))
        later_ms = (date - day) * DAY_MS
        drawn += [Arrival(arrival.clock_ms + later_ms, arrival.story) for arrival in days[day]]
    return drawn


def deal_labels(arrivals: Sequence[Arrival], tasks: set[str], random: Random) -> list[Arrival]:
    """The same stories at the same times, with the labels of these tasks dealt out anew among them."""
    stories = [arrival.story for arrival in arrivals]
    for task in sorted(tasks):
        labels = [getattr(story, task) for story in stories]
        random.shuffle(labels)
        stories = [story._replace(**{task: label}) for story, label in zip(stories, labels, strict=True)]
    return [Arrival(arrival.clock_ms, story) for arrival, story in zip(arrivals, stories, strict=True)]


def watch_resampled(rules: Rules, days: Days, dates: int, stack: StackRef, seed: int) -> Watched:
    """One stream of so many dates. Under the stack that the rules' primer is of it is watched from the start."""
    random = Random(f"days {seed}")
    tasks = {target.task for target in rules.targets}
    events = write_arrivals(deal_labels(draw_days(days, dates, random), tasks, random), stack)
    primed = rules.primed is not None and rules.primed.stack_digest == stack.digest
    learning_ms = 0 if primed else round(rules.learning_days * DAY_MS)
    exposure = Exposure(round(rules.max_silence_hours * HOUR_MS))
    watched = [event for event in events if exposure.advance(clock_of(event.clock)) >= learning_ms]
    alerts = fired_lives(detect(rules, events, emitted_at=WALL))
    return Watched(len(alerts), max(exposure.total_ms - learning_ms, 0) / DAY_MS, count_hits(watched, rules))
