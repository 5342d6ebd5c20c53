"""Histories of workers under faults, hundreds of them: nothing is lost or repeated, whatever the order of events.

A history that fails is lived through again with ``simulate(seed, world)``; STACKNORM_SEED starts from another.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from logging import CRITICAL
from typing import Any

import pytest
import structlog
from aiokafka import errors
from memory_clients import MemoryClients, MemoryProducer, Process

from simulation import History, World, make_settings, simulate
from worker.kafka_settings import KafkaSettings
from worker.settings import SurgeSettings

FIRST_SEED = int(os.environ.get("STACKNORM_SEED", "0"))
HISTORIES = 40
"""Of each test; together some hundreds."""
PATIENCE = 60
"""Histories within which a worker that is broken must be found out."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """A history says thousands of lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    yield
    structlog.reset_defaults()


def seeds_of(batch: int, count: int = HISTORIES) -> range:
    """Seeds of a batch, from the first one that is asked for on."""
    return range(FIRST_SEED + batch * count, FIRST_SEED + (batch + 1) * count)


def world_of(seed: int, **others: object) -> World:
    """One to three partitions, and as many shards of the detector, by turns."""
    return replace(World(make_settings(1 + seed % 3, surge=SurgeSettings(shards=1 + seed // 3 % 3))), **others)


def live_through(seeds: range, **others: object) -> Counter[str]:
    """Fail with what the first bad history shows; the faults of all."""
    faults: Counter[str] = Counter()
    for seed in seeds:
        history = simulate(seed, world_of(seed, **others))
        assert not history.violations, f"seed {seed}, {dict(history.faults)}: {'; '.join(map(str, history.violations))}"
        faults.update(history.faults)
    return faults


@pytest.mark.parametrize("batch", range(4))
def test_labellers_lose_and_repeat_nothing_in_any_history(batch: int) -> None:
    faults = live_through(seeds_of(batch), detects=False)
    assert faults.keys() == {"kill", "freeze", "stop_and_start", "add", "cut_off"}
    assert min(faults.values()) > HISTORIES / 2


@pytest.mark.parametrize("batch", range(4, 6))
def test_the_alerts_of_any_history_are_those_of_an_undisturbed_one(batch: int) -> None:
    faults = live_through(seeds_of(batch))
    assert min(faults.values()) > HISTORIES / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_more_histories_are_as_good() -> None:
    live_through(range(FIRST_SEED + 1000, FIRST_SEED + 2000))


def test_a_history_repeats_itself() -> None:
    assert simulate(7, world_of(7)) == simulate(7, world_of(7))


# Workers and brokers that are broken on purpose


def find_out(guarantee: str = "exactly_once", **others: Any) -> History:
    """The first history in which something is wrong; in bad weather, with a transaction for each record."""
    for seed in range(PATIENCE):
        settings = make_settings(1 + seed % 3, 1, processing_guarantee=guarantee)
        history = simulate(seed, World(settings, detects=False, odds=(0.02, 0.1), **others))
        if history.violations:
            return history
    pytest.fail(f"{PATIENCE} histories showed nothing")


def whats(history: History) -> set[str]:
    """The kinds of what is wrong."""
    return {violation.what for violation in history.violations}


class UnstableClients(MemoryClients):
    """Does not wait for transactions that are pending on the offsets it reads."""

    async def fetch_committed(self, member, places, *, stable):  # type: ignore[no-untyped-def]
        return await super().fetch_committed(member, places, stable=False)


class HopefulProducer(MemoryProducer):
    """Takes a commit without an answer for done, and goes on with the next transaction."""

    async def commit_transaction(self) -> None:
        try:
            await super().commit_transaction()
        except errors.RequestTimedOutError:
            self.failure = None
            await self.start()


class HastyProducer(MemoryProducer):
    """Commits with the offsets, where a failure is still taken for one before the commit."""

    async def send_offsets_to_transaction(self, *offsets: Any) -> None:
        await super().send_offsets_to_transaction(*offsets)
        await super().commit_transaction()

    async def commit_transaction(self) -> None:
        """Done already."""


@dataclass(frozen=True, slots=True)
class With:
    """Clients with another producer."""

    producer: type[MemoryProducer]

    def __call__(self, process: Process, settings: KafkaSettings) -> MemoryClients:
        clients = MemoryClients(process, settings)
        clients.make_producer = lambda name=None: self.producer(process, name, settings.transaction_timeout_ms / 1000)
        return clients


def test_a_broker_that_takes_offsets_from_stale_members_is_found_out() -> None:
    assert find_out(fences_members=False).violations


def test_a_worker_that_reads_offsets_while_a_transaction_on_them_is_pending_is_found_out() -> None:
    assert find_out(make_clients=UnstableClients).violations


def test_a_worker_that_takes_an_unanswered_commit_for_done_is_found_out() -> None:
    assert "lost" in whats(find_out(make_clients=With(HopefulProducer)))


def test_a_worker_that_sends_again_what_may_be_committed_is_found_out() -> None:
    assert "duplicated" in whats(find_out(make_clients=With(HastyProducer)))


def test_a_worker_without_transactions_is_found_out_to_repeat_itself() -> None:
    history = find_out("at_least_once")
    assert "lost" not in whats(history)
