"""The fault campaign: the core of it always, all of it with the slow tests; the tally ends the output of pytest."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from .campaign import Size, count_headlines, run_campaign
from .plan import Kind

pytestmark = pytest.mark.kafka

CORE = Size(2000, dict.fromkeys(Kind, 1))
FULL = Size(100_000, {Kind.sigkill: 20, Kind.rebalance: 20, Kind.broker: 5, Kind.zombie: 5})

Tell = Callable[[str], None]


@pytest.fixture
def seed() -> int:
    """Of STACKNORM_SEED, else by chance: the tally tells it."""
    return int(os.environ.get("STACKNORM_SEED") or secrets.randbelow(1 << 32))


def survive(seed: int, size: Size, folder: Path, tell_at_end: Tell, bundle: str | None = None, shards: int = 1) -> None:
    print(f"seed {seed}")
    report = run_campaign(seed, size, folder, print, bundle=bundle, shards=shards)
    tell_at_end(report.recoveries)
    tell_at_end(report.tally)
    assert list(report.find_faults()) == []
    assert report.inputs == size.records


@pytest.mark.timeout(900)
def test_2000_records_survive_one_fault_of_each_kind(seed: int, tmp_path: Path, tell_at_end: Tell) -> None:
    survive(seed, CORE, tmp_path, tell_at_end)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_100000_records_survive_fifty_faults(seed: int, tmp_path: Path, tell_at_end: Tell) -> None:
    survive(seed, FULL, tmp_path, tell_at_end)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_records_survive_them_with_the_default_stack(seed: int, tmp_path: Path, tell_at_end: Tell) -> None:
    survive(seed, CORE, tmp_path, tell_at_end, "finance")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_2000_records_survive_them_with_three_shards(seed: int, tmp_path: Path, tell_at_end: Tell) -> None:
    survive(seed, CORE, tmp_path, tell_at_end, shards=3)


@pytest.mark.parametrize("records", [1000, 2000, 100_000])
def test_headlines_and_their_poison_make_the_records(records: int) -> None:
    headlines = count_headlines(records)
    assert headlines + headlines // 100 == records
