"""A broker that looks for timed-out transactions every second instead of every ten, so that recovery is soon seen."""

import os
from collections.abc import Iterator

import pytest

from worker.broker import LocalBroker

SCAN_EVERY_SECOND = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """``bootstrap.servers``: the one in STACKNORM_TEST_BOOTSTRAP, or one node started here."""
    given = os.environ.get("STACKNORM_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    with LocalBroker(properties=SCAN_EVERY_SECOND, report=print) as broker:
        yield broker.bootstrap
