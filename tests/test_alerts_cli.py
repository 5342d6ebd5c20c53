"""A desk's morning with alerts, by the command line, against a real Apache Kafka."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import schemas
from schemas.events import AlertEvent, Severity
from trial_settings import load_trial_settings
from worker.cli import app
from worker.errors import WorkerError
from worker.kafka.admin import create_topics
from worker.kafka.sink import Writer
from worker.records import OutRecord
from worker.settings import Settings

pytestmark = pytest.mark.kafka

EXAMPLES = Path(schemas.__file__).parent / "examples"
FIRING = AlertEvent.model_validate_json((EXAMPLES / "alert_event.good.jsonl").read_text().splitlines()[0])
HRVL = FIRING.model_copy(update={"alert_id": "4f2a81c0" + "0" * 24, "severity": Severity.warning})
OTHR = FIRING.model_copy(update={"alert_id": "4f2a9999" + "0" * 24, "key": "symbol:OTHR", "W": 13.0})

Run = Callable[..., Result]


@pytest.fixture
def settings(bootstrap: str, prefix: str) -> Settings:
    made = load_trial_settings(bootstrap, prefix, 1)
    asyncio.run(create_topics(made.kafka, made.topic_specs, 1))
    asyncio.run(write(made, made.topic_names.alerts, *((each.alert_id, each.to_json()) for each in (HRVL, OTHR))))
    return made


@pytest.fixture
def alerts(settings: Settings) -> Run:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["alerts", *words], env=settings.to_environment())

    return run


async def write(settings: Settings, topic: str, *records: tuple[str, bytes]) -> None:
    writer = Writer(settings.kafka, "test")
    await writer.start()
    await writer.write([OutRecord(topic, key.encode(), value, 0) for key, value in records])
    await writer.stop()


def listed(alerts: Run, *words: str) -> list[dict]:
    done = alerts("list", "--json", *words)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def did(alerts: Run, *words: str) -> str:
    done = alerts(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_alert_is_acknowledged_noted_judged_and_that_is_undone(alerts):
    assert [each["alert"]["key"] for each in listed(alerts)] == ["symbol:HRVL", "symbol:OTHR"]
    assert "4f2a81c0" in did(alerts, "list")
    assert "acknowledged by ana: entity HRVL" in did(alerts, "ack", "4f2a8", "--by", "ana", "--comment", "on it")
    did(alerts, "note", "4f2a8", "halted at 09:40", "--by", "ben")
    did(alerts, "dispose", "4f2a8", "expected", "--by", "ben")
    (told,) = listed(alerts, "--where", "key=symbol:HRVL")
    assert (told["acknowledgement"]["by"], told["acknowledgement"]["comment"]) == ("ana", "on it")
    assert told["disposition"]["disposition"] == "expected"
    assert [each["comment"] for each in told["notes"]] == ["halted at 09:40"]
    shown = did(alerts, "show", "4f2a8")
    for part in ("Negative news surges: entity HRVL", "halted at 09:40", "judged expected", HRVL.alert_id):
        assert part in shown
    for action_id in ("acknowledge:4f2a81c0", "disposition", told["notes"][0]["action_id"]):
        assert "undone: " in did(alerts, "undo", action_id)
    assert listed(alerts)[0].keys() == {"alert"}


def test_a_silence_is_on_what_matches_until_it_is_undone(alerts):
    said = did(alerts, "silence", "key=symbol:HRVL", "--for", "8h", "--comment", "results day", "--by", "ana")
    assert "of the 2 alerts that fire it is on 1: entity HRVL" in said
    silenced, other = listed(alerts)
    assert silenced["silence"]["comment"] == "results day"
    assert "silence" not in other
    assert 'key="symbol:HRVL"' in did(alerts, "silences")
    (action,) = map(json.loads, did(alerts, "silences", "--json").splitlines())
    assert "undone: silenced until" in did(alerts, "undo", action["action_id"])
    assert "no silence holds" in did(alerts, "silences")
    assert all("silence" not in each for each in listed(alerts))

    did(alerts, "silence", "--alert", "4f2a9", "--for", "1h")
    assert ["silence" in each for each in listed(alerts)] == [False, True]


def test_what_cannot_be_done_is_refused_with_its_reason_and_nothing_is_written(alerts):
    for words, told in (
        (("silence", "--for", "2h"), "say what to silence"),
        (("silence", "key=x", "--for", "2h"), "say why with --comment"),
        (("silence", "key=x", "--for", "91d", "--comment", "x"), "must end within 90 days"),
        (("silence", "key=x", "--for", "0m", "--comment", "x"), "over already"),
        (("silence", "key=x", "--for", "1h", "--from", "2026-03-05T08:00Z", "--comment", "x"), "over already"),
        (("silence", "name=x", "--for", "2h", "--comment", "x"), "have no field 'name'"),
        (("note", "4f2a8", " "), "a note has a comment"),
        (("ack", "4f2a8", "--by", ""), "by: String should have at least 1 character"),
        (("dispose", "4f2a8", "perhaps"), "true_alert"),
    ):
        done = alerts(*words)
        assert (done.exit_code, told in " ".join(done.stderr.replace("│", "").split())) == (2, True), done.stderr
    for words, told in (
        (("ack", "4f2a"), "2 alerts begin with '4f2a'"),
        (("show", "7"), "no alert begins with '7'"),
        (("undo", "silence:7"), "no action begins with 'silence:7'"),
    ):
        error = alerts(*words).exception
        assert isinstance(error, WorkerError)
        assert told in str(error)
    assert [each.keys() for each in listed(alerts)] == [{"alert"}, {"alert"}]


def test_an_unknown_alert_ends_a_script_with_status_1_whatever_its_name(settings):
    command = [sys.executable, "-m", "worker", "alerts", "show", "[/x]"]
    environment = {**os.environ, **settings.to_environment()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no alert begins with '[/x]'; ")


def test_foreign_records_are_told_and_passed_over(alerts, settings):
    asyncio.run(write(settings, settings.topic_names.actions, ("acknowledge:x", b"spam")))
    done = alerts("list")
    assert "1 records are neither alerts nor actions" in done.stderr
    assert "entity HRVL" in done.stdout
