"""Counts and mean sentiment of each key in windows that lie side by side on the merge clock. Pure.

Owns the windows that are open. Those of a key are the ones that the minute of its last item lies in, so what is to be
told, and when, follows from that minute alone: all that a restart needs beside the counts is what was told last. There
are several records for each item, so they are written as JSON at once, and times are whole minutes of the epoch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import orjson
from msgspec import json

from schemas.events import StackRef, TrendEvent, WindowLength, format_instant
from worker.labelled import News, Said
from worker.surge.keys import MIN_PROBABILITY, Mention
from worker.surge.ownership import WHOLE, Ownership
from worker.surge.revision import instant_of
from worker.surge.versions import STATE, Versions

TREND_PREFIX = "t:"
MINUTE_MS = 60_000
NEVER_MS = 2**63
KEYS_AT_ONCE = 8
"""At midnight every key of the day is due: so many are told of in place of one record that a transaction takes."""

SCORE_UNIT = 1_000_000
"""Scores are summed in millionths: whole numbers give the same sum in every order, so windows add up exactly."""

NEGATIVE, NEUTRAL, POSITIVE, COPIES, SCORES = range(5)
"""Where each count of a window stands; the last is the sum of scores."""
NOTHING = (0, 0, 0, 0, 0)

_read_counts: json.Decoder[list[int]] = json.Decoder(list[int])

Told = tuple[int, str]
"""The last minute at which something was told, and the last key told of there; keys go by name."""


class Length(NamedTuple):
    """A kind of window: how long it lasts, and how often it is told of while it is open, both in minutes."""

    name: WindowLength
    lasts: int
    every: int


LENGTHS = (Length("5m", 5, 1), Length("1h", 60, 5), Length("1d", 1440, 60))
STEPS = (1, 5, 60, 1440)
"""At the ends of which something is due: of a window, or of the time until one is told of."""


class TrendRecord(NamedTuple):
    """A TrendEvent as it travels."""

    key: bytes
    value: bytes

    @property
    def event(self) -> TrendEvent:
        """The event in it."""
        return TrendEvent.model_validate_json(self.value)


@dataclass(slots=True)
class KeyWindows:
    """The windows that the minute of a key's last item lies in; their counts follow each other as in ``LENGTHS``."""

    minute: int
    counts: list[int] = field(default_factory=lambda: [*NOTHING] * 3)

    def move(self, minute: int) -> None:
        """Go on to the windows of a later item."""
        for index, length in enumerate(LENGTHS):
            if minute // length.lasts != self.minute // length.lasts:
                self.counts[5 * index : 5 * index + 5] = NOTHING
        self.minute = minute


class Telling(NamedTuple):
    """A kind of window at a minute in which it is told of: the window, where its counts begin, and what all keys share.

    It is told of the keys whose last item came at ``since`` or later.
    """

    since: int
    window: str
    begin: int
    shared: dict[str, Any]


