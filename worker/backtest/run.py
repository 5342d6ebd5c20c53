"""A back-test: an archive through the labeller's and the detector's own code, without Kafka.

Its alerts are those that live workers write when the archive is fed to new topics, ids included.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import orjson

from schemas.events import AlertEvent, StackRef
from stacknorm.progress import Report, tell_nobody
from worker.backtest.archive import Labelled, News, Selection, read_archive
from worker.backtest.course import Course
from worker.backtest.history import History
from worker.backtest.label_store import KeptLabels, RememberingEngine, default_folder, place_of
from worker.backtest.overlap import Overlap, find_overlap
from worker.backtest.replay import Runs, label_lines, replay_events
from worker.codec import InputRules
from worker.engines import load_engine
from worker.feeds.jsonl import BadArchive
from worker.judging.judge import Archive, Judgement, Plan, judge
from worker.judging.resampling import Arrivals, split_days
from worker.labeller import Engine
from worker.lives import fired_lives
from worker.settings import EngineSettings, Settings
from worker.surge.keys import Key
from worker.surge.rules import Rules
from worker.surge.trends import TrendRecord

WHOLE = Selection()


@dataclass(frozen=True, slots=True)
class Labelling:
    """How the labels were come by: texts the stack had to read, and where what it said is kept."""

    asked: int
    kept_in: Path


@dataclass(frozen=True)
class Backtest:
    """What came of it.

    Attributes:
        files: names of the files.
        rules: the detector's.
        partitions: of the topics that were imitated.
        first: clock of the first event.
        last: clock of the last event.
        watched_from: the clock from which on alerts could fire; None if that never came.
        watched_days: exposure since then: time, less silences of the whole archive.
        watched_negatives: negative stories since then, each counted once for each of its keys.
        events: labelled items, copies and abstentions among them.
        left_out: what is wrong with each row that is no item and was left out.
        dead: items that the stack could not label.
        abstained: events without a label.
        stories: items that are neither copies nor abstained.
        negatives: those of them that are negative.
        stacks: events by name and digest of what labelled them.
        alerts: every revision, pending ones too, in the order of the detector.
        trends: the newest record of each window; none unless asked for.
        histories: of the keys that fired.
        overlap: with the training data.
        labelling: None where the events came labelled.
        made_at: wall time.
        days: whole ones, from which arrivals were drawn anew; none unless judged.
        judgement: how far the alerts can be trusted; None unless asked for.
    """

    files: tuple[str, ...]
    rules: Rules
    partitions: int
    first: datetime
    last: datetime
    watched_from: datetime | None
    watched_days: float
    watched_negatives: int
    events: int
    left_out: tuple[str, ...]
    dead: int
    abstained: int
    stories: int
    negatives: int
    stacks: Mapping[tuple[str, str], int]
    alerts: tuple[AlertEvent, ...]
    trends: tuple[TrendRecord, ...]
    histories: Mapping[Key, History]
    overlap: Overlap
    labelling: Labelling | None
    made_at: datetime
    days: int = 0
    judgement: Judgement | None = None

    @cached_property
    def lives(self) -> list[list[AlertEvent]]:
        """Of each alert that fired, the revisions since then."""
        return fired_lives(self.alerts)


@dataclass(frozen=True, slots=True)
class Telling:
    """An archive that can be told again and again, as labellers would have written it.

    Attributes:
        archive: what was read.
        partitions: of the topics that are imitated.
        tell: gives its units, a report of what is done on the way.
        labelling: says how the labels were come by so far; None where the events came labelled.
    """

    archive: News | Labelled
    partitions: int
    tell: Callable[[Report], Iterable[Runs]]
    labelling: Callable[[], Labelling | None]


@contextmanager
def open_archive(
    paths: Sequence[Path],
    settings: Settings,
    now: datetime,
    *,
    selection: Selection = WHOLE,
    cache: Path | None = None,
    make_engine: Callable[[EngineSettings], Engine] = load_engine,
) -> Iterator[Telling]:
    """Read an archive, and load what labels it; see `run_backtest`."""
    rules = InputRules("json", settings.input.max_value_bytes, settings.input.max_text_chars)
    archive = read_archive(paths, selection, rules)
    if isinstance(archive, Labelled):
        events = archive.partitions
        yield Telling(archive, len(events), lambda report: replay_events(events, report), lambda: None)
        return
    engine = make_engine(settings.engine)
    kept = KeptLabels(place_of(cache or default_folder(), engine.identity, settings.engine))
    remembering = RememberingEngine(engine, kept)
    place, lines = (settings.topic_names.raw, settings.topics.partitions), archive.lines
    with closing(kept):
        yield Telling(
            archive,
            settings.topics.partitions,
            lambda report: label_lines(lines, remembering, place, rules=rules, now=now, report=report),
            lambda: Labelling(remembering.asked, kept.path),
        )


def run_backtest(
    paths: Sequence[Path],
    settings: Settings,
    *,
    selection: Selection = WHOLE,
    cache: Path | None = None,
    trends: bool = False,
    judging: Plan | None = None,
    processes: int = 1,
    make_engine: Callable[[EngineSettings], Engine] = load_engine,
    report: Report = tell_nobody,
) -> Backtest:
    """The alerts of an archive under these settings: `engine`, `surge`, `input`'s limits and `topics` count.

    Args:
        paths: see `read_archive`; what is in them need not be in order.
        settings: of the workers that are imitated. Whatever `idle_clock` is, time is the archive's.
        selection: what of the archive counts.
        cache: where labels are kept; `default_folder()` without it.
        trends: whether windows are counted, which takes some time.
        judging: how much is simulated to tell how far the alerts can be trusted; without it nothing.
        processes: that simulate.
        make_engine: makes what labels; not called for events that are labelled.
        report: told how far it is.

    Raises:
        BadArchive: a row that is no item; or nothing counts.
        DataError: a file cannot be read.
        Misconfigured: neither can a Parquet file, or labels cannot be kept.
        StacknormError: the bundle cannot be loaded.
    """
    now = datetime.now(UTC)
    with open_archive(paths, settings, now, selection=selection, cache=cache, make_engine=make_engine) as told:
        course, arrivals = Course(settings.rules, told.partitions, now, trends=trends), Arrivals()
        course.follow(told.tell(report) if judging is None else _note_arrivals(told.tell(report), arrivals))
        found = _conclude(told.archive, course, settings, paths, told.labelling())
    if judging is None:
        return found
    days = split_days(arrivals.of(course.histories.story_ids))
    archive = Archive(days, _main_stack(course))
    return replace(
        found, days=len(days), judgement=judge(settings.rules, archive, judging, processes=processes, report=report)
    )


def _conclude(
    archive: News | Labelled, course: Course, settings: Settings, paths: Sequence[Path], labelling: Labelling | None
) -> Backtest:
    if course.first is None or course.last is None:
        raise BadArchive(f"the stack could label none of the {course.dead:,} items")
    stack = _main_stack(course)
    fired = {Key.of(life[0]) for life in fired_lives(course.alerts)}
    return Backtest(
        files=tuple(path.name for path in paths),
        rules=settings.rules,
        partitions=course.partitions,
        first=course.first,
        last=course.last,
        watched_from=course.watched_from,
        watched_days=course.watched_days,
        watched_negatives=course.watched_negatives,
        events=course.events,
        left_out=archive.left_out if isinstance(archive, News) else (),
        dead=course.dead,
        abstained=course.abstained,
        stories=course.histories.stories,
        negatives=course.histories.negatives,
        stacks=dict(course.stacks),
        alerts=tuple(course.alerts),
        trends=tuple(course.trends.values()),
        histories={key: course.histories.by_key[str(key)] for key in fired},
        overlap=find_overlap(*_texts_of(archive), stack.name, settings.engine),
        labelling=labelling,
        made_at=course.now,
    )


def _main_stack(course: Course) -> StackRef:
    """That labelled most."""
    name, digest = course.stacks.most_common(1)[0][0]
    return StackRef(name=name, digest=digest)


def _note_arrivals(units: Iterable[Runs], arrivals: Arrivals) -> Iterator[Runs]:
    for runs in units:
        for run in runs.values():
            for event in run.events:
                arrivals.add(event)
        yield runs


def _texts_of(archive: News | Labelled) -> tuple[list[str], list[str]]:
    """Titles, and titles with bodies, of which labelled events have none."""
    if isinstance(archive, Labelled):
        titles = [event.title for events in archive.partitions for event in events]
        return titles, titles
    items = [orjson.loads(line.value) for line in archive.lines]
    titles = [item.get("title", "") for item in items]
    return titles, [f"{title} {item.get('body', '')}" for title, item in zip(titles, items, strict=True)]
