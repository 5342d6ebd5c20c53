"""A state is the same to everything outside whether it is kept as an object or as its record."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import AlertEvent
from surge_streams import DAY_SECONDS, WALL, arrivals, mark, stream
from worker.detector import Detector, Position
from worker.surge.baseline import DAY_MS, Baseline
from worker.surge.lifecycle import KeyState
from worker.surge.rules import Rules
from worker.surge.store import Keys
from worker.surge.versions import STATE

SENSITIVE = Rules(negatives_a_day=50, learning_days=0.5, max_frozen_hours=8, max_run_days=0.4, forget_key_days=0.6)
"""Alerts of every kind, and keys that are forgotten within the day."""

Changelog = dict[bytes, bytes | None]


def busy(seed: int) -> list[tuple[float, dict[str, object]]]:
    """Four days of many rare symbols and of one that surges."""
    random = Random(seed)
    quiet = [
        (
            seconds,
            {"negative": random.random() < 0.3, "symbols": (f"T{random.randrange(40)}",), "source": "abcd"[n % 4]},
        )
        for n, seconds in enumerate(arrivals(random, 80, 0, 4))
    ]
    bad = [(seconds, {"symbols": ("T3",), "source": "abcd"[n % 4]})
           for n, seconds in enumerate(arrivals(random, 200, 1.2, 1.35))]  # fmt: skip
    return quiet + bad


def run(seed: int, max_hot: int, batch: int) -> tuple[list[AlertEvent], Changelog, Detector]:
    """The alerts and the newest records of a stream, with so many states kept as objects and so long batches."""
    detector = Detector(SENSITIVE, 1)
    detector._shard.keys = Keys(SENSITIVE, STATE, max_hot)
    log = dict(detector.begin({0: Position(0, 0)}).changelog)
    items = stream(busy(seed))
    for item in items:
        detector.add_event(0, item.input.offset, item)
    detector.add_mark(0, 0, mark(4 * DAY_SECONDS, len(items)))
    alerts: list[AlertEvent] = []
    while (step := detector.step(batch, WALL)) is not None:
        log.update(step.changelog)
        alerts += step.alerts
    return alerts, log, detector


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 7]), st.sampled_from([1, 13, 200]))
def test_neither_alerts_nor_records_tell_how_many_states_are_kept_as_objects(seed, max_hot, batch):
    alerts, log, detector = run(seed, max_hot, batch)
    expected, expected_log, roomy = run(seed, 10**6, 10**6)
    assert [alert.to_json() for alert in alerts] == [alert.to_json() for alert in expected]
    assert {name: value for name, value in log.items() if value is not None} == {
        name: value for name, value in expected_log.items() if value is not None
    }
    assert detector.facts() == roomy.facts()
    assert len(detector._shard.keys._hot) <= max_hot


def test_the_stream_has_alerts_and_forgotten_keys():
    alerts, log, _ = run(8, 10, 100)
    assert alerts
    assert sum(value is None for name, value in log.items() if name.startswith(b"k:entity")) > 3


def test_facts_are_those_of_a_look_at_every_key():
    _, _, detector = run(8, 3, 50)
    keys = detector._shard.keys
    states = [state for _, state in keys.states()]
    assert keys.young == sum(state.baseline.exposure_days < SENSITIVE.learning_days for state in states)
    assert keys.firing == sum(state.firing is not None for state in states)
    assert 0 < keys.young < len(keys)


def idle(last_clock_ms: int) -> KeyState:
    return KeyState(1, Baseline(0), last_clock_ms)


def test_a_key_is_looked_at_on_the_day_on_which_it_would_be_forgotten_and_a_few_at_a_time():
    keys = Keys(Rules(), STATE)
    for number in range(30):
        keys.mark(keys.add(f"global:a{number}", idle(0)))
    assert len(keys.seal_changes()) == 30
    keys.sweep(90 * DAY_MS, 1000)
    assert not keys.changed
    touched = keys.get("global:a7")
    assert touched is not None
    touched.state.last_clock_ms = 5 * DAY_MS
    assert [swept(keys, 91 * DAY_MS) for _ in range(3)] in ([19, 10, 0], [20, 9, 0])
    assert len(keys) == 1
    keys.sweep(96 * DAY_MS, 20)
    assert keys.seal_changes() == [(b"k:global:a7", None)]
    assert (len(keys), keys.young, keys.firing) == (0, 0, 0)
    assert keys.get("global:a7") is None


def swept(keys: Keys, clock_ms: int) -> int:
    """How many keys a sweep that looks at twenty drops."""
    keys.sweep(clock_ms, 20)
    sealed = keys.seal_changes()
    assert all(value is None for _, value in sealed)
    return len(sealed)


def test_a_key_that_changed_and_is_forgotten_in_one_batch_is_gone():
    keys = Keys(Rules(), STATE)
    entry = keys.add("global:a", idle(0))
    keys.mark(entry)
    keys.sweep(91 * DAY_MS, 20)
    assert keys.seal_changes() == [(b"k:global:a", None)]
    assert (len(keys), keys.young, keys.firing) == (0, 0, 0)


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_a_key_met_again_later_than_its_time_is_a_new_one_before_any_sweep(late_ms):
    keys = Keys(Rules(), STATE)
    entry = keys.add("global:a", idle(0))
    assert keys.is_forgotten(entry, 90 * DAY_MS + late_ms) is (late_ms > 0)
    assert keys.get("global:a") is entry
