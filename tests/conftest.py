"""The broker that tests with the marker ``kafka`` share, and names of their own for each test on it."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from worker.broker import LocalBroker

settings.register_profile("project", deadline=None)  # machines that run tests are shared
settings.load_profile("project")

SCAN_EVERY_SECOND = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
"""The broker looks for timed-out transactions every second instead of every ten, so that recovery is soon seen."""

LAST_LINES = pytest.StashKey[list[str]]()


def pytest_sessionstart() -> None:
    """A binary that is older than its module would be tested in its place."""
    for module in (Path(__file__).parent.parent / "worker").rglob("*.py"):
        for binary in module.parent.glob(f"{module.stem}.*.so"):
            if binary.stat().st_mtime < module.stat().st_mtime:
                raise pytest.UsageError(f"{binary.name} was compiled before {module} changed: run `make setup`")


@pytest.fixture
def tell_at_end(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes lines that end the output of the whole run."""
    return pytestconfig.stash.setdefault(LAST_LINES, []).append


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Behind pytest's own summary."""
    for line in config.stash.get(LAST_LINES, []):
        print(line)


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """``bootstrap.servers`` of a real Apache Kafka: the one in STACKNORM_TEST_BOOTSTRAP, or one node started here."""
    given = os.environ.get("STACKNORM_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    with LocalBroker(properties=SCAN_EVERY_SECOND, report=print) as broker:
        yield broker.bootstrap


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."
