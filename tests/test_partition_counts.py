"""The detector's state is of a number of partitions: whoever changes that is told so at the start, with the mend."""

import asyncio
import os
import subprocess
import sys

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from trial_settings import load_trial_settings
from worker.check import check_state
from worker.deterministic import DeterministicEngine
from worker.errors import Misconfigured
from worker.kafka.admin import create_topics
from worker.kafka.connection import Committed
from worker.kafka.source import Ownership
from worker.kip447 import Membership
from worker.runner.detector import run_detector
from worker.runner.labeller import Labeller
from worker.runner.tasks import run_until_all
from worker.runner.vitals import Vitals
from worker.settings import Settings

SECONDS = 120.0


async def begin_state(settings: Settings) -> None:
    """Make the topics, and let a detector write where it starts."""
    await create_topics(settings.kafka, settings.topic_specs, 1)
    assert (await check_state(settings)).detail == "none yet"
    stop = asyncio.Event()

    async def await_state() -> None:
        async with asyncio.timeout(SECONDS):
            while (await check_state(settings)).detail == "none yet":  # noqa: ASYNC110 -- Kafka tells no one
                await asyncio.sleep(0.2)

    await run_until_all(stop, run_detector(settings, settings.rules, stop, Vitals("detector")), await_state())


async def alter(settings: Settings, partitions: int, *topics: str) -> None:
    """As `kafka-topics.sh --alter --partitions` does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    await admin.create_partitions({topic: NewPartitions(total_count=partitions) for topic in topics})
    await admin.close()


def command(settings: Settings, *words: str) -> tuple[int, str]:
    """Exit status, and all that it said, in one line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STACKNORM_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *words],
        capture_output=True, text=True, env=environment | settings.to_environment(), check=False, timeout=SECONDS,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.kafka
def test_topics_and_settings_of_more_partitions_than_the_state_stop_both_roles_and_check(bootstrap, prefix):
    settings, wider = (load_trial_settings(bootstrap, prefix, partitions) for partitions in (2, 3))
    asyncio.run(begin_state(settings))
    status, said = command(settings, "check", "--no-bundle")
    assert status == 0, said
    assert "ok state: of 2 partitions" in said

    names = settings.topic_names
    asyncio.run(alter(settings, 3, names.raw, names.labelled, names.progress))
    for words in (("check", "--no-bundle"), ("run", "--only", "labeller"), ("run", "--only", "detector")):
        status, said = command(wider, *words)
        assert (words, status) == (words, 2), said
        assert (
            f"{names.surge_state} cannot be continued from: it is of 2 partitions, and topics.partitions is 3" in said
        )
        assert "set topics.partitions = 2, or, where topics were given more partitions" in said


@pytest.mark.kafka
def test_another_number_of_shards_than_the_state_has_stops_both_roles_and_check(bootstrap, prefix):
    settings = load_trial_settings(bootstrap, prefix, 2)
    wider = load_trial_settings(bootstrap, prefix, 2, surge={"shards": 3})
    asyncio.run(begin_state(settings))
    topic = settings.topic_names.surge_state
    status, said = command(wider, "check", "--no-bundle")
    assert status == 2, said
    assert f"topic {topic} has 1 partitions, not 3: set surge.shards to match if the detector has not begun yet" in said

    asyncio.run(alter(settings, 3, topic))
    for words in (("check", "--no-bundle"), ("run", "--only", "labeller"), ("run", "--only", "detector")):
        status, said = command(wider, *words)
        assert (words, status) == (words, 2), said
        assert f"{topic} cannot be continued from: it is of shard 0 of 1, and with surge.shards = 3 this is" in said
        assert "set surge.shards = 1, or begin anew under another topics.prefix" in said


@pytest.mark.kafka
def test_topics_altered_behind_the_settings_stop_a_start(bootstrap, prefix):
    settings = load_trial_settings(bootstrap, prefix, 2)
    asyncio.run(begin_state(settings))
    names = settings.topic_names
    asyncio.run(alter(settings, 3, names.raw, names.labelled))
    for words in (("check", "--no-bundle"), ("run",)):
        status, said = command(settings, *words)
        assert (words, status) == (words, 2), said
        for topic in (names.raw, names.labelled):
            assert f"topic {topic} has 3 partitions, not 2: set topics.partitions to match if nothing is label" in said


def test_a_labeller_that_is_given_a_partition_added_under_it_ends():
    settings = load_trial_settings("127.0.0.1:1", "t.", 2)
    labeller = Labeller(settings, DeterministicEngine(), asyncio.Event(), Vitals("labeller"))
    labeller.source._ownership = Ownership(1, Membership("g", 1, "m"), {1: Committed(0), 2: Committed(0)})
    with pytest.raises(Misconfigured, match=r"t.raw was given more partitions \(2\), and topics.partitions is 2"):
        labeller._tenure()
