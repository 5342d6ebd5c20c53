"""The life of alerts, step by step, beside a plain model of what the documents say of it."""

from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from math import expm1, log
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from schemas.events import (
    AlertEvent,
    AlertStatus,
    Entity,
    InputRef,
    ItemStatus,
    KeyType,
    LabelledEvent,
    NewsItem,
    Progress,
    ResolveReason,
    Severity,
)
from surge_streams import STACK, WALL, at, event, mark, sentiment
from worker.codec import similarity_keys
from worker.detector import Batch, Detector, Position, detect
from worker.surge.keys import NEGATIVE, Key, Target, Watchlist
from worker.surge.rules import Rules

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

PAIR = Watchlist("pair", ("symbol:A", "symbol:B"), ("y",), budget_a_day=2.0, negatives_a_day=10.0)
RULES = Rules(
    targets=(NEGATIVE, Target("topic", "x")),
    watchlists=(PAIR,),
    negatives_a_day=20,
    learning_days=0.05,
    guard_hours=1,
    quiet_hours=2,
    quiet_chance=0.05,
    max_frozen_hours=16,
    max_run_days=3,
    forget_key_days=4,
    copy_window_hours=6,
    max_silence_hours=1,
)
"""Two stories raise an alert, and all that takes days takes hours."""

SYMBOLS, SOURCES, TOPICS = ("A", "B", "C"), ("s1", "s2", "s3", "s4"), ("x", "y", "z")
LATER_MS = (0, 0, 1, 1000, MINUTE_MS, 10 * MINUTE_MS, 10 * MINUTE_MS, 40 * MINUTE_MS, 2 * HOUR_MS, 3 * HOUR_MS, DAY_MS)

Name = tuple[str, str, str]
"""Target, key type and key."""


@dataclass(frozen=True)
class Words:
    """Title and similarity key; ``folded`` is equal where the words are."""

    title: str
    folded: str = field(repr=False)
    similarity_key: str = field(repr=False)

    def same_as(self, other: "Words") -> bool:
        return (self.folded, self.similarity_key) == (other.folded, other.similarity_key)


def _alike(family: int, variant: int) -> Words:
    title = " ".join([*(f"f{family}w{n}" for n in range(40)), f"v{variant}"])
    (key,) = similarity_keys([NewsItem(title=title)])
    return Words(title, title, key)


TOLD = (
    Words("Acme sinks", "acme sinks", "s"),
    Words("  ACME: sinks!", "acme sinks", "s"),
    *(_alike(family, variant) for family in range(2) for variant in range(3)),
)


@dataclass(frozen=True)
class Item:
    """What comes; ``said`` is whether it is bad news of each symbol, None where that is not said of it alone."""

    number: int
    clock_ms: int
    partition: int
    offset: int
    stack: str
    negative: bool = True
    said: tuple[tuple[str, bool | None], ...] = (("A", None),)
    source: str = "s1"
    topic: str = "x"
    sure: bool = True
    abstained: bool = False
    words: Words = field(kw_only=True)
    status: ItemStatus = ItemStatus.usable
    item_id: str = ""
    supersedes: str | None = None

    def event(self) -> LabelledEvent:
        made = event(
            self.number,
            self.clock_ms / 1000,
            negative=self.negative,
            source=self.source,
            topic=self.topic,
            topic_probability=0.9 if self.sure else 0.4,
            abstained=self.abstained,
            status=self.status,
            stack=STACK.model_copy(update={"digest": self.stack}),
        )
        words = {"title": self.words.title, "similarity_key": self.words.similarity_key}
        entities = tuple(
            Entity(id=symbol, scheme="symbol", sentiment=None if bad is None else sentiment(bad))
            for symbol, bad in self.said
        )
        ref = InputRef(topic="news.raw", partition=self.partition, offset=self.offset)
        others = {"item_id": self.item_id, "supersedes": self.supersedes, "entities": entities, "input": ref}
        return made.model_copy(update=words | others)

    def keys(self) -> dict[Name, bool]:
        """Every key that it is on, and whether it is one of those that are watched for there."""
        said = {f"symbol:{symbol}": self.negative if bad is None else bad for symbol, bad in self.said}
        bad_on = {("global", "global"): self.negative, ("source", self.source): self.negative}
        if self.sure:
            bad_on["topic", self.topic] = self.negative
        bad_on |= {("entity", name): bad for name, bad in said.items()}
        members = [bad for name, bad in said.items() if name in PAIR.entities]
        members += [self.negative for topic in PAIR.topics if self.sure and topic == self.topic]
        if members:
            bad_on["watchlist", PAIR.name] = any(members)
        on_x = self.sure and self.topic == "x"
        return {("sentiment=negative", *key): bad for key, bad in bad_on.items()} | {
            ("topic=x", *key): on_x for key in bad_on
        }