class Trends:
    """The open windows of a shard's own keys; counting leaves the names of changed keys.

    ``count`` wants items in merge order, after all that is due up to their clock was told. Owned by one thread.
    """

    def __init__(self, rule_version: str, versions: Versions = STATE, ownership: Ownership = WHOLE) -> None:
        self._rule_version = rule_version
        self._owns = None if ownership.whole else ownership.owns
        self._versions = versions
        self._open: dict[str, KeyWindows] = {}
        self._due: dict[int, set[str]] = {}
        self._minute = -1
        self._due_after_minute: list[set[str]] = []  # where keys wait for the ends of the steps that it lies in
        self._waiting: list[str] = []  # of those that are due first, the last in front
        self._tellings: list[Telling] = []  # what they wait for
        self._dirty: dict[str, None] = {}
        self.due_ms = NEVER_MS
        self.told: Told = (0, "")

    def restore(self, told: Sequence[Any] | None, records: Iterable[tuple[str, bytes]]) -> None:
        """Take over the windows that were open as of ``told``; without it they have missed items, and are dropped."""
        names = {name.removeprefix(TREND_PREFIX): value for name, value in records if name.startswith(TREND_PREFIX)}
        if told is None:
            self._dirty = dict.fromkeys(names)
            return
        self.told = (told[0], told[1])
        for name, value in names.items():
            minute, *counts = self._versions.open(TREND_PREFIX + name, value, _read_counts)
            self._open[name] = KeyWindows(minute, counts)
            for step in STEPS:
                if (_next(minute, step), name) > self.told:
                    self._due.setdefault(_next(minute, step), set()).add(name)
        self._find_due()

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """One record for each key changed since the last call, None where its windows are over."""
        changes = [((TREND_PREFIX + name).encode(), self._record(name)) for name in self._dirty]
        self._dirty.clear()
        return changes

    def _record(self, name: str) -> bytes | None:
        windows = self._open.get(name)
        if windows is None:
            return None
        return self._versions.seal(TREND_PREFIX + name, (windows.minute, *windows.counts))

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` would give anything."""
        return bool(self._dirty)

    def count(self, mentions: Iterable[Mention], event: News, clock_ms: int, *, copy: bool) -> None:
        """Count an item on its keys: a story, or a copy of one."""
        minute = clock_ms // MINUTE_MS
        if minute != self._minute:
            self._begin(minute)
        whole = (COPIES, 0) if copy else _read([event.sentiment])
        for mention in mentions:
            name = mention.key
            if self._owns is not None and not self._owns(name):
                continue
            place, score = whole if copy or not mention.sentiments else _read(mention.sentiments)
            windows = self._open.get(name)
            if windows is None:
                windows = self._open[name] = KeyWindows(minute)
                self._schedule(name)
            elif windows.minute != minute:
                windows.move(minute)
                self._schedule(name)
            counts = windows.counts
            for begin in (0, 5, 10):
                counts[begin + place] += 1
                counts[begin + SCORES] += score
            self._dirty[name] = None

    def _begin(self, minute: int) -> None:
        self._minute = minute
        self._due_after_minute = [self._due.setdefault(_next(minute, step), set()) for step in STEPS]
        self._find_due()

    def _schedule(self, name: str) -> None:
        for names in self._due_after_minute:
            names.add(name)

    def _find_due(self) -> None:
        self.due_ms = min(self._due) * MINUTE_MS if self._due else NEVER_MS

    def tell(self, stack: StackRef) -> list[TrendRecord]:
        """What is due at ``due_ms`` of the next few keys."""
        now = self.due_ms // MINUTE_MS
        if not self._waiting:
            self._waiting = sorted(self._due[now], reverse=True)
            self._tellings = self._find_tellings(now, stack)
        records: list[TrendRecord] = []
        for _ in range(min(KEYS_AT_ONCE, len(self._waiting))):
            name = self._waiting.pop()
            self.told = (now, name)
            windows = self._open[name]
            records += [_write(name, windows.counts, each) for each in self._tellings if windows.minute >= each.since]
            if not now % STEPS[-1]:
                del self._open[name]
                self._dirty[name] = None
        if not self._waiting:
            del self._due[now]
            self._find_due()
        return records

    def _find_tellings(self, now: int, stack: StackRef) -> list[Telling]:
        """The windows that end now, of the keys that have an item in them, and open ones of keys with a newer item."""
        tellings = []
        for index, length in enumerate(LENGTHS):
            final = not now % length.lasts
            if final or not now % length.every:
                since = now - (length.lasts if final else length.every)
                starts_at = _spell((now - 1) // length.lasts * length.lasts)
                shared = {
                    "schema_version": 1,
                    "window": length.name,
                    "starts_at": starts_at,
                    "ends_at": _spell(_next(now - 1, length.lasts)),
                    "final": final,
                    "clock": _spell(now),
                    "stack": {"name": stack.name, "digest": stack.digest},
                    "rule_version": self._rule_version,
                }
                tellings.append(Telling(since, f"{length.name}|{starts_at}", 5 * index, shared))
        return tellings


def _write(name: str, counts: Sequence[int], telling: Telling) -> TrendRecord:
    negative, neutral, positive, copies, scores = counts[telling.begin : telling.begin + 5]
    clusters = negative + neutral + positive
    key_type, _, key = name.partition(":")
    fields = telling.shared | {
        "key_type": key_type,
        "key": key,
        "n_items": clusters + copies,
        "n_clusters": clusters,
        "n_negative": negative,
        "n_neutral": neutral,
        "n_positive": positive,
        "n_copies": copies,
    }
    if clusters:
        fields["mean_score"] = round(scores / clusters / SCORE_UNIT, 6)
    return TrendRecord(f"{name}|{telling.window}".encode(), orjson.dumps(fields))


def _next(minute: int, step: int) -> int:
    """The first multiple of a step after a minute."""
    return minute - minute % step + step


def _spell(minute: int) -> str:
    return format_instant(instant_of(minute * MINUTE_MS))


def _read(said: Sequence[Said | None]) -> tuple[int, int]:
    """Which count a story adds to, as alerts see it, and its score: the mean of what is said of a key."""
    told = [sentiment for sentiment in said if sentiment is not None]
    score = round(fmean(sentiment.score for sentiment in told) * SCORE_UNIT)
    if any(sentiment.probabilities.get("negative", 0.0) >= MIN_PROBABILITY for sentiment in told):
        return NEGATIVE, score
    is_positive = any(sentiment.probabilities.get("positive", 0.0) >= MIN_PROBABILITY for sentiment in told)
    return POSITIVE if is_positive else NEUTRAL, score
