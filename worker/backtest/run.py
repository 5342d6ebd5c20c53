"""A back-test: an archive through the labeller's and the detector's own code, without Kafka.

Its alerts are those that live workers write when the archive is fed to new topics, ids included.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from schemas.events import AlertEvent
from stacknorm.progress import Report, tell_nobody
from worker.backtest.archive import Labelled, News, Selection, read_archive
from worker.backtest.course import Course
from worker.backtest.history import History
from worker.backtest.label_store import KeptLabels, RememberingEngine, default_folder, place_of
from worker.backtest.overlap import Overlap, find_overlap
from worker.backtest.replay import label_lines, replay_events
from worker.codec import InputRules
from worker.engines import load_engine
from worker.feeds.jsonl import BadArchive
from worker.labeller import Engine
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


@dataclass(frozen=True, slots=True)
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
        alerts: every revision, in the order of the detector.
        trends: the newest record of each window; none unless asked for.
        histories: of the keys that fired.
        overlap: with the training data.
        labelling: None where the events came labelled.
        made_at: wall time.
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

    @property
    def lives(self) -> list[list[AlertEvent]]:
        """The revisions of each alert, alerts in the order in which they fired."""
        by_id: dict[str, list[AlertEvent]] = {}
        for alert in self.alerts:
            by_id.setdefault(alert.alert_id, []).append(alert)
        return list(by_id.values())


def run_backtest(
    paths: Sequence[Path],
    settings: Settings,
    *,
    selection: Selection = WHOLE,
    cache: Path | None = None,
    trends: bool = False,
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
        make_engine: makes what labels; not called for events that are labelled.
        report: told how far it is.

    Raises:
        BadArchive: a row that is no item; or nothing counts.
        DataError: a file cannot be read.
        Misconfigured: neither can a Parquet file, or labels cannot be kept.
        StacknormError: the bundle cannot be loaded.
    """
    now = datetime.now(UTC)
    rules = InputRules("json", settings.input.max_value_bytes, settings.input.max_text_chars)
    archive = read_archive(paths, selection, rules)
    if isinstance(archive, Labelled):
        course = Course(settings.rules, len(archive.partitions), now, trends=trends)
        course.follow(replay_events(archive.partitions, report))
        return _conclude(archive, course, settings, paths, None)
    course = Course(settings.rules, settings.topics.partitions, now, trends=trends)
    engine = make_engine(settings.engine)
    kept = KeptLabels(place_of(cache or default_folder(), engine.identity, settings.engine))
    remembering = RememberingEngine(engine, kept)
    place = (settings.topic_names.raw, settings.topics.partitions)
    with closing(kept):
        course.follow(label_lines(archive.lines, remembering, place, rules=rules, now=now, report=report))
    return _conclude(archive, course, settings, paths, Labelling(remembering.asked, kept.path))


def _conclude(
    archive: News | Labelled, course: Course, settings: Settings, paths: Sequence[Path], labelling: Labelling | None
) -> Backtest:
    if course.first is None or course.last is None:
        raise BadArchive(f"the stack could label none of the {course.dead:,} items")
    stack, _ = course.stacks.most_common(1)[0][0]
    fired = {Key.of(alert) for alert in course.alerts}
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
        overlap=find_overlap(*_texts_of(archive), stack, settings.engine),
        labelling=labelling,
        made_at=course.now,
    )


def _texts_of(archive: News | Labelled) -> tuple[list[str], list[str]]:
    """Titles, and titles with bodies, of which labelled events have none."""
    if isinstance(archive, Labelled):
        titles = [event.title for events in archive.partitions for event in events]
        return titles, titles
    items = [orjson.loads(line.value) for line in archive.lines]
    titles = [item.get("title", "") for item in items]
    return titles, [f"{title} {item.get('body', '')}" for title, item in zip(titles, items, strict=True)]
