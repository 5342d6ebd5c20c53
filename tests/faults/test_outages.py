"""What a fleet must outlive beside single faults: no broker at all, a bad network, orders to stop, another size."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from runs import Result, Trial, carry_out, run_settings
from schemas.events import AlertEvent
from verify import canonical, detach, find_violations
from worker.broker import HOST, LocalBroker, free_port

from .proxy import Proxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1800)]

TIMEOUTS = {
    "kafka__session_timeout_ms": 6_000,
    "kafka__rebalance_timeout_ms": 10_000,
    "kafka__transaction_timeout_ms": 6_000,
    "kafka__request_timeout_ms": 10_000,
    "kafka__max_poll_interval_ms": 15_000,
}
AWAY_SECONDS = 25.0
CUTS = 6


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    """One that a test may kill."""
    with LocalBroker(report=print) as local:
        yield local


def start_pair(trial: Trial, number: int = 1) -> None:
    trial.fleet.start("labeller", f"labeller-{number}")
    trial.fleet.start("detector", f"detector-{number}")


def assert_nothing_went_wrong(result: Result) -> None:
    assert find_violations(result.outputs, result.expected) == []
    assert result.expected.alerts
    assert result.unfinished == {}
    assert set(result.exit_statuses.values()) == {0}


def test_a_broker_that_is_away_for_longer_than_every_time_out_is_waited_for(
    broker: LocalBroker, tmp_path: Path
) -> None:
    assert max(TIMEOUTS.values()) / 1000 < AWAY_SECONDS

    async def play(trial: Trial) -> None:
        start_pair(trial)
        await trial.await_committed(len(trial.workload.records) // 3)
        assert await trial.committed_sum() < len(trial.workload.records)
        broker.kill()
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(broker.restart)

    result = asyncio.run(carry_out(run_settings(broker.bootstrap, **TIMEOUTS), tmp_path, play))
    assert_nothing_went_wrong(result)
    assert result.exit_statuses.keys() == {"labeller-1", "detector-1"}


def test_workers_that_start_before_any_broker_say_so_and_wait(broker: LocalBroker, tmp_path: Path) -> None:
    async def play(trial: Trial) -> None:
        broker.kill()
        start_pair(trial)

        async def all_wait() -> bool:
            return all(trial.fleet.count_said(name, "kafka.waiting") for name in ("labeller-1", "detector-1"))

        await trial.fleet.await_that("both say that they wait", all_wait)
        await asyncio.to_thread(broker.restart)

    assert_nothing_went_wrong(asyncio.run(carry_out(run_settings(broker.bootstrap), tmp_path, play, headlines=500)))


def test_workers_finish_over_a_slow_network_that_is_cut_again_and_again(tmp_path: Path) -> None:
    direct, bound, proxied = free_port(), free_port(), free_port()
    with LocalBroker(
        port=direct,
        listeners={"SLOW": f"{HOST}:{bound}"},
        properties={
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SLOW:PLAINTEXT",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{direct},SLOW://{HOST}:{proxied}",
        },
        report=print,
    ) as broker:
        assert_nothing_went_wrong(asyncio.run(_run_behind_proxy(broker, proxied, bound, tmp_path)))


async def _run_behind_proxy(broker: LocalBroker, proxied: int, bound: int, folder: Path) -> Result:
    async with Proxy(proxied, bound, Random(1)) as proxy:

        async def play(trial: Trial) -> None:
            start_pair(trial)
            total = len(trial.workload.records)
            for number in range(1, CUTS + 1):
                await trial.await_committed(number * total // (CUTS + 2))
                assert proxy.cut() > 0
                assert await trial.committed_sum() < total

        others = {"kafka.bootstrap_servers": f"{HOST}:{proxied}"}
        return await carry_out(run_settings(broker.bootstrap), folder, play, others=others)


def test_workers_that_are_told_to_stop_under_load_end_in_good_order_and_others_go_on(
    bootstrap: str, tmp_path: Path
) -> None:
    async def play(trial: Trial) -> None:
        start_pair(trial)
        await trial.await_committed(len(trial.workload.records) // 3)
        statuses = [await asyncio.to_thread(trial.fleet.terminate, name) for name in ("labeller-1", "detector-1")]
        assert statuses == [0, 0]
        assert await trial.committed_sum() < len(trial.workload.records)
        start_pair(trial, 2)

    assert_nothing_went_wrong(asyncio.run(carry_out(run_settings(bootstrap), tmp_path, play)))


def test_alerts_depend_neither_on_the_number_of_labellers_nor_on_that_of_partitions(
    bootstrap: str, tmp_path: Path
) -> None:
    def run(labellers: int, partitions: int) -> Result:
        async def play(trial: Trial) -> None:
            start_pair(trial)
            for number in range(2, labellers + 1):
                trial.fleet.start("labeller", f"labeller-{number}")

        folder = tmp_path / f"{labellers}-{partitions}"
        folder.mkdir()
        return asyncio.run(carry_out(run_settings(bootstrap, topics__partitions=partitions), folder, play))

    one, three, more = run(1, 3), run(3, 3), run(2, 5)
    for result in (one, three, more):
        assert_nothing_went_wrong(result)
    assert find_violations(detach(three.outputs), detach(one.outputs)) == []
    assert tell_without_coordinates(more) == tell_without_coordinates(one)


def tell_without_coordinates(result: Result) -> list[dict[str, object]]:
    """The alerts without what says in which partition their stories lay."""
    return [_without_coordinates(alert) for alert in result.outputs.alerts]


def _without_coordinates(alert: AlertEvent) -> dict[str, object]:
    told = canonical(alert)
    for named in (told, *told["inhibited_by"]):
        del named["alert_id"]
    del told["provenance"]["inputs"]
    return told
