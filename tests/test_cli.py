"""The commands of a newcomer's first hour, run as they would run them, on a real Apache Kafka."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.child import Child
from worker.demo.stream import FOLDER, load_stream
from worker.settings import load_settings

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[1]
ITEMS = 312
SECONDS = 60.0


class Terminal:
    """Runs commands under one set of settings."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.started = 0
        self.settings = {f"STACKNORM_{name.upper()}": str(value) for name, value in settings.items()}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker", *words]
        environment = {**os.environ, **self.settings}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=SECONDS)

    def start(self, *words: str) -> Child:
        self.started += 1
        return Child((sys.executable, *words), self.folder / f"{self.started}.log", environment=self.settings)


@pytest.fixture
def terminal(bootstrap: str, prefix: str, tmp_path: Path) -> Terminal:
    return Terminal(
        tmp_path,
        kafka__bootstrap_servers=bootstrap,
        kafka__session_timeout_ms=6000,
        kafka__heartbeat_interval_ms=2000,
        topics__prefix=prefix,
        topics__partitions=2,
        group_prefix=prefix.strip("."),
        idle_clock="data",
        engine__kind="deterministic",
    )


@pytest.fixture
def worker(terminal: Terminal) -> Iterator[Child]:
    assert terminal.run("topics", "create").returncode == 0
    child = terminal.start("-m", "worker", "run")
    yield child
    child.kill()


def await_lines(log: Path, count: int) -> list[str]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        lines = log.read_text().splitlines()
        if len(lines) >= count:
            return lines
        time.sleep(0.1)
    raise AssertionError(f"{len(lines)} of {count} lines within {SECONDS:.0f} s, the last:\n" + "\n".join(lines[-5:]))


def test_check_names_what_is_missing_and_how_to_mend_it(terminal):
    before = terminal.run("check")
    assert before.returncode == 2
    assert f"topic {terminal.settings['STACKNORM_TOPICS__PREFIX']}raw does not exist" in before.stdout
    assert "stacknorm-worker topics create" in before.stdout
    created = terminal.run("topics", "create")
    assert created.stdout.count("created") == len(load_settings().topic_specs)
    after = terminal.run("check")
    assert (after.returncode, after.stdout.count("wrong")) == (0, 0), after.stdout


def test_check_says_when_no_broker_answers(terminal):
    terminal.settings["STACKNORM_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    done = terminal.run("check", "--no-bundle")
    assert done.returncode == 2
    assert "is kafka.bootstrap_servers right, and the broker up?" in done.stdout


def test_a_worker_refuses_topics_that_are_not_as_they_must_be(terminal):
    assert terminal.run("topics", "create").returncode == 0
    terminal.settings["STACKNORM_TOPICS__PARTITIONS"] = "3"
    done = terminal.run("run")
    assert done.returncode == 2
    assert "has 2 partitions, not 3" in done.stderr


@pytest.mark.parametrize(
    "command", [("status",), ("tail", "--active"), ("tail",), ("feed", "jsonl", str(FOLDER / "quiet.jsonl"))]
)
def test_before_the_topics_are_made_a_command_says_so_at_once(terminal, command):
    done = terminal.run(*command)
    assert done.returncode == 2
    assert "raw does not exist: run `stacknorm-worker topics create`" in done.stderr


def test_a_setting_with_a_wrong_value_is_named(terminal):
    terminal.settings["STACKNORM_TOPICS__PARTITIONS"] = "many"
    done = terminal.run("status")
    assert done.returncode == 2
    assert "topics.partitions" in done.stderr
    assert "many" in done.stderr


def test_news_is_fed_labelled_watched_and_read(terminal, worker):
    fed = terminal.run("feed", "jsonl", str(FOLDER / "quiet.jsonl"))
    assert fed.returncode == 0, fed.stderr
    assert f"fed {ITEMS} items" in fed.stderr

    tail = terminal.start("-m", "worker", "tail", "--from-start", "--json")
    try:
        events = [json.loads(line) for line in await_lines(tail.log_file, ITEMS)]
    finally:
        tail.kill()
    labelled = [event for event in events if "event_id" in event]
    assert len({event["event_id"] for event in labelled}) == ITEMS
    assert {event["stack"]["name"] for event in labelled} == {"deterministic"}

    status = terminal.run("status")
    assert "nobody" not in status.stdout
    assert re.search(r"detector shard 0: \S+ at 127\.0\.0\.1, clock 2026-03-0", status.stdout), status.stdout
    assert "nothing is firing" in terminal.run("tail", "--active").stdout

    worker.send_signal(signal.SIGTERM)
    assert worker.wait_or_kill(time.monotonic() + 20) == 0, worker.log_tail()


def test_the_subscriber_of_the_readme_prints_alerts(terminal, worker, tmp_path):
    (tmp_path / "week.jsonl").write_bytes(b"\n".join(line.value for line in load_stream()))
    assert terminal.run("feed", "jsonl", str(tmp_path / "week.jsonl")).returncode == 0

    (code,) = re.findall(r"```python\n(import asyncio.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    first = first_line_of(code, terminal, tmp_path)
    assert re.fullmatch(r"(pending|firing) negative_\w+ \S.* \d+ negative, \d+\.\d\d expected", first)


def test_the_reader_of_trends_in_the_docs_prints_hours(terminal, worker, tmp_path):
    (tmp_path / "week.jsonl").write_bytes(b"\n".join(line.value for line in load_stream()))
    assert terminal.run("feed", "jsonl", str(tmp_path / "week.jsonl")).returncode == 0
    (code,) = re.findall(r"```python\n(import asyncio.*?)```", (ROOT / "docs" / "trends.md").read_text(), re.DOTALL)
    first = first_line_of(code, terminal, tmp_path)
    assert re.fullmatch(r"\w{3} \d\d:00 \S.*: \d+ stories, \d+% negative, mean score [+-]\d\.\d\d", first)

    tail = terminal.start("-m", "worker", "tail", "--from-start", "--trends")
    try:
        lines = await_lines(tail.log_file, 100)
    finally:
        tail.kill()
    assert {line.split()[4] for line in lines} >= {"5m", "1h"}


def first_line_of(code, terminal, folder):
    """What a reader in the docs prints first, of the terminal's broker and topics."""
    code = code.replace("127.0.0.1:9092", terminal.settings["STACKNORM_KAFKA__BOOTSTRAP_SERVERS"])
    code = code.replace('"news.', f'"{terminal.settings["STACKNORM_TOPICS__PREFIX"]}')
    (folder / "reader.py").write_text(code)
    reader = terminal.start(str(folder / "reader.py"))
    try:
        return await_lines(reader.log_file, 1)[0]
    finally:
        reader.kill()
