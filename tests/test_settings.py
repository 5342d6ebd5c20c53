"""Settings come from defaults, a file and the environment, in that order; what is wrong is named with its value."""

from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.settings import describe_settings, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_the_environment_wins_over_the_file_and_an_argument_over_both(tmp_path, monkeypatch):
    path = write(tmp_path, '[kafka]\nbootstrap_servers = "file:9092"\nclient_id = "file"\n[topics]\npartitions = 3\n')
    monkeypatch.setenv("STACKNORM_KAFKA__BOOTSTRAP_SERVERS", "environment:9092")
    monkeypatch.setenv("STACKNORM_TOPICS__PARTITIONS", "4")
    settings = load_settings(path, topics={"partitions": 5})
    assert settings.kafka.bootstrap_servers == "environment:9092"
    assert settings.kafka.client_id == "file"
    assert settings.topics.partitions == 5


def test_a_newcomer_needs_no_settings():
    settings = load_settings()
    assert settings.exactly_once
    assert settings.labeller_group == "stacknorm-labeller"
    assert settings.topic_names.labelled == "news.labelled"


def test_instances_differ_unless_named():
    assert load_settings().instance != load_settings().instance
    assert load_settings(instance="worker-0").instance == "worker-0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[topics]\npartitions = 0\n", r"topics.partitions: .* \(given: 0\)"),
        ("[kafka]\nbootstrap = 'x'\n", r"kafka.bootstrap: Extra inputs are not permitted$"),
        ("processing_guarantee = 'twice'\n", r"processing_guarantee: .*exactly_once.* \(given: 'twice'\)"),
        ("[kafka]\nsession_timeout_ms = 6000\n", "heartbeat_interval_ms = 3000 is over a third"),
        ("[unit]\nmax_seconds = 80\n", "max_seconds = 80 is over a quarter of timeout_seconds = 300"),
        ("[unit]\nbacklog_low_records = 30000\n", "backlog_low_records = 30000 is over backlog_high_records = 20000"),
        ("[kafka\n", "settings cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(tmp_path, text, problem):
    with pytest.raises(Misconfigured, match=problem):
        load_settings(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Misconfigured, match=r"nowhere\.toml does not exist"):
        load_settings(tmp_path / "nowhere.toml")


def test_the_archives_clock_keeps_raw_records_for_ever():
    raw = load_settings(idle_clock="data").topic_specs[0]
    assert raw.config["retention.ms"] == "-1"


def test_every_setting_says_what_it_means():
    described = {setting.name: setting for setting in describe_settings()}
    assert described["kafka.bootstrap_servers"].variable == "STACKNORM_KAFKA__BOOTSTRAP_SERVERS"
    assert all(setting.meaning.endswith(".") or setting.meaning.endswith(")") for setting in described.values())


def test_settings_survive_the_environment(monkeypatch):
    settings = load_settings(idle_clock="data", kafka={"client_id": "other"}, surge={"budget_a_day": 0.5})
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()
