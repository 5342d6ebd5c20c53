"""The local broker, on the real thing; the fixture of the other tests stands on these."""

import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jgo.maven import MavenContext

from worker import broker
from worker.broker import LocalBroker, answers_api, fetch_jars, free_port, locked_jars, server_properties
from worker.errors import Fatal

STARTER = """
import sys, time
from worker.broker import LocalBroker
broker = LocalBroker(port=int(sys.argv[1]))
broker.start()
print(broker._folder, flush=True)
time.sleep(600)
"""


def wait_until_silent(port: int, timeout_seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while answers_api(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_lock_names_every_jar_with_a_digest_and_no_host() -> None:
    jars = locked_jars()
    assert len(jars) > 40
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 and jar.coordinate.count(":") == 2 for jar in jars)
    assert "http" not in broker.LOCK_FILE.read_text()


def test_three_nodes_replicate_three_times_and_one_node_once() -> None:
    def properties(count: int) -> dict[str, str]:
        nodes = tuple(broker.Node(n, 9091 + n, 9191 + n, Path("x")) for n in range(1, count + 1))
        return server_properties(nodes[0], nodes, {"log.retention.ms": "7"})

    assert properties(1)["offsets.topic.replication.factor"] == "1"
    assert properties(3)["offsets.topic.replication.factor"] == "3"
    assert properties(3)["min.insync.replicas"] == "2"
    assert properties(3)["log.retention.ms"] == "7"
    assert properties(3)["controller.quorum.voters"].count("@") == 3


@pytest.mark.kafka
def test_an_altered_jar_is_fetched_again_and_a_wrong_digest_stops(tmp_path: Path) -> None:
    jar = next(jar for jar in locked_jars() if "slf4j-api" in jar.coordinate)
    context = MavenContext(repo_cache=tmp_path)
    broker._fetch(context, jar)
    path = broker._path_of(context, jar)
    path.write_bytes(path.read_bytes()[:-1])
    assert not broker._is_intact(jar, path)
    broker._fetch(context, jar)
    assert broker._is_intact(jar, path)
    with pytest.raises(Fatal, match="is not the locked"):
        broker._fetch(context, replace(jar, sha256="0" * 64))


@pytest.mark.kafka
def test_a_killed_node_comes_back_and_a_stopped_broker_leaves_nothing(tmp_path: Path) -> None:
    with LocalBroker() as local:
        port = int(local.bootstrap.rpartition(":")[2])
        assert answers_api(port)
        local.kill()
        assert not answers_api(port)
        local.restart()
        assert answers_api(port)
        assert "started" in local.log_tail()
        folder = local._folder
    assert not answers_api(port)
    assert not folder.exists()


@pytest.mark.kafka
def test_a_node_that_cannot_start_shows_its_log() -> None:
    with socket.create_server((broker.HOST, 0)) as taken, pytest.raises(Fatal, match=r"(?s)did not start.*in use"):
        LocalBroker(port=taken.getsockname()[1]).start()


@pytest.mark.kafka
def test_the_broker_dies_with_the_process_that_started_it() -> None:
    fetch_jars(broker.default_cache(), print)
    port = free_port()
    starter = subprocess.Popen((sys.executable, "-c", STARTER, str(port)), stdout=subprocess.PIPE, text=True)
    with starter:
        assert starter.stdout is not None
        folder = Path(starter.stdout.readline().strip())
        assert answers_api(port)
        starter.kill()
    assert wait_until_silent(port)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()
