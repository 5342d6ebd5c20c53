"""Two shards of the detector in two processes on a real Apache Kafka: both work, and one takes over from the other."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from observer import patient
from runs import Trial, carry_out, run_settings
from verify import by_shard, find_violations
from worker.kafka.groups import read_owners
from worker.surge.keys import Key
from worker.surge.ownership import find_owner
from workload import LONG_SURGE, START

pytestmark = pytest.mark.kafka

SHARDS = 2


async def await_owners(trial: Trial, detectors: int) -> set[str]:
    """Wait until so many detectors share all shards out among them; their names."""
    settings, found = trial.settings, dict[int, str]()

    async def ask() -> bool:
        owners = await read_owners(settings.kafka, settings.detector_group, settings.topic_names.surge_state)
        found.clear()
        found.update({shard: owner.client_id.removeprefix("stacknorm-") for shard, owner in owners.items()})
        return len(found) == SHARDS and len(set(found.values())) == detectors

    await trial.fleet.await_that(f"{detectors} detectors share {SHARDS} shards", patient(ask))
    return set(found.values())


async def kill_one_of_two(trial: Trial) -> None:
    """The second detector is killed in the middle of a surge, and nobody comes in its place."""
    trial.fleet.start("detector", "detector-1")
    trial.fleet.start("detector", "detector-2")
    assert await await_owners(trial, 2) == {"detector-1", "detector-2"}
    trial.fleet.start("labeller", "labeller-1")
    await trial.await_frontier(START + timedelta(days=LONG_SURGE.from_day + 0.1))
    trial.fleet.kill("detector-2")
    assert await await_owners(trial, 1) == {"detector-1"}


def test_alerts_and_trends_of_two_processes_one_of_which_dies_are_those_of_the_back_test(
    bootstrap: str, tmp_path: Path
) -> None:
    result = asyncio.run(carry_out(run_settings(bootstrap, surge__shards=SHARDS), tmp_path, kill_one_of_two))
    assert find_violations(by_shard(result.outputs, SHARDS), by_shard(result.expected, SHARDS)) == []
    assert {find_owner(str(Key.of(alert)), SHARDS) for alert in result.outputs.alerts} == set(range(SHARDS))
    assert result.unfinished == {}
    assert result.exit_statuses == {"labeller-1": 0, "detector-1": 0}