@dataclass(eq=False)
class Story:
    """``keys`` as first told, ``hits`` those it still counts on, ``never`` those it was withdrawn from."""

    item: Item
    exposure_ms: int
    keys: dict[Name, bool]
    hits: set[Name]
    never: set[Name] = field(default_factory=set)
    copies: int = 0

    def takes_copies(self, clock_ms: int) -> bool:
        return clock_ms <= self.item.clock_ms + round(RULES.copy_window_hours * HOUR_MS)


def _positions(words: Words) -> list[bytes]:
    encoded = words.similarity_key[3:] if words.similarity_key.startswith("m1:") else ""
    signature = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    return [signature[i : i + 2] for i in range(0, len(signature), 2)]


def _likeness(one: list[bytes], other: list[bytes]) -> float:
    """Share of equal positions; 0 where no nine bands of seven has all of its own equal."""
    equal = [a == b for a, b in zip(one, other, strict=True)] if one and other else []
    found = any(all(equal[band * 7 : band * 7 + 7]) for band in range(len(equal) // 7))
    return sum(equal) / len(equal) if found else 0.0


class Model:
    """The log of stories, and the last word on each alert. Every count is taken from the log anew."""

    def __init__(self) -> None:
        self.exposure_ms = 0
        self.heard_clock_ms: int | None = None
        self.heard: dict[str, int] = {}
        self.learning_since_ms = 0
        self.stories: list[Story] = []
        self.by_input: dict[tuple[int, int], Story] = {}
        self.first: dict[str, AlertEvent] = {}
        self.fired: dict[str, AlertEvent] = {}
        self.told_when_fired: dict[str, int] = {}
        self.last: dict[str, AlertEvent] = {}
        self.open: dict[Name, str] = {}
        self.due: set[Name] = set()
        self.may_open: set[Name] = set()
        self.lost: set[Name] = set()

    @property
    def learning(self) -> bool:
        return self.exposure_ms - self.learning_since_ms < RULES.learning_days * DAY_MS

    def cited(self, name: Name) -> list[Story]:
        """The evidence of the alert of a key."""
        alert_id = self.open.get(name)
        return [] if alert_id is None else [self.by_input[i.partition, i.offset] for i in _inputs(self.last[alert_id])]

    def hear(self, item: Item, cites: Callable[[Name, Story], bool]) -> None:
        """An item came: who must be revised, who may open, who lost a story.

        ``cites`` says what no alert shows: whether a key has a story in one of its runs.
        """
        for alert_id in self.open.values():
            end_ms = self._end_ms(alert_id)
            assert end_ms is None or end_ms >= item.clock_ms, "an alert outlived its end"
        self._advance(item)
        self.due, self.may_open, self.lost = set(), set(), set()
        told = [] if item.status is ItemStatus.usable else self._find_told(item)
        revised = self._correct(told, item, cites)
        fresh = any(story.takes_copies(item.clock_ms) for story in told)
        if not (fresh or item.abstained or item.status is ItemStatus.withdrawn):
            self._tell(item, revised)

    def _advance(self, item: Item) -> None:
        if self.heard_clock_ms is not None:
            self.exposure_ms += min(item.clock_ms - self.heard_clock_ms, round(RULES.max_silence_hours * HOUR_MS))
        self.heard_clock_ms = item.clock_ms
        if item.stack not in self.heard or self.exposure_ms - self.heard[item.stack] > DAY_MS:
            self.learning_since_ms = self.exposure_ms
        self.heard[item.stack] = self.exposure_ms

    def _find_told(self, item: Item) -> list[Story]:
        named = [story for story in self.stories if story.item.item_id in {item.item_id, item.supersedes}]
        return [story for story in named if any(story.item.keys().values())]  # others never mattered

    def _correct(self, told: list[Story], item: Item, cites: Callable[[Name, Story], bool]) -> set[Name]:
        """Take stories back where they are known: everywhere for some hours, then by the keys that cite them."""
        whole = item.status is ItemStatus.withdrawn
        still = set() if whole or item.abstained else {name for name, hit in item.keys().items() if hit}
        revised: set[Name] = set()
        for story in told:
            fresh = story.takes_copies(item.clock_ms)
            cited = {name for name in story.hits if story in self.cited(name)}
            known = story.hits if fresh else cited | {name for name in story.hits if cites(name, story)}
            lost = known - still
            revised |= known
            self.lost |= lost
            self.due |= (lost | cited) & self.open.keys()
            story.hits = story.hits - lost
            if whole:
                story.never |= lost
        return revised

    def _tell(self, item: Item, revised: set[Name]) -> None:
        known = self._find_original(item)
        if known is not None:
            known.copies += 1
            return
        keys = {name: hit for name, hit in item.keys().items() if name not in revised}
        hits = {name for name, hit in keys.items() if hit}
        story = Story(item, self.exposure_ms, keys, set(hits))
        self.stories.append(story)
        self.by_input[item.partition, item.offset] = story
        self.due |= hits & self.open.keys()
        self.may_open = set() if self.learning else hits - self.due

    def _find_original(self, item: Item) -> Story | None:
        window = [story for story in self.stories if story.takes_copies(item.clock_ms)]
        for story in window:
            if story.item.words.same_as(item.words):
                return story
        signature = _positions(item.words)
        likeness = [_likeness(_positions(story.item.words), signature) for story in window]
        if max(likeness, default=0.0) < RULES.copy_likeness:
            return None
        alike = window[likeness.index(max(likeness))]
        ours, theirs = dict(item.said).keys(), dict(alike.item.said).keys()
        return None if ours and theirs and not ours & theirs else alike

    def check(self, alerts: Iterable[AlertEvent], item: Item | None) -> None:
        """What came of an item, or of time."""
        revised: set[Name] = set()
        for alert in alerts:
            name = (alert.target or "", alert.key_type.value, alert.key)
            assert name not in revised
            revised.add(name)
            if alert.revision == 1:
                self._check_first(alert, name)
            else:
                self._check_next(alert, name)
            self._check_word(alert, name)
            self._check_counts(alert, name)
            self._check_others(alert, name)
            if item is not None:
                assert _ms(alert.detected_at) == item.clock_ms
            if alert.status is AlertStatus.resolved:
                self._check_end(alert, name, item)
                del self.open[name]
            self.last[alert.alert_id] = alert
        if item is None:
            assert all(self.last[alert_id].status is AlertStatus.resolved for alert_id in {a.alert_id for a in alerts})
        else:
            assert self.due <= revised <= self.due | self.may_open

    def _check_first(self, alert: AlertEvent, name: Name) -> None:
        assert alert.alert_id not in self.last
        assert name not in self.open
        assert name in self.may_open
        assert alert.status is not AlertStatus.resolved
        assert alert.starts_at == alert.detected_at
        assert alert.h <= alert.W
        self.open[name] = alert.alert_id
        self.first[alert.alert_id] = alert

    def _check_next(self, alert: AlertEvent, name: Name) -> None:
        assert self.open[name] == alert.alert_id
        first, last = self.first[alert.alert_id], self.last[alert.alert_id]
        assert alert.revision == last.revision + 1
        assert (alert.starts_at, alert.provenance.rule_version) == (first.starts_at, first.provenance.rule_version)
        assert alert.detected_at >= last.detected_at
        assert _rank(alert.status) >= _rank(last.status)
        assert _rank(alert.severity) >= _rank(last.severity)
        if last.status is AlertStatus.firing:
            assert (alert.first_clock, alert.kind) == (last.first_clock, last.kind)

    def _check_word(self, alert: AlertEvent, name: Name) -> None:
        assert alert.first_clock <= alert.starts_at <= alert.detected_at
        if alert.status is AlertStatus.firing and alert.alert_id not in self.fired:
            self.fired[alert.alert_id] = alert
            self.told_when_fired[alert.alert_id] = len(self.stories)
            assert alert.h <= alert.W
            assert alert.n_negative >= RULES.min_clusters
        inputs = _inputs(alert)
        assert len(set(inputs)) == len(inputs) == len(alert.evidence)
        stories = [self.by_input[i.partition, i.offset] for i in inputs]
        assert all(story.keys.get(name) for story in stories)
        assert stories == sorted(stories, key=self.stories.index)
        assert [story.item.item_id for story in stories] == [shown.item_id for shown in alert.evidence]
        assert [story.copies for story in stories] == [shown.copies for shown in alert.evidence]
        assert _ms(alert.first_clock) == stories[0].item.clock_ms

    def _run(self, alert: AlertEvent, name: Name) -> list[Story]:
        """The stories on a key since the first one of the evidence."""
        first = self.stories.index(self.by_input[_inputs(alert)[0].partition, _inputs(alert)[0].offset])
        return [story for story in self.stories[first:] if name in story.keys]

    def _check_counts(self, alert: AlertEvent, name: Name) -> None:
        run = self._run(alert, name)
        hits = [story for story in run if name in story.hits]
        assert alert.n_negative == len(hits)
        assert alert.n_total == sum(name not in story.never for story in run)
        assert alert.n_copies == sum(story.copies for story in hits)
        assert alert.n_sources == len({story.item.source for story in run if story.keys[name]})

    def _check_others(self, alert: AlertEvent, name: Name) -> None:
        assert not alert.inhibited_by or name[1] == "entity"
        for ref in alert.inhibited_by:
            other = self.last[ref.alert_id]
            assert (other.status, other.key_type.value, other.key) == (AlertStatus.firing, "topic", ref.key)
            assert other.target == alert.target

    def _frozen_end_ms(self, alert_id: str) -> int:
        since = self.fired.get(alert_id, self.first[alert_id])
        return _ms(since.detected_at) + round(RULES.max_frozen_hours * HOUR_MS)

    def _quiet_end_ms(self, alert: AlertEvent) -> int | None:
        """When it has been quiet for long enough if no more items come; None where exposure stands still before."""
        name = (alert.target or "", alert.key_type.value, alert.key)
        told = [story for story in self._run(alert, name) if story.keys[name]]
        gaps, span_ms = max(alert.n_negative - 1, 1), told[-1].exposure_ms - told[0].exposure_ms
        quiet_ms = round(max(RULES.quiet_hours * HOUR_MS, span_ms * expm1(-log(RULES.quiet_chance) / gaps)))
        left_ms = told[-1].exposure_ms + quiet_ms - self.exposure_ms
        assert self.heard_clock_ms is not None
        return self.heard_clock_ms + left_ms if left_ms <= RULES.max_silence_hours * HOUR_MS else None

    def _end_ms(self, alert_id: str) -> int | None:
        quiet_ms = self._quiet_end_ms(self.last[alert_id])
        frozen_ms = self._frozen_end_ms(alert_id)
        return frozen_ms if quiet_ms is None else min(frozen_ms, quiet_ms)

    def _check_end(self, alert: AlertEvent, name: Name, item: Item | None) -> None:
        assert alert.ends_at == alert.detected_at
        assert (alert.resolve_reason is ResolveReason.withdrawn) is (item is not None)
        if item is not None:
            assert name in self.lost
        if alert.resolve_reason is ResolveReason.below_threshold:
            assert RULES.resolve_below * alert.h > alert.W
        since = self.stories[self.told_when_fired.get(alert.alert_id, 0) :]
        if alert.resolve_reason is ResolveReason.new_level:
            assert _ms(alert.ends_at) == self._frozen_end_ms(alert.alert_id)
            assert any(story.keys.get(name) for story in since)
        elif alert.resolve_reason is ResolveReason.quiet and _ms(alert.ends_at) != self._quiet_end_ms(alert):
            assert _ms(alert.ends_at) == self._frozen_end_ms(alert.alert_id)
            assert not any(name in story.hits for story in since)


def _inputs(alert: AlertEvent) -> Sequence[InputRef]:
    return alert.provenance.inputs


def _ms(instant: datetime | None) -> int:
    assert instant is not None
    return round((instant - at(0)).total_seconds() * 1000)


def _rank(step: AlertStatus | Severity | None) -> int:
    assert step is not None
    return [*type(step)].index(step)


told_items = st.fixed_dictionaries(
    {
        "negative": st.sampled_from([True, True, False]),
        "said": st.lists(
            st.tuples(st.sampled_from(SYMBOLS), st.sampled_from([None, None, True, False])),
            max_size=2,
            unique_by=lambda each: each[0],
        ).map(tuple),
        "source": st.sampled_from(SOURCES),
        "topic": st.sampled_from(TOPICS),
        "sure": st.sampled_from([True, True, False]),
        "words": st.sampled_from([None, None, None, *TOLD]),
        "abstained": st.sampled_from([False] * 7 + [True]),
    }
)


class Life(RuleBasedStateMachine):
    """A detector that is fed, stopped and restored; what it said before a crash it says again, byte for byte."""

    @initialize(partitions=st.integers(1, 3), seed=st.integers(0, 2**16))
    def begin(self, partitions: int, seed: int) -> None:
        self.random, self.model = Random(seed), Model()
        self.parts: list[list[LabelledEvent]] = [[] for _ in range(partitions)]
        self.marks: list[list[Progress]] = [[] for _ in range(partitions)]
        self.waiting: list[Item] = []
        self.applied: list[Item] = []
        self.alerts: list[AlertEvent] = []
        self.n_items, self.now_ms, self.stack = 0, 0, "d1"
        self.detector = Detector.restore(RULES, partitions, [])
        self.log = list(self.detector.begin(dict.fromkeys(range(partitions), Position(0, 0))).changelog)
        self.batches: list[Batch] = []
        self.committed = self.place = (0, 0)
        self.sound = True

    def _add(self, later_ms: int, partition: int | None = None, **told: Any) -> None:
        self.now_ms += later_ms
        number, self.n_items = self.n_items, self.n_items + 1
        if partition is None:
            partition = self.random.randrange(len(self.parts))
        offset = len(self.parts[partition])
        own: dict[str, Any] = {
            "item_id": f"item-{number}",
            "words": Words(f"story {number}", f"story {number}", f"s{number}"),
        }
        told = own | {name: value for name, value in told.items() if value is not None}
        item = Item(number, self.now_ms, partition, offset, self.stack, **told)
        self.waiting.append(item)
        self.parts[partition].append(item.event())
        self.detector.add_event(partition, offset, self.parts[partition][-1])
        self._go_on()

    def _mark(self) -> None:
        for number, marks in enumerate(self.marks):
            marks.append(mark(self.now_ms / 1000, len(self.parts[number]), number))
            self.detector.add_mark(number, len(marks) - 1, marks[-1])
        self._go_on()

    def _go_on(self) -> None:
        self.sound = False
        while True:
            corrects = any(item.status is not ItemStatus.usable for item in self.waiting)
            self.cited = self._read_cited() if corrects else {}
            batch = self.detector.step(1, WALL)
            if batch is None:
                break
            self.batches.append(batch)
            self._check(batch)
        self.sound = True

    def _check(self, batch: Batch) -> None:
        n_applied, n_alerts = self.place
        self.place = (n_applied + batch.applied, n_alerts + len(batch.alerts))
        again = self.alerts[n_alerts : self.place[1]]
        assert [alert.to_json() for alert in again] == [alert.to_json() for alert in batch.alerts[: len(again)]]
        if self.place[0] <= len(self.applied) and len(again) == len(batch.alerts):
            return  # told before the crash
        assert not again
        item = None
        if batch.applied:
            item = min(self.waiting, key=lambda each: (each.clock_ms, each.partition, each.offset))
            self.waiting.remove(item)
            self.applied.append(item)
            self.model.hear(item, self._cites)
        self.model.check(batch.alerts, item)
        self.alerts += batch.alerts

    def _cites(self, name: Name, story: Story) -> bool:
        target, key_type, key = name
        key_name = str(Key(KeyType(key_type), key, Target.parse(target)))
        return story.item.event().event_id in self.cited.get(key_name, ())

    def _read_cited(self) -> dict[str, set[str]]:
        """By key what its runs and alert cite, before an item changes it."""
        shard = self.detector._shard
        return {name: {shard._clusters[seq].id for seq in state.cited()} for name, state in shard.keys.states()}

    @rule(later_ms=st.sampled_from(LATER_MS), told=told_items)
    def an_item_comes(self, later_ms: int, told: dict[str, Any]) -> None:
        self._add(later_ms, **told)

    @rule(
        told=told_items,
        count=st.integers(2, 12),
        gap_ms=st.sampled_from([0, MINUTE_MS, MINUTE_MS, 10 * MINUTE_MS, HOUR_MS]),
        sources=st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3),
        spread=st.booleans(),
    )
    def a_burst_of_bad_news_comes(
        self, told: dict[str, Any], count: int, gap_ms: int, sources: list[str], spread: bool
    ) -> None:
        for n in range(count):
            burst = {"negative": True, "source": sources[n % len(sources)], "words": None, "abstained": False}
            about = {"said": ((SYMBOLS[n % len(SYMBOLS)], None),)} if spread else {}
            self._add(gap_ms, **told | burst | about)

    @precondition(lambda self: self.model.stories)
    @rule(data=st.data(), later_ms=st.sampled_from(LATER_MS), told=told_items)
    def a_story_is_told_again(self, data: st.DataObject, later_ms: int, told: dict[str, Any]) -> None:
        words = data.draw(st.sampled_from(self.model.stories[-12:])).item.words
        self._add(later_ms, **told | {"words": replace(words, title=f" {words.title.upper()}!")})

    @rule(told=told_items, count=st.integers(1, 14), gap_ms=st.sampled_from([20 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS]))
    def other_news_goes_on(self, told: dict[str, Any], count: int, gap_ms: int) -> None:
        for _ in range(count):
            self._add(gap_ms, **told | {"negative": False, "sure": False, "words": None})

    def _settle(self) -> None:
        """All that came is applied, and time is a millisecond beyond it."""
        self.now_ms += 1
        self._mark()
        assert not self.waiting

    def _take_back(self, story: Story, status: ItemStatus, superseding: bool, told: dict[str, Any]) -> None:
        name = {"supersedes": story.item.item_id} if superseding else {"item_id": story.item.item_id}
        self._add(0, 0, **told | {"words": None, "status": status} | name)

    @precondition(lambda self: self.model.stories)
    @rule(
        data=st.data(),
        status=st.sampled_from([ItemStatus.corrected, ItemStatus.withdrawn]),
        superseding=st.booleans(),
        told=told_items,
    )
    def a_story_is_taken_back(
        self, data: st.DataObject, status: ItemStatus, superseding: bool, told: dict[str, Any]
    ) -> None:
        """One that an alert cites, or that is fresh, or any."""
        self._settle()
        stories = self.model.stories
        cited = [story for story in stories if any(story in self.model.cited(name) for name in self.model.open)]
        fresh = [story for story in stories if story.takes_copies(self.now_ms)]
        some = [each for each in (cited, fresh, stories) if each]
        story = data.draw(st.sampled_from(data.draw(st.sampled_from(some))))
        self._take_back(story, status, superseding, told)

    @precondition(lambda self: self.model.open)
    @rule(
        data=st.data(),
        status=st.sampled_from([ItemStatus.corrected, ItemStatus.withdrawn, ItemStatus.withdrawn]),
        told=told_items,
    )
    def what_an_alert_cites_is_taken_back(self, data: st.DataObject, status: ItemStatus, told: dict[str, Any]) -> None:
        self._settle()
        if self.model.open:
            name = data.draw(st.sampled_from(sorted(self.model.open)))
            for story in self.model.cited(name):
                self._settle()
                if name in self.model.open and story in self.model.cited(name):
                    self._take_back(story, status, False, told | {"negative": False})

    @rule(told=told_items)
    def an_unknown_item_is_taken_back(self, told: dict[str, Any]) -> None:
        self._add(0, **told | {"status": ItemStatus.withdrawn, "item_id": "nobody's"})

    @rule(hours=st.sampled_from([3, 5, 9, 30, 24 * 5]))
    def the_feed_is_silent(self, hours: int) -> None:
        self.now_ms += hours * HOUR_MS
        self._mark()

    @rule(later_ms=st.sampled_from(LATER_MS))
    def time_passes(self, later_ms: int) -> None:
        self.now_ms += later_ms
        self._mark()

    @rule(digest=st.sampled_from(["d1", "d2", "d3"]))
    def another_stack_speaks(self, digest: str) -> None:
        self.stack = digest

    @rule()
    def what_was_done_is_committed(self) -> None:
        for batch in self.batches:
            self.log += batch.changelog
        self.batches, self.committed = [], self.place

    @rule()
    def the_worker_crashes(self) -> None:
        self.batches, self.place = [], self.committed
        self.detector = Detector.restore(RULES, len(self.parts), self.log)
        for number, (labelled, progress) in self.detector.positions.items():
            for offset, told in list(enumerate(self.parts[number]))[labelled:]:
                self.detector.add_event(number, offset, told)
            for offset, promise in list(enumerate(self.marks[number]))[progress:]:
                self.detector.add_mark(number, offset, promise)
        self._go_on()
        assert self.place == (len(self.applied), len(self.alerts))

    def teardown(self) -> None:
        if getattr(self, "sound", False):
            self.now_ms += 30 * DAY_MS
            self._mark()
            assert not self.waiting
            assert not self.model.open
            self._check_other_ways()

    def _check_other_ways(self) -> None:
        archive = detect(RULES, *self.parts, emitted_at=WALL, run_out=True)
        assert [alert.to_json() for alert in archive] == [alert.to_json() for alert in self.alerts]
        parts = _split(self.applied, self.random)
        assert [_said(alert) for alert in read(parts, self.random)] == [_said(alert) for alert in self.alerts]


def _said(alert: AlertEvent) -> bytes:
    """The alert without where its evidence lies."""
    return alert.model_copy(update={"provenance": alert.provenance.model_copy(update={"inputs": ()})}).to_json()


def _split(items: Sequence[Item], random: Random) -> list[list[LabelledEvent]]:
    """The same items over other partitions, which the merge puts into the same order."""
    parts: list[list[LabelledEvent]] = [[] for _ in range(random.randint(1, 3))]
    for _, at_once in groupby(items, key=lambda item: item.clock_ms):
        group = list(at_once)
        places = sorted(random.choices(range(len(parts)), k=len(group)))
        for item, number in zip(group, places, strict=True):
            parts[number].append(replace(item, partition=number, offset=len(parts[number])).event())
    return parts


def read(parts: Sequence[Sequence[LabelledEvent]], random: Random) -> list[AlertEvent]:
    """The alerts of partitions that are read in some interleaving and in batches of some size, with some crashes."""
    end_s = 40 * 365 * DAY_MS / 1000
    alerts: list[AlertEvent] = []
    detector = Detector.restore(RULES, len(parts), [])
    log = list(detector.begin(dict.fromkeys(range(len(parts)), Position(0, 0))).changelog)
    at_offset, marked = [0] * len(parts), [False] * len(parts)
    batch: Batch | None = None
    while batch is not None or not all(marked):
        number = random.randrange(len(parts))
        for told in parts[number][at_offset[number] : at_offset[number] + random.randint(1, 30)]:
            detector.add_event(number, at_offset[number], told)
            at_offset[number] += 1
        if at_offset[number] == len(parts[number]) and not marked[number]:
            detector.add_mark(number, 0, mark(end_s, at_offset[number], number))
            marked[number] = True
        batch = detector.step(random.randint(1, 80), WALL)
        kept = random.random() < 0.9
        if batch is not None and kept:
            log += batch.changelog
            alerts += batch.alerts
        if not kept or random.random() < 0.05:
            detector = Detector.restore(RULES, len(parts), log)
            at_offset = [detector.positions[n].labelled_next_offset for n in range(len(parts))]
            marked = [detector.positions[n].progress_next_offset > 0 for n in range(len(parts))]
    return alerts


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
