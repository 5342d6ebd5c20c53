"""Counts and mean sentiment of each key in windows that lie side by side on the merge clock. Pure.

Owns the windows that are open. Those of a key are the ones that its last item fell into, so what is to be told, and
when, follows from that item's clock alone: all that a restart needs beside the counts is what was told last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.events import LabelledEvent, StackRef, TrendEvent, WindowLength
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.keys import MIN_PROBABILITY, Key, is_negative
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

Told = tuple[int, str]
"""The last instant at which something was told, and the last key told of there; keys go by name."""


class Length(NamedTuple):
    """A kind of window: its name, how long it lasts, and how often it is told of while it is open."""

    name: WindowLength
    lasts_ms: int
    every_ms: int


LENGTHS = (
    Length("5m", 5 * MINUTE_MS, MINUTE_MS),
    Length("1h", HOUR_MS, 5 * MINUTE_MS),
    Length("1d", DAY_MS, HOUR_MS),
)
STEPS_MS = (MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, DAY_MS)
"""What ends first after an item: a window, or the time until one is told of."""


@dataclass(slots=True)
class KeyWindows:
    """The windows that a key's last item fell into, in the order of ``LENGTHS``."""

    key: Key
    last_clock_ms: int
    counts: list[list[int]] = field(default_factory=lambda: [[0] * 5 for _ in LENGTHS])

    def move(self, clock_ms: int) -> None:
        """Go on to the windows of a later item."""
        for index, length in enumerate(LENGTHS):
            if clock_ms // length.lasts_ms != self.last_clock_ms // length.lasts_ms:
                self.counts[index] = [0] * 5
        self.last_clock_ms = clock_ms


class Trends:
    """The open windows of all keys; counting leaves the names of changed keys in the dirty set.

    ``count`` wants items in merge order, after all that is due up to their clock was told. Owned by one thread.
    """

    def __init__(self, rule_version: str, versions: Versions = STATE) -> None:
        self._rule_version = rule_version
        self._versions = versions
        self._open: dict[str, KeyWindows] = {}
        self._due: dict[int, set[str]] = {}
        self._waiting: list[str] = []  # of those due first, the last in front
        self._dirty: dict[str, None] = {}
        self.due_ms = NEVER_MS
        self.told: Told = (0, "")

    def restore(self, told: Sequence[int | str] | None, records: Iterable[tuple[str, bytes]]) -> None:
        """Take over the windows that were open as of ``told``; without it they have missed items, and are dropped."""
        if told is not None:
            self.told = (int(told[0]), str(told[1]))
        for record_name, value in records:
            if not record_name.startswith(TREND_PREFIX):
                continue
            name = record_name.removeprefix(TREND_PREFIX)
            if told is None:
                self._dirty[name] = None
                continue
            last_clock_ms, *counts = self._versions.open(record_name, value)
            self._open[name] = KeyWindows(Key.parse(name), last_clock_ms, counts)
            self._schedule(name, last_clock_ms)

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """One record for each key changed since the last call, None where its windows are over."""
        changes = [((TREND_PREFIX + name).encode(), self._record(name)) for name in self._dirty]
        self._dirty.clear()
        return changes

    def _record(self, name: str) -> bytes | None:
        windows = self._open.get(name)
        if windows is None:
            return None
        return self._versions.seal(TREND_PREFIX + name, (windows.last_clock_ms, *windows.counts))

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` would give anything."""
        return bool(self._dirty)

    def count(self, keys: Mapping[str, Key], event: LabelledEvent, clock_ms: int, *, copy: bool) -> None:
        """Count an item on its keys: a story, or a copy of one."""
        place, score = (COPIES, 0) if copy else _read(event)
        for name, key in keys.items():
            windows = self._open.get(name)
            if windows is None:
                windows = self._open[name] = KeyWindows(key, clock_ms)
                self._schedule(name, clock_ms)
            elif windows.last_clock_ms // MINUTE_MS != clock_ms // MINUTE_MS:
                windows.move(clock_ms)
                self._schedule(name, clock_ms)
            for counts in windows.counts:
                counts[place] += 1
                counts[SCORES] += score
            self._dirty[name] = None

    def _schedule(self, name: str, clock_ms: int) -> None:
        for step_ms in STEPS_MS:
            due_ms = _next(clock_ms, step_ms)
            if (due_ms, name) > self.told:
                self._due.setdefault(due_ms, set()).add(name)
                self.due_ms = min(self.due_ms, due_ms)

    def tell(self, stack: StackRef) -> list[TrendEvent]:
        """What is due of the next few keys at ``due_ms``."""
        due_ms = self.due_ms
        if not self._waiting:
            self._waiting = sorted(self._due[due_ms], reverse=True)
        told: list[TrendEvent] = []
        for name in [self._waiting.pop() for _ in self._waiting[:KEYS_AT_ONCE]]:
            told += self._tell_of(name, due_ms, stack)
            self.told = (due_ms, name)
        if not self._waiting:
            del self._due[due_ms]
            self.due_ms = min(self._due, default=NEVER_MS)
        return told

    def _tell_of(self, name: str, now_ms: int, stack: StackRef) -> list[TrendEvent]:
        windows = self._open[name]
        last_ms = windows.last_clock_ms
        told = [
            self._event(windows.key, length, counts, last_ms - last_ms % length.lasts_ms, now_ms, stack)
            for length, counts in zip(LENGTHS, windows.counts, strict=True)
            if now_ms in {_next(last_ms, length.every_ms), _next(last_ms, length.lasts_ms)}
        ]
        if now_ms == _next(last_ms, DAY_MS):
            del self._open[name]
            self._dirty[name] = None
        return told

    def _event(  # noqa: PLR0917 -- what an event is made of
        self, key: Key, length: Length, counts: list[int], starts_ms: int, now_ms: int, stack: StackRef
    ) -> TrendEvent:
        negative, neutral, positive, copies, scores = counts
        clusters = negative + neutral + positive
        return TrendEvent(
            key_type=key.type,
            key=key.name,
            window=length.name,
            starts_at=instant_of(starts_ms),
            ends_at=instant_of(starts_ms + length.lasts_ms),
            final=now_ms == starts_ms + length.lasts_ms,
            clock=instant_of(now_ms),
            n_items=clusters + copies,
            n_clusters=clusters,
            n_negative=negative,
            n_neutral=neutral,
            n_positive=positive,
            n_copies=copies,
            mean_score=round(scores / clusters / SCORE_UNIT, 6) if clusters else None,
            stack=stack,
            rule_version=self._rule_version,
        )


def _next(clock_ms: int, step_ms: int) -> int:
    """The first multiple of a step after a clock."""
    return clock_ms - clock_ms % step_ms + step_ms


def _read(event: LabelledEvent) -> tuple[int, int]:
    """Which count a story adds to, and its score."""
    sentiment = event.sentiment
    assert sentiment is not None, f"{event.event_id} has no label"
    score = round(sentiment.score * SCORE_UNIT)
    if is_negative(event):
        return NEGATIVE, score
    is_positive = sentiment.probabilities.get("positive", 0.0) >= MIN_PROBABILITY
    return POSITIVE if is_positive else NEUTRAL, score
