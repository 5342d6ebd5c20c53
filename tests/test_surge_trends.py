"""A key's windows hold what a naive recount of the stream finds, and are told of when the clock passes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import ItemStatus, LabelledEvent, Sentiment, TrendEvent
from surge_streams import DAY_SECONDS, START, WALL, at, event, mark, stream
from worker.detector import Detector, Position, run_through
from worker.surge.keys import Mentions
from worker.surge.rules import Rules
from worker.surge.trends import KEYS_AT_ONCE, TrendRecord

LASTS = {"5m": timedelta(minutes=5), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
COPY_WINDOW = timedelta(hours=Rules().copy_window_hours)
MINUTE, HOUR = 60.0, 3600.0
MARKET = "global:global"

Changelog = dict[bytes, bytes | None]


def judge(item: LabelledEvent, negative: float, positive: float) -> LabelledEvent:
    """The event with other probabilities, where it has any."""
    if item.sentiment is None:
        return item
    said = {"negative": negative, "neutral": 1 - negative - positive, "positive": positive}
    label = max(said, key=said.__getitem__)
    changes = {"label": label, "score": positive - negative, "probabilities": said}
    return item.model_copy(update={"sentiment": Sentiment.model_validate(item.sentiment.model_dump() | changes)})


def draw(seed: int, count: int = 120, days: float = 2.5) -> list[LabelledEvent]:
    """Items in clusters, many at boundaries of windows; copies, abstentions and withdrawn ones among them."""
    random = Random(seed)
    times = []
    for _ in range(count):
        moment = random.uniform(0, days * DAY_SECONDS) if random.random() < 0.3 or not times else times[-1]
        step = random.choice([0.001, 30.0, MINUTE, 5 * MINUTE, HOUR])
        times.append((moment // step + random.choice([0, 1])) * step + random.choice([0.0, 0.0, 0.001, -0.001, 20.0]))
    items = [
        (
            abs(seconds),
            {
                "symbols": tuple(random.sample(["A", "B", "C"], random.randint(0, 2))),
                "source": random.choice("xy"),
                "topic_probability": random.choice([0.4, 0.9]),
                "title": random.choice([None, "one", "two"]),
                "abstained": random.random() < 0.1,
                "status": random.choice([ItemStatus.withdrawn] + 9 * [ItemStatus.usable]),
            },
        )
        for seconds in times
    ]
    shares = [(0.5, 0.5), (0.9, 0.05), (0.1, 0.8), (0.4, 0.3), (0.123456789, 0.5)]
    return [judge(item, *random.choice(shares)) for item in stream(items)]


def told(*parts: Sequence[LabelledEvent]) -> list[TrendEvent]:
    """All that is told of an archive."""
    batches = run_through(Rules(), *parts, emitted_at=WALL, run_out=True, trends=True)
    return [trend.event for batch in batches for trend in batch.trends]


def name_of(trend: TrendEvent) -> str:
    return f"{trend.key_type.value}:{trend.key}"


class Counts(NamedTuple):
    negative: int = 0
    neutral: int = 0
    positive: int = 0
    copies: int = 0
    scores: float = 0.0


def counts_of(trend: TrendEvent) -> Counts:
    scores = (trend.mean_score or 0.0) * trend.n_clusters
    return Counts(trend.n_negative, trend.n_neutral, trend.n_positive, trend.n_copies, scores)


Recounted = dict[tuple[str, str, datetime], Counts]


def counted(events: Sequence[LabelledEvent]) -> Iterator[tuple[LabelledEvent, Counts]]:
    """What each item that counts adds to each of its keys."""
    first_seen: dict[str, datetime] = {}
    for item in events:
        if item.sentiment is None or item.status is ItemStatus.withdrawn:
            continue
        if item.title in first_seen and item.clock - first_seen[item.title] <= COPY_WINDOW:
            yield item, Counts(copies=1)
            continue
        first_seen[item.title] = item.clock
        said = item.sentiment.probabilities
        sense = "negative" if said["negative"] >= 0.5 else "positive" if said["positive"] >= 0.5 else "neutral"
        yield item, Counts(scores=item.sentiment.score)._replace(**{sense: 1})


def recount(events: Sequence[LabelledEvent]) -> Recounted:
    """Every window of every key, by name, length and start."""
    found: defaultdict[tuple[str, str, datetime], list[Counts]] = defaultdict(list)
    for item, adds in counted(events):
        for mention in Mentions().of(item):
            for window, lasts in LASTS.items():
                found[
                    f"{mention.type.value}:{mention.name}", window, START + (item.clock - START) // lasts * lasts
                ].append(adds)
    return {place: add_up(parts) for place, parts in found.items()}


def add_up(parts: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*parts, strict=True)))


def assert_alike(found: Recounted, expected: Recounted) -> None:
    assert found.keys() == expected.keys()
    for place, counts in found.items():
        assert counts[:-1] == expected[place][:-1], place
        assert counts.scores == pytest.approx(expected[place].scores, abs=2e-4)


def finals(trends: Sequence[TrendEvent], window: str) -> dict[tuple[str, datetime], TrendEvent]:
    return {(name_of(trend), trend.starts_at): trend for trend in trends if trend.final and trend.window == window}


drawn = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@drawn
@given(st.integers(0, 10**6))
def test_the_final_of_every_window_is_what_a_naive_recount_finds(seed):
    events = draw(seed)
    last = [trend for trend in told(events) if trend.final]
    assert len({trend.record_key for trend in last}) == len(last)
    assert_alike({(name_of(t), t.window, t.starts_at): counts_of(t) for t in last}, recount(events))


@drawn
@given(st.integers(0, 10**6))
def test_an_update_is_what_a_recount_finds_of_the_items_before_it(seed):
    events = draw(seed, count=40)
    for trend in told(events):
        seen = recount([item for item in events if item.clock < trend.clock])
        place = (name_of(trend), trend.window, trend.starts_at)
        assert_alike({place: counts_of(trend)}, {place: seen[place]})


@drawn
@given(st.integers(0, 10**6), st.sampled_from([("5m", "1h"), ("1h", "1d")]))
def test_the_finals_inside_a_longer_window_add_up_to_its_final(seed, lengths):
    trends = told(draw(seed))
    short, long = (finals(trends, window) for window in lengths)
    lasts = LASTS[lengths[1]]
    parts: defaultdict[tuple[str, str, datetime], list[Counts]] = defaultdict(list)
    for (name, starts_at), trend in short.items():
        parts[name, lengths[1], START + (starts_at - START) // lasts * lasts].append(counts_of(trend))
    assert parts
    assert_alike(
        {place: add_up(counts) for place, counts in parts.items()},
        {(name, lengths[1], starts_at): counts_of(trend) for (name, starts_at), trend in long.items()},
    )


@drawn
@given(st.integers(0, 10**6))
def test_the_last_of_each_window_is_its_final_and_nothing_is_told_twice(seed):
    trends = told(draw(seed))
    newest = {trend.record_key: trend for trend in trends}
    assert all(trend.final for trend in newest.values())
    assert len({(trend.record_key, trend.clock) for trend in trends}) == len(trends)
    assert [trend.clock for trend in trends] == sorted(trend.clock for trend in trends)


def test_a_window_is_told_of_at_the_steps_in_which_it_changed_and_at_its_end():
    events = stream([(seconds, {"symbols": ()}) for seconds in (150, 160, 430, 3 * HOUR)])
    market = [trend for trend in told(events) if name_of(trend) == MARKET]
    assert [
        (trend.window, (trend.clock - START) / timedelta(minutes=1), trend.n_items, trend.final) for trend in market
    ] == [
        ("5m", 3, 2, False),
        ("5m", 5, 2, True),
        ("1h", 5, 2, False),
        ("5m", 8, 1, False),
        ("5m", 10, 1, True),
        ("1h", 10, 3, False),
        ("1h", 60, 3, True),
        ("1d", 60, 3, False),
        ("5m", 181, 1, False),
        ("5m", 185, 1, True),
        ("1h", 185, 1, False),
        ("1h", 240, 1, True),
        ("1d", 240, 4, False),
        ("1d", 1440, 4, True),
    ]


def test_a_story_at_the_end_of_a_window_is_in_the_next_one():
    trends = told(stream([(4 * MINUTE + 59.999, {}), (5 * MINUTE, {}), (DAY_SECONDS, {})]))
    starts = {window: [t.starts_at for _, t in finals(trends, window).items() if name_of(t) == MARKET]
              for window in LASTS}  # fmt: skip
    assert starts["5m"] == [at(0), at(5 * MINUTE), at(DAY_SECONDS)]
    assert starts["1d"] == [at(0), at(DAY_SECONDS)]
    assert finals(trends, "1d")[MARKET, at(0)].n_items == 2


def test_a_copy_is_an_item_of_its_own_keys_and_no_story():
    trends = told(stream([(1, {"title": "t", "source": "x"}), (2, {"title": "T!", "source": "y"})]))
    market, x, y = (finals(trends, "5m")[name, at(0)] for name in (MARKET, "source:x", "source:y"))
    assert (market.n_items, market.n_clusters, market.n_negative, market.n_copies) == (2, 1, 1, 1)
    assert (x.n_items, x.n_copies) == (1, 0)
    assert (y.n_items, y.n_clusters, y.n_copies, y.mean_score) == (1, 0, 1, None)


@pytest.mark.parametrize("options", [{"abstained": True}, {"status": ItemStatus.withdrawn}])
def test_abstained_and_withdrawn_items_count_nowhere(options):
    assert not told(stream([(1, options), (400, options)]))


def test_what_is_written_is_the_event_and_its_key():
    for batch in run_through(Rules(), draw(4), emitted_at=WALL, trends=True):
        for trend in batch.trends:
            assert trend.key.decode() == trend.event.record_key
            assert orjson.loads(trend.value) == orjson.loads(trend.event.to_json())


def test_it_names_the_newest_stack_and_the_rule_version():
    trend = told(stream([(1, {})]))[0]
    assert (trend.stack, trend.rule_version) == (event(0, 0.0).stack, Rules().version)


# The state


def step_through(detector: Detector, log: Changelog, max_records: int = 50) -> list[TrendRecord]:
    trends: list[TrendRecord] = []
    while (batch := detector.step(max_records, WALL)) is not None:
        log.update(batch.changelog)
        trends += batch.trends
    return trends


def begin(log: Changelog, *, trends: bool = True) -> Detector:
    detector = Detector.restore(Rules(), 1, log.items(), trends=trends)
    if not detector.positions:
        log.update(detector.begin({0: Position(0, 0)}).changelog)
    return detector


def test_a_restart_between_any_two_keys_of_a_minute_loses_and_repeats_nothing():
    symbols = tuple(f"S{number}" for number in range(3 * KEYS_AT_ONCE))
    events = stream([(10, {"symbols": symbols}), (20, {"symbols": symbols[::2]})])
    log: Changelog = {}
    trends: list[TrendRecord] = []
    for _ in range(200):
        detector = begin(log)
        offset = detector.positions[0].labelled_next_offset
        for item in events[offset:]:
            detector.add_event(0, item.input.offset, item)
        if detector.positions[0].progress_next_offset == 0:
            detector.add_mark(0, 0, mark(2 * DAY_SECONDS, len(events)))
        batch = detector.step(1, WALL)
        if batch is None:
            break
        log.update(batch.changelog)
        trends += batch.trends
    whole = [trend for batch in run_through(Rules(), events, emitted_at=WALL, run_out=True, trends=True)
             for trend in batch.trends]  # fmt: skip
    assert trends == whole
    assert len(trends) > 6 * len(symbols)


def test_nothing_is_kept_of_a_day_that_is_over_and_an_empty_window_is_not_told_of():
    log: Changelog = {}
    detector = begin(log)
    detector.add_event(0, 0, event(0, 1.0))
    detector.add_mark(0, 0, mark(DAY_SECONDS, 1))
    assert step_through(detector, log)
    assert {name: value for name, value in log.items() if name.startswith(b"t:")}.keys() == {
        b"t:global:global", b"t:source:wire", b"t:topic:markets", b"t:entity:symbol:ACME",
    }  # fmt: skip
    assert not any(value for name, value in log.items() if name.startswith(b"t:"))
    detector.add_mark(0, 1, mark(3 * DAY_SECONDS, 1))
    assert not step_through(detector, log)


def test_windows_that_missed_items_while_trends_were_off_are_dropped():
    log: Changelog = {}
    detector = begin(log)
    detector.add_event(0, 0, event(0, 1.0))
    step_through(detector, log)
    assert log[b"t:global:global"]

    detector = begin(log, trends=False)
    detector.add_event(0, 1, event(1, 2.0))
    assert not step_through(detector, log)
    assert not any(value for name, value in log.items() if name.startswith(b"t:"))

    detector = begin(log)
    detector.add_event(0, 2, event(2, 3.0))
    detector.add_mark(0, 0, mark(HOUR, 3))
    assert {trend.event.n_items for trend in step_through(detector, log)} == {1}
