"""The detector on what labellers wrote: every alert, and what became of each key on the way."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from schemas.events import AlertEvent, LabelledEvent, Progress, StackRef
from worker import codec
from worker.backtest.history import Histories
from worker.backtest.replay import Runs
from worker.detector import Detector, Position
from worker.labeller import LabelledRun
from worker.surge.rules import Rules
from worker.surge.trends import TrendRecord


class Course:
    """A detector that starts with empty topics and takes one record or timer at a time, so that each can be looked at.

    Alerts do not depend on how its input is cut. Owned by one thread.
    """

    def __init__(self, rules: Rules, partitions: int, now: datetime, *, trends: bool = False) -> None:
        self.detector = Detector(rules, partitions, trends=trends)
        self.detector.begin({number: Position(0, 0) for number in range(partitions)})
        self.now = now
        self.partitions = partitions
        self._labelled_offsets = [0] * partitions
        self._progress_offsets = [0] * partitions
        self._learning = True
        self._watching_since: tuple[float, int] = (0.0, 0)
        self.histories = Histories(rules)
        self.alerts: list[AlertEvent] = []
        self.trends: dict[bytes, TrendRecord] = {}
        """The newest record of each window, as the topic keeps it."""
        self.stacks: Counter[tuple[str, str]] = Counter()
        self.events = self.dead = self.abstained = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.watched_from: datetime | None = None
        self.watched_days = 0.0
        self.watched_negatives = 0
        """Negative stories while watching, each counted once for each of its keys."""

    def follow(self, units: Iterable[Runs]) -> None:
        """Take all units, and come to an end."""
        for runs in units:
            for partition, run in sorted(runs.items()):
                self._read(partition, run)
            self._drain()
        self._note_watching(learning=True)

    def _read(self, partition: int, run: LabelledRun) -> None:
        self.dead += len(run.dead)
        for event in run.events:
            self._count(event)
            self.detector.add_event(partition, self._labelled_offsets[partition], event)
            self._labelled_offsets[partition] += 1
        if run.clock_ms is not None:
            mark = Progress(
                partition=partition,
                clock=codec.to_instant(run.clock_ms),
                labelled_next_offset=self._labelled_offsets[partition],
                raw_next_offset=run.next_offset,
                lag=0,
                stack=StackRef(name="archive", digest=""),
            )
            self.detector.add_mark(partition, self._progress_offsets[partition], mark)
            self._progress_offsets[partition] += 1

    def _count(self, event: LabelledEvent) -> None:
        self.events += 1
        self.abstained += event.abstained
        self.stacks[event.stack.name, event.stack.digest] += 1
        self.first = event.clock if self.first is None else min(self.first, event.clock)
        self.last = event.clock if self.last is None else max(self.last, event.clock)

    def _drain(self) -> None:
        while (batch := self.detector.step(1, self.now)) is not None:
            self.histories.take(batch)
            self.alerts += batch.alerts
            self.trends.update((trend.key, trend) for trend in batch.trends)
            if self.detector.learning is not self._learning:
                self._note_watching(learning=self.detector.learning)

    def _note_watching(self, *, learning: bool) -> None:
        """Learning has begun or ended; a new stack makes the detector learn again."""
        facts = self.detector.facts()
        negatives = self.histories.keyed_negatives
        if not self._learning:
            days, before = self._watching_since
            self.watched_days += facts.exposure_days - days
            self.watched_negatives += negatives - before
        self._watching_since = (facts.exposure_days, negatives)
        self._learning = learning
        if not learning and self.watched_from is None:
            self.watched_from = facts.clock
