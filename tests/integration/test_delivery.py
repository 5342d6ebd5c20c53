"""Exactly once on a real Apache Kafka: labeller and detector as real processes, killed at the worst moments."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from runs import Crash, Result, Trial, carry_out, run_settings
from schemas.events import AlertEvent, LabelledEvent
from verify import detach, find_violations
from worker.engines import load_engine
from worker.settings import EngineSettings
from workload import LONG_SURGE, START

pytestmark = pytest.mark.kafka

Note = Callable[[str, object], None]

SEED = 1124
RECOVERY_SECONDS = 30.0
"""Above session time-out, transaction time-out and the broker's scan (10 s by default), on a busy machine too."""
TOLERANCE = 1e-4
"""Of a probability in fp32: a forward pass depends in its last bits on what else is in the batch."""


@pytest.fixture
def note(record_property: Note) -> Note:
    """Keeps a measurement in the report, and shows it with ``-s`` or on failure."""

    def keep(name: str, value: object) -> None:
        record_property(name, value)
        print(f"{name}: {value}")

    return keep


async def _undisturbed(trial: Trial) -> None:
    trial.fleet.start("labeller", "labeller-1")
    trial.fleet.start("detector", "detector-1")


@pytest.fixture(scope="module")
def undisturbed(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run in which nothing goes wrong."""
    return asyncio.run(carry_out(run_settings(bootstrap), tmp_path_factory.mktemp("undisturbed"), _undisturbed))


@pytest.fixture(scope="module")
def disturbed(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The same input; a labeller and then the detector are killed in a transaction, at points left to a seed."""
    return asyncio.run(carry_out(run_settings(bootstrap), tmp_path_factory.mktemp("disturbed"), _kill_both))


async def _kill_both(trial: Trial) -> None:
    random = Random(SEED)
    await _undisturbed(trial)
    records = len(trial.workload.records)
    await trial.crash_labeller("labeller-1", "labeller-2", at=random.randrange(records // 4, records // 2))
    into_surge = random.uniform(LONG_SURGE.from_day + 0.1, LONG_SURGE.from_day + 0.4)
    await trial.crash_detector("detector-1", "detector-2", after=START + timedelta(days=into_surge))


async def _kill_labeller(trial: Trial) -> None:
    await _undisturbed(trial)
    records = len(trial.workload.records)
    await trial.crash_labeller("labeller-1", "labeller-2", at=Random(SEED).randrange(records // 4, records // 2))


def test_every_input_is_counted_once_and_no_transaction_stays_open(undisturbed: Result) -> None:
    outputs = undisturbed.outputs
    assert find_violations(outputs, undisturbed.expected) == []
    counted = [placed.event.input for placed in outputs.labelled] + [letter.input for letter in outputs.dead]
    assert len(counted) == len({(ref.partition, ref.offset) for ref in counted}) == 2000 + 20
    assert outputs.marks
    assert undisturbed.unfinished == {}
    assert undisturbed.exit_statuses == {"labeller-1": 0, "detector-1": 0}


def test_poison_ends_as_dead_letters_with_its_bytes(undisturbed: Result) -> None:
    assert len(undisturbed.outputs.dead) == 20
    sent = {letter.key: letter.value for letter in undisturbed.expected.dead}
    assert {letter.key: letter.value for letter in undisturbed.outputs.dead} == sent


def test_at_least_three_alerts_fire(undisturbed: Result) -> None:
    assert len({alert.alert_id for alert in undisturbed.outputs.alerts}) >= 3


def test_killed_in_transactions_the_outputs_equal_those_of_the_undisturbed_run(
    undisturbed: Result, disturbed: Result
) -> None:
    assert find_violations(disturbed.outputs, disturbed.expected) == []
    assert find_violations(detach(disturbed.outputs), detach(undisturbed.outputs)) == []
    assert disturbed.unfinished == {}
    assert disturbed.exit_statuses == {"labeller-2": 0, "detector-2": 0}


def _recovery(crash: Crash) -> str:
    return f"{crash.recovery_seconds:.1f}, readers blocked for {crash.blocked_seconds:.1f}"


def test_the_labeller_was_killed_in_a_transaction_with_input_left(disturbed: Result, note: Note) -> None:
    crash = disturbed.crashes["labeller-1"]
    note("labeller_killed_at", f"{crash.before} of {disturbed.records} raw records, unstable {dict(crash.unstable)}")
    note("labeller_recovery_seconds", _recovery(crash))
    assert crash.unstable
    assert crash.transaction_open
    assert crash.before < disturbed.records
    assert max(crash.recovery_seconds, crash.blocked_seconds) < RECOVERY_SECONDS


def test_the_detector_was_killed_in_a_transaction_with_an_alert_half_told(disturbed: Result, note: Note) -> None:
    crash = disturbed.crashes["detector-1"]
    note("detector_killed_at", f"frontier {crash.before}, unstable {dict(crash.unstable)}")
    note("detector_recovery_seconds", _recovery(crash))
    assert crash.unstable
    assert crash.transaction_open
    split = [alert for alert in disturbed.outputs.alerts if _is_split(alert, crash.before)]
    note("alerts_with_evidence_on_both_sides", sorted({f"{alert.key_type} {alert.key}" for alert in split}))
    assert split
    assert crash.before < max(alert.detected_at for alert in disturbed.expected.alerts)
    assert max(crash.recovery_seconds, crash.blocked_seconds) < RECOVERY_SECONDS


def _is_split(alert: AlertEvent, killed_at: datetime) -> bool:
    received = [story.received_at for story in alert.evidence]
    return min(received) <= killed_at < max(received)


def test_at_least_once_a_killed_labeller_repeats_events_loses_nothing_and_alerts_are_told_once(
    bootstrap: str, tmp_path: Path, note: Note
) -> None:
    """The control too: the same kill without transactions does repeat events, and the verifier sees them."""
    settings = run_settings(bootstrap, processing_guarantee="at_least_once")
    result = asyncio.run(carry_out(settings, tmp_path, _kill_labeller))
    violations = find_violations(result.outputs, result.expected)
    note("at_least_once_labeller_recovery_seconds", _recovery(result.crashes["labeller-1"]))
    note("at_least_once_violations", Counter(violation.what for violation in violations))
    assert {violation.what for violation in violations} == {"duplicated"}
    assert all("labelled" in violation.where or "dead letter" in violation.where for violation in violations)


def test_on_the_real_stack_a_killed_labeller_changes_no_ids_and_hardly_a_bit(
    bootstrap: str, tmp_path: Path, note: Note
) -> None:
    engine = load_engine(EngineSettings(device="cpu", precision="fp32"))
    settings = run_settings(
        bootstrap, engine__kind="stack", engine__device="cpu", engine__precision="fp32", unit__max_records=60
    )
    result = asyncio.run(carry_out(settings, tmp_path, _kill_labeller, engine=engine, headlines=60))
    found = {placed.event.event_id: placed.event for placed in result.outputs.labelled}
    expected = {placed.event.event_id: placed.event for placed in result.expected.labelled}
    assert len(result.outputs.labelled) == len(found) == 60
    assert found.keys() == expected.keys()
    distances = [_distance(found[event_id], expected[event_id]) for event_id in found]
    flips = sum(_labels(found[event_id]) != _labels(expected[event_id]) for event_id in found)
    note("stack_largest_difference_of_a_probability", max(distances))
    note("stack_label_flips", flips)
    assert max(distances) <= TOLERANCE
    assert flips <= 1
    assert result.unfinished == {}


def _labels(event: LabelledEvent) -> tuple[str, str]:
    assert event.sentiment is not None
    assert event.topic is not None
    return event.sentiment.label, event.topic.label


def _distance(event: LabelledEvent, other: LabelledEvent) -> float:
    """The largest difference of a sentiment's probability."""
    assert event.sentiment is not None
    assert other.sentiment is not None
    ours, theirs = event.sentiment.probabilities, other.sentiment.probabilities
    return max(abs(ours[label] - theirs[label]) for label in ours)
