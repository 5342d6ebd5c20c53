"""Alerts and trends do not depend on the number of shards, and each shard keeps its own keys and the common ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import AlertEvent, AlertKind, AlertStatus, ItemStatus, KeyType, LabelledEvent, ResolveReason
from surge_streams import DAY_SECONDS, WALL, arrivals, at, mark, stream
from worker.detector import Detector, Position, Stamp, combine_facts, read_stamp, run_through
from worker.errors import Misconfigured
from worker.runner.detector import restore_detector
from worker.settings import load_settings
from worker.surge.keys import NEGATIVE, Key, Target, Watchlist
from worker.surge.lifecycle import KeyFields
from worker.surge.ownership import WHOLE, Ownership, find_owner
from worker.surge.rules import Rules

DAYS = 4.0
END = 12 * DAY_SECONDS
RULES = Rules(
    targets=(NEGATIVE, Target("topic", "bank")),
    watchlists=(Watchlist("pair", ("symbol:B0", "symbol:B1")), Watchlist("talk", topics=("x",))),
    negatives_a_day=50,
    learning_days=0.5,
    max_frozen_hours=8,
    copy_window_hours=3,
    quiet_chance=0.05,
)

Items = list[tuple[float, dict[str, object]]]
Changelog = dict[bytes, bytes | None]


def told(random: Random) -> Items:
    """Some days of news on few keys, with surges of a topic, an entity and a source, and copies."""
    items: Items = [
        (
            seconds,
            {
                "negative": random.random() < 0.25,
                "symbols": (f"B{random.randrange(6)}",),
                "source": random.choice("abcd"),
                "topic": random.choice(("x", "y", "z", "bank")),
            },
        )
        for seconds in arrivals(random, 100, 0, DAYS)
    ]
    for rate, start, length in ((200, 1, 0.15), (120, 2, 0.4), (300, 3.2, 0.1)):
        symbol, topic = random.choice((None, "B1", "B4")), random.choice(("bank", "x"))
        items += [
            (
                seconds,
                {
                    "negative": random.random() < 0.9,
                    "symbols": (symbol or f"B{random.randrange(6)}",),
                    "source": random.choice("abcd"),
                    "topic": topic,
                },
            )
            for seconds in arrivals(random, rate, start, start + length)
        ]
    return items + [(seconds + 60, {**options, "title": "reprint", "source": "d"}) for seconds, options in items[::9]]


def with_corrections(random: Random, events: Sequence[LabelledEvent], some: int) -> list[LabelledEvent]:
    """The same, and later words on some of the stories: within their copy window, soon after it, or long after it."""
    later = []
    for item in random.sample(list(events), some):
        seconds = (item.clock - at(0)).total_seconds() + random.choice((60, 3600, 5 * 3600, DAY_SECONDS))
        status = random.choice((ItemStatus.corrected, ItemStatus.withdrawn))
        (word,) = stream([(seconds, {"negative": random.random() < 0.5, "status": status, "topic": "bank"})])
        named = {"item_id": item.item_id} if random.random() < 0.7 else {"supersedes": item.item_id}
        others = {"entities": item.entities, "source": item.source, "title": f"of {item.title}"}
        later.append(word.model_copy(update={**others, **named, "similarity_key": f"later {len(later)}"}))
    merged = sorted([*events, *later], key=lambda item: item.clock)
    return [
        item.model_copy(
            update={"event_id": f"news.raw-0-{n}", "input": item.input.model_copy(update={"offset": n})}
            | ({"item_id": f"word-{n}"} if item.supersedes else {})
        )
        for n, item in enumerate(merged)
    ]


@cache
def busy() -> tuple[LabelledEvent, ...]:
    random = Random(5)
    return tuple(with_corrections(random, stream(told(random)), 120))


@dataclass
class Found:
    """What the shards published together, and where they ended."""

    alerts: list[AlertEvent]
    trends: list[tuple[bytes, bytes]]
    shards: list[Detector]

    @property
    def published(self) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        return sorted(alert.to_json() for alert in self.alerts), sorted(self.trends)


def run(
    events: Sequence[LabelledEvent], shards: int, rules: Rules = RULES, random: Random | None = None, crash: float = 0.0
) -> Found:
    """Run all shards over the same events, each cut into batches of its own and now and then restored."""
    found = Found([], [], [])
    for shard in range(shards):
        run_shard(events, Ownership(shard, shards), rules, found, random or Random(1), crash)
    return found


def run_shard(
    events: Sequence[LabelledEvent], ownership: Ownership, rules: Rules, found: Found, random: Random, crash: float
) -> None:
    detector = Detector.restore(rules, 1, [], trends=True, ownership=ownership)
    log: Changelog = dict(detector.begin({0: Position(0, 0)}).changelog)
    read, marked, ended = 0, False, False
    while not ended:
        for item in events[read : read + random.randint(1, 200)]:
            detector.add_event(0, read, item)
            read += 1
        if read == len(events) and not marked:
            detector.add_mark(0, 0, mark(END, len(events)))
            marked = True
        batch = detector.step(random.randint(1, 400), WALL)
        crashed = random.random() < crash
        ended = marked and batch is None and not crashed
        if batch is not None and not (crashed and random.random() < 0.5):
            log.update(batch.changelog)
            found.alerts += batch.alerts
            found.trends += [(trend.key, trend.value) for trend in batch.trends]
        if crashed:
            detector = Detector.restore(rules, 1, log.items(), trends=True, ownership=ownership)
            position = detector.positions[0]
            read, marked = position.labelled_next_offset, position.progress_next_offset > 0
    found.shards.append(detector)


@cache
def whole() -> Found:
    return run(busy(), 1)


def test_the_stream_has_alerts_of_all_key_types_and_targets_and_all_that_shards_might_spoil():
    alerts = whole().alerts
    assert {alert.key_type for alert in alerts} == set(KeyType)
    assert {alert.target for alert in alerts} == {"sentiment=negative", "topic=bank"}
    assert {alert.status for alert in alerts} == set(AlertStatus)
    assert {alert.kind for alert in alerts} >= {AlertKind.negative_surge, AlertKind.surge}
    assert any(alert.inhibited_by for alert in alerts)
    assert any(alert.n_copies for alert in alerts)
    assert any(alert.resolve_reason is ResolveReason.withdrawn for alert in alerts)
    assert {story.status for alert in alerts for story in alert.evidence} > {ItemStatus.corrected, ItemStatus.withdrawn}
    assert len(late_revisions(alerts)) > 3


def late_revisions(alerts: Sequence[AlertEvent]) -> list[AlertEvent]:
    """Those made by the word on a story whose copies were not known any more."""
    words = {item.clock: item for item in busy() if item.status is not ItemStatus.usable}
    window = timedelta(hours=RULES.copy_window_hours)
    return [
        alert
        for alert in alerts
        if (word := words.get(alert.detected_at)) is not None
        for story in alert.evidence
        if story.item_id in {word.item_id, word.supersedes} and word.clock - story.received_at > window
    ]


def test_one_shard_gives_the_alerts_and_trends_of_the_back_test():
    batches = list(run_through(RULES, busy(), emitted_at=WALL, run_out=True, trends=True))
    alerts = sorted(alert.to_json() for batch in batches for alert in batch.alerts)
    trends = [(trend.key, trend.value) for batch in batches for trend in batch.trends]
    assert whole().published == (alerts, sorted(trends))


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_several_shards_give_the_same_alerts_and_trends_byte_for_byte(shards):
    found = run(busy(), shards)
    assert found.published == whole().published
    owners = {find_owner(str(Key.of(alert)), shards) for alert in found.alerts}
    assert len(owners) > 1


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_the_state_of_a_key_is_that_of_one_shard_at_its_owner_alone_but_for_the_common_keys(shards):
    expected = states(whole().shards[0])
    for shard, detector in enumerate(run(busy(), shards).shards):
        ours = {
            name
            for name in expected
            if Key.parse(name).type in {KeyType.market, KeyType.topic} or find_owner(name, shards) == shard
        }
        assert states(detector) == {name: expected[name] for name in ours}
        assert 0 < len(ours) < len(expected)


def states(detector: Detector) -> dict[str, KeyFields]:
    keys = detector._shard.keys
    return {name: state.fields() for name, state in keys.states()}


def test_what_belongs_to_no_key_is_the_same_in_every_shard():
    shards = run(busy(), 3).shards
    for detector in shards:
        assert detector._shard.totals() == whole().shards[0]._shard.totals()
        assert detector.positions == whole().shards[0].positions


def test_the_facts_of_all_shards_add_up_to_those_of_one():
    events = busy()[: len(busy()) // 2]

    def facts(shards: int) -> object:
        detectors = [Detector(RULES, 1, ownership=Ownership(shard, shards)) for shard in range(shards)]
        for detector in detectors:
            detector.begin({0: Position(0, 0)})
            for offset, item in enumerate(events):
                detector.add_event(0, offset, item)
            while detector.step(100, WALL) is not None:
                pass
        return combine_facts([detector.facts() for detector in detectors])

    assert facts(1).firing > 1
    assert facts(3) == facts(5) == facts(1)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), shards=st.integers(2, 5), watched=st.booleans(), corrected=st.integers(0, 200))
def test_any_stream_gives_any_number_of_shards_the_same_wherever_batches_end_and_workers_crash(
    seed, shards, watched, corrected
):
    random = Random(seed)
    events = stream(told(random))
    events = with_corrections(random, events, min(corrected, len(events)))
    rules = RULES if watched else replace(RULES, watchlists=(), targets=(NEGATIVE,))
    assert run(events, shards, rules, random, crash=0.1).published == run(events, 1, rules).published


# The stamp of the state


def test_every_key_has_one_owner_and_hardly_any_more_keys_than_another():
    names = [f"entity:symbol:T{n}" for n in range(3000)]
    counts = [sum(Ownership(shard, 3).owns(name) for name in names) for shard in range(3)]
    assert sum(counts) == len(names)
    assert min(counts) > 900
    assert all(WHOLE.owns(name) and WHOLE.keeps(Key.parse(name).type, name) for name in names)


@pytest.mark.parametrize(
    ("name", "owner"), [("global:global", 1), ("entity:symbol:AAPL", 1), ("topic=x\x1fsource:\udcff", 0)]
)
def test_a_key_has_the_same_owner_for_ever(name, owner):
    assert find_owner(name, 5) == owner


def begun(ownership: Ownership) -> Changelog:
    detector = Detector.restore(RULES, 1, [], ownership=ownership)
    return dict(detector.begin({0: Position(0, 0)}).changelog)


@pytest.mark.parametrize(("of", "given"), [((0, 1), (0, 2)), ((1, 2), (1, 3)), ((0, 2), (0, 1)), ((0, 2), (1, 2))])
def test_a_state_of_another_number_of_shards_is_refused_with_the_mend(of, given):
    stamped, now = Ownership(*of), Ownership(*given)
    log = begun(stamped)
    assert read_stamp(log[b"frontier"] or b"") == Stamp(1, stamped)
    with pytest.raises(ValueError, match=f"it is of {stamped}, and with surge.shards = {now.shards} this is {now}: set "
                                         f"surge.shards = {stamped.shards}, or begin anew"):  # fmt: skip
        Detector.restore(RULES, 1, log.items(), ownership=now)
    restored = load_settings(topics={"partitions": 1}, surge={"shards": now.shards})
    with pytest.raises(Misconfigured, match=f"news.surge-state cannot be continued from: it is of {stamped}"):
        restore_detector(restored, RULES, now.shard, log)


def test_the_state_of_one_shard_says_nothing_of_shards_so_that_older_workers_read_it():
    assert b"shard" not in (begun(WHOLE)[b"frontier"] or b"")
