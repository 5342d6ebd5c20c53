"""Exactly once on a real Apache Kafka: labeller and detector as real processes, killed at the worst moments."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from verify import detach, find_violations
from workload import LONG_SURGE, START

from runs import Result, Trial, carry_out, run_settings
from schemas.events import AlertEvent

pytestmark = pytest.mark.kafka

Note = Callable[[str, object], None]

SEED = 1124
LABELLER_RECOVERY_SECONDS = 25.0
DETECTOR_RECOVERY_SECONDS = 15.0


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


def test_the_labeller_was_killed_in_a_transaction_with_input_left(disturbed: Result, note: Note) -> None:
    crash = disturbed.crashes["labeller-1"]
    note("labeller_killed_at", f"{crash.before} of {disturbed.records} raw records, unstable {dict(crash.unstable)}")
    note("labeller_recovery_seconds", round(crash.recovery_seconds, 1))
    assert crash.unstable
    assert len(crash.transactions) == 1
    assert crash.before < disturbed.records
    assert crash.recovery_seconds < LABELLER_RECOVERY_SECONDS


def test_the_detector_was_killed_in_a_transaction_with_an_alert_half_told(disturbed: Result, note: Note) -> None:
    crash = disturbed.crashes["detector-1"]
    note("detector_killed_at", f"frontier {crash.before}, unstable {dict(crash.unstable)}")
    note("detector_recovery_seconds", round(crash.recovery_seconds, 1))
    assert crash.unstable
    assert len(crash.transactions) == 1
    split = [alert for alert in disturbed.outputs.alerts if _is_split(alert, crash.before)]
    note("alerts_with_evidence_on_both_sides", sorted({f"{alert.key_type} {alert.key}" for alert in split}))
    assert split
    assert crash.before < max(alert.detected_at for alert in disturbed.expected.alerts)
    assert crash.recovery_seconds < DETECTOR_RECOVERY_SECONDS


def _is_split(alert: AlertEvent, killed_at: datetime) -> bool:
    received = [story.received_at for story in alert.evidence]
    return min(received) <= killed_at < max(received)


def test_at_least_once_a_killed_labeller_loses_nothing_and_alerts_are_told_once(
    bootstrap: str, tmp_path: Path, note: Note
) -> None:
    settings = run_settings(bootstrap, processing_guarantee="at_least_once")
    result = asyncio.run(carry_out(settings, tmp_path, _kill_labeller))
    violations = find_violations(result.outputs, result.expected)
    note("at_least_once_labeller_recovery_seconds", round(result.crashes["labeller-1"].recovery_seconds, 1))
    note("at_least_once_violations", Counter(violation.what for violation in violations))
    assert {violation.what for violation in violations} <= {"duplicated"}
    assert not any("alert" in violation.where for violation in violations)
