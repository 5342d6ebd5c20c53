"""A key's time line as numbers to draw: stories by hour or day, what was expected, the test, and when alerts fired."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise

from schemas.events import AlertEvent
from stacknorm.bundle import Interval
from stacknorm.evaluation.axes import Axis, axis_over
from worker.backtest.history import FADES, History, Step
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.revision import clock_of, instant_of

MAX_BARS = 96
MAX_TICKS = 7
MAX_POINTS = 800
MARGIN_MS = 6 * HOUR_MS
_STEPS_MS = tuple(round(hours * HOUR_MS) for hours in (0.25, 1, 3, 6, 24, 7 * 24, 28 * 24, 364 * 24))
_NAMES = ("15 minutes", "hour", "3 hours", "6 hours", "day", "week", "4 weeks", "year")


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time, by its share of the width, and the stories in it."""

    left: float
    width: float
    negatives: int
    stories: int
    when: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a picture shows. Places across are shares of its width; the test's figure is W as a share of h.

    ``usual`` are the expected stories of a bar; ``spans`` is where alerts fired; up to ``learning`` none could.
    """

    bars: tuple[Bar, ...]
    bar_name: str
    usual: tuple[tuple[float, float], ...]
    test: tuple[tuple[float, float], ...]
    spans: tuple[tuple[float, float], ...]
    learning: float
    ticks: tuple[tuple[float, str], ...]
    stories: Axis
    figures: Axis


@dataclass(frozen=True)
class Subject:
    """A key that fired, to be drawn: its history, its alerts, and when the archive began, could fire, and ended."""

    history: History
    lives: Sequence[Sequence[AlertEvent]]
    first: datetime
    watched_from: datetime
    last: datetime

    @cached_property
    def steps(self) -> list[Step]:
        """The stories in its test."""
        return self.history.steps

    @cached_property
    def test(self) -> list[tuple[int, float]]:
        """How far its test had come, by the clock."""
        return _test_line(self.steps, [life[-1] for life in self.lives if life[-1].ends_at is not None])


def draw_whole(subject: Subject) -> Timeline:
    """The key through the whole archive."""
    return _draw(subject, clock_of(subject.first), clock_of(subject.last) + 1)


def draw_alert(subject: Subject, life: Sequence[AlertEvent]) -> Timeline:
    """The hours around one of its alerts."""
    start_ms, end_ms = clock_of(life[0].first_clock), clock_of(life[-1].ends_at or subject.last)
    margin_ms = max(MARGIN_MS, (end_ms - start_ms) // 3)
    start_ms = max(start_ms - margin_ms, clock_of(subject.first))
    end_ms = min(end_ms + margin_ms, clock_of(subject.last) + 1)
    return _draw(subject, start_ms, max(end_ms, start_ms + 1))


def _draw(subject: Subject, start_ms: int, end_ms: int) -> Timeline:
    history = subject.history
    size = next((n for n, step in enumerate(_STEPS_MS) if (end_ms - start_ms) / step <= MAX_BARS), len(_STEPS_MS) - 1)
    step_ms = _STEPS_MS[size]
    start_ms, end_ms = start_ms // step_ms * step_ms, -(-end_ms // step_ms) * step_ms

    def share(clock_ms: float) -> float:
        return min(max((clock_ms - start_ms) / (end_ms - start_ms), 0.0), 1.0)

    bars = tuple(_bars(history, start_ms, end_ms, step_ms))
    usual = [(clock_ms, rate * step_ms / DAY_MS) for clock_ms, rate in _usual(subject.steps, start_ms, end_ms)]
    test = list(_within(subject.test, start_ms, end_ms))
    most = max([1.0, *(bar.negatives for bar in bars), *(height for _, height in usual)])
    furthest = max([1.0, *(height for _, height in test)])
    spans = ((clock_of(life[0].detected_at), clock_of(life[-1].ends_at or subject.last)) for life in subject.lives)
    return Timeline(
        bars=bars,
        bar_name=_NAMES[size],
        usual=tuple((share(clock_ms), height) for clock_ms, height in _thin(usual)),
        test=tuple((share(clock_ms), height) for clock_ms, height in _thin(test)),
        learning=share(clock_of(subject.watched_from)),
        spans=tuple((share(begin), share(end)) for begin, end in spans),
        ticks=tuple((share(clock_ms), name) for clock_ms, name in _ticks(start_ms, end_ms)),
        stories=axis_over([Interval(value=most, low=most, high=most)], from_zero=True),
        figures=axis_over([Interval(value=furthest, low=furthest, high=furthest)], from_zero=True, ticks=3),
    )


def _bars(history: History, start_ms: int, end_ms: int, step_ms: int) -> Iterator[Bar]:
    width = step_ms / (end_ms - start_ms)
    for number, low_ms in enumerate(range(start_ms, end_ms, step_ms)):
        negatives, stories = (
            bisect_left(clocks, low_ms + step_ms) - bisect_left(clocks, low_ms)
            for clocks in (history.negatives_ms, history.stories_ms)
        )
        yield Bar(number * width, width, negatives, stories, f"{instant_of(low_ms):%a %d %b %H:%M}")


def _usual(steps: Sequence[Step], start_ms: int, end_ms: int) -> Iterator[tuple[int, float]]:
    """The expected stories a day as a line of steps; it begins with the first story in the test."""
    before: Step | None = None
    for step in steps:
        if before is not None and step.clock_ms > start_ms and before.clock_ms < end_ms:
            yield max(before.clock_ms, start_ms), before.usual_a_day
            yield min(step.clock_ms, end_ms), before.usual_a_day
        before = step
    if before is not None and before.clock_ms < end_ms:
        yield max(before.clock_ms, start_ms), before.usual_a_day
        yield end_ms, before.usual_a_day


def _test_line(steps: Sequence[Step], ends: Sequence[AlertEvent]) -> list[tuple[int, float]]:
    """How far the test had come: up with each story, fading between them, from the start again after an alert.

    Args:
        steps: the stories in the test.
        ends: the last revision of each alert that ended, in their order.
    """
    line: list[tuple[int, float]] = []
    left = deque((clock_of(alert.detected_at), max(alert.W / alert.h, 0.0)) for alert in ends)
    before_ms: int | None = None
    for step in steps:
        faded = _fade(step, before_ms)
        if left and left[0][0] <= step.clock_ms:
            ended_ms, figure = left.popleft()
            faded = [(ended_ms, figure), (ended_ms, 0.0), *(point for point in faded if point[0] > ended_ms)]
        line += [*faded, (step.clock_ms, step.figure)]
        before_ms = step.clock_ms
    return line + [point for ended_ms, figure in left for point in ((ended_ms, figure), (ended_ms, 0.0))]


def _fade(step: Step, before_ms: int | None) -> list[tuple[int, float]]:
    """How the test fell from one story to the next."""
    if before_ms is None:
        return []
    pause_ms = step.clock_ms - before_ms
    return [(before_ms + round(part * pause_ms), figure) for part, figure in zip(FADES, step.fading, strict=True)]


def _within(line: Sequence[tuple[int, float]], start_ms: int, end_ms: int) -> Iterator[tuple[int, float]]:
    """The line between two instants, with the points where it crosses them."""
    for (left_ms, left), (right_ms, right) in pairwise(line):
        for edge_ms in (start_ms, end_ms):
            if left_ms < edge_ms < right_ms:
                yield edge_ms, left + (right - left) * (edge_ms - left_ms) / (right_ms - left_ms)
        if start_ms <= right_ms <= end_ms:
            yield right_ms, right


def _thin(line: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """At most so many points that a picture can show: the highest of each selection."""
    if len(line) <= MAX_POINTS:
        return line
    size = -(-len(line) // MAX_POINTS)
    return [max(line[n : n + size], key=lambda point: point[1]) for n in range(0, len(line), size)]


def _ticks(start_ms: int, end_ms: int) -> Iterator[tuple[int, str]]:
    steps = [round(hours * HOUR_MS) for hours in (1, 3, 6, 12, 24, 48, 168, 336, 672, 2184, 8736)]
    step_ms = next((step for step in steps if (end_ms - start_ms) / step <= MAX_TICKS), steps[-1])
    for clock_ms in range(-(-start_ms // step_ms) * step_ms, end_ms + 1, step_ms):
        moment = instant_of(clock_ms)
        midnight = moment - moment.replace(hour=0, minute=0) < timedelta(minutes=1)
        yield clock_ms, f"{moment.day} {moment:%b}" if midnight else f"{moment:%H:%M}"
