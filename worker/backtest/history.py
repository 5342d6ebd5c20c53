"""What each key went through: its stories, what was expected, and how far its test had come.

Read off the changelog, the records from which a shard is restored, so the detector itself does nothing for it.
"""

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.detector import Batch
from worker.surge.copies import Cluster, read_cluster
from worker.surge.keys import MARKET, Key
from worker.surge.lifecycle import KeyState, read_key
from worker.surge.rules import Rules
from worker.surge.runs import Banks, Runs, no_runs, readings
from worker.surge.versions import CLUSTER_PREFIX, KEY_PREFIX, STATE


def _clocks() -> "array[int]":
    return array("q")


def _measures() -> "array[float]":
    return array("d")


FADES = (1 / 16, 1 / 4, 1.0)
"""Parts of a pause at which W is looked at: it falls fast first."""
_WIDTH = len(FADES) + 2


class Step(NamedTuple):
    """A negative story in the test. The test's figure is W as a share of its threshold h.

    ``fading`` is the figure at `FADES` of the time since the story before, ``figure`` that with the story;
    ``usual_a_day`` is what the key's baseline gives, in negative stories a day.
    """

    clock_ms: int
    fading: tuple[float, ...]
    figure: float
    usual_a_day: float


class _Test(NamedTuple):
    """The charts of a key as its last negative story, or a timer since then, left them."""

    runs: Runs
    exposure_ms: int


@dataclass(slots=True)
class History:
    """One key's stories, by the clock of each, and the steps of its test. Copies are no stories."""

    stories_ms: "array[int]" = field(default_factory=_clocks)
    negatives_ms: "array[int]" = field(default_factory=_clocks)
    _steps_ms: "array[int]" = field(default_factory=_clocks)
    _measured: "array[float]" = field(default_factory=_measures)

    def add_step(self, step: Step) -> None:
        """A negative story joined the test."""
        self._steps_ms.append(step.clock_ms)
        self._measured.extend((*step.fading, step.figure, step.usual_a_day))

    @property
    def steps(self) -> list[Step]:
        """In their order; there are none while the detector learns."""
        rows = (self._measured[_WIDTH * n : _WIDTH * (n + 1)] for n in range(len(self._steps_ms)))
        return [
            Step(clock_ms, tuple(fading), figure, usual)
            for clock_ms, (*fading, figure, usual) in zip(self._steps_ms, rows, strict=True)
        ]


class Histories:
    """The histories of all keys, from the batches of a detector that takes one record or timer at a time.

    Memory: some 70 bytes for each story of each key, and 100 for its id.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._banks = Banks(rules)
        self._tests: dict[str, _Test] = {}
        self.by_key: defaultdict[str, History] = defaultdict(History)
        self._markets = {str(MARKET._replace(target=target)) for target in rules.targets}
        self._newest_seq = 0
        self.story_ids: list[str] = []
        """The event that first told each story; the others are copies, corrections or abstained."""
        self.negatives = 0
        self.keyed_negatives = 0

    @property
    def stories(self) -> int:
        """How many there were."""
        return len(self.story_ids)

    def take(self, batch: Batch) -> None:
        """Read one step of the detector."""
        changed = [(name.decode(), value) for name, value in batch.changelog if value is not None]
        keys = [(name.removeprefix(KEY_PREFIX), value) for name, value in changed if name.startswith(KEY_PREFIX)]
        if not batch.applied:
            self._note_timers(keys)
            return
        for name, value in changed:
            if name.startswith(CLUSTER_PREFIX):
                cluster = Cluster.of(STATE.open(name, value, read_cluster))
                if cluster.seq > self._newest_seq:  # else it was known before this record
                    self._newest_seq = cluster.seq
                    self._add_story(cluster, keys)

    def _note_timers(self, keys: list[tuple[str, bytes]]) -> None:
        """An alert ended or runs grew too old."""
        for name, value in keys:
            if (test := self._tests.get(name)) is not None:
                self._tests[name] = test._replace(runs=_read_key(name, value).runs)

    def _add_story(self, cluster: Cluster, keys: list[tuple[str, bytes]]) -> None:
        clock_ms = cluster.clock_ms
        self.story_ids.append(cluster.id)
        self.negatives += not self._markets.isdisjoint(cluster.keys)
        for name, value in keys:
            history = self.by_key[name]
            history.stories_ms.append(clock_ms)
            if name in cluster.keys:
                self.keyed_negatives += 1
                history.negatives_ms.append(clock_ms)
                self._add_step(name, _read_key(name, value), clock_ms, history)

    def _add_step(self, name: str, state: KeyState, clock_ms: int, history: History) -> None:
        if state.last_negative.clock_ms != clock_ms:
            return  # learning: the test has not begun
        now_ms = state.last_negative.exposure_ms
        a, b = state.baseline.rate(self._rules.priors.of(Key.parse(name).type))
        test = self._tests.get(name, _Test(no_runs(), now_ms))
        pause_ms = now_ms - test.exposure_ms
        fading = tuple(self._figure(name, test.runs, test.exposure_ms + round(part * pause_ms)) for part in FADES)
        history.add_step(Step(clock_ms, fading, self._figure(name, state.runs, now_ms), a / b))
        self._tests[name] = _Test(state.runs, now_ms)

    def _figure(self, name: str, runs: Runs, exposure_ms: int) -> float:
        """W / h of the chart that has come furthest; 0 at rest."""
        found = readings(runs, self._banks.of(Key.parse(name)), exposure_ms)
        return max(found[0].ratio, 0.0) if found else 0.0


def _read_key(name: str, value: bytes) -> KeyState:
    return KeyState.of(STATE.open(name, value, read_key))
