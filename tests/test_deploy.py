"""What deploy/ starts exists: images, commands and settings are those of the code."""

from pathlib import Path

import yaml

from worker.broker import LOCK_FILE
from worker.notify.plan import load_plan, render_plan
from worker.settings import Settings, describe_settings

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SECURED = yaml.safe_load((DEPLOY / "compose.secured.yaml").read_text())


def test_compose_runs_the_kafka_that_the_tests_run():
    image = COMPOSE["services"]["kafka"]["image"]
    assert image.startswith("apache/kafka:")
    assert f":kafka_2.13:{image.split(':')[1]}" in LOCK_FILE.read_text()


def test_every_setting_in_compose_and_dockerfile_is_one_of_ours():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    names = {word.split("=")[0] for word in dockerfile.split() if word.startswith("STACKNORM_")}
    for service in (*COMPOSE["services"].values(), *SECURED["services"].values()):
        names |= {name for name in service["environment"] if name.startswith("STACKNORM_")}
    assert names
    for name in names:
        section, setting = name.removeprefix("STACKNORM_").lower().split("__")
        assert setting in Settings.model_fields[section].annotation.model_fields


def test_workers_run_without_rights():
    for name in ("labeller", "detector", "notifier", "topics"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    assert "USER 10001" in (DEPLOY / "Dockerfile").read_text()


def test_secrets_come_from_files_that_are_mounted():
    secrets = {setting.variable for setting in describe_settings() if setting.secret}
    for name, service in SECURED["services"].items():
        assert name in COMPOSE["services"]
        assert not secrets & set(service["environment"])
        named = [value.removeprefix("/run/secrets/") for value in service["environment"].values() if "/run/" in value]
        assert set(named) == set(service["secrets"]) <= set(SECURED["secrets"])
    assert "deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text().splitlines()


def test_the_example_of_routes_is_right_and_the_docs_say_what_it_means():
    plan = load_plan(DEPLOY / "routes.toml", COMPOSE["services"]["notifier"]["environment"])
    said = (DEPLOY.parent / "docs" / "notify.md").read_text()
    assert "\n".join(render_plan(plan)) in said
