"""The broker that tests with the marker ``kafka`` share, and names of their own for each test on it."""

import os
import uuid
from collections.abc import Iterator

import pytest

from worker.broker import LocalBroker


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """``bootstrap.servers`` of a real Apache Kafka: the one in STACKNORM_TEST_BOOTSTRAP, or one node started here."""
    given = os.environ.get("STACKNORM_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    with LocalBroker(report=print) as broker:
        yield broker.bootstrap


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."
