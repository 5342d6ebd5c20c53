"""A broker that lets in only whom it knows: right settings work from end to end, wrong ones are told with a mend."""

import asyncio
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from notifying import Receiver, make_alert
from processes import Fleet, environment_of
from secured_broker import KEY_PASSWORD, PASSWORD, Secured, run_secured
from worker.acls import Duty, Grant, list_grants, render_commands
from worker.check import require_state, require_topics
from worker.deterministic import DeterministicEngine
from worker.errors import Misconfigured
from worker.feeds.jsonl import open_feed
from worker.kafka.admin import create_topics, describe_topics
from worker.kafka.connection import Place, await_broker
from worker.kafka.reader import LogReader
from worker.kafka.sink import Writer
from worker.kafka_settings import KafkaSettings
from worker.notify.plan import make_plan
from worker.notify.process import bring
from worker.records import OutRecord
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.vitals import Vitals
from worker.settings import Settings, load_settings
from worker.sinks.tail import open_reader
from worker.status import read_status

pytestmark = pytest.mark.kafka

LACKING = [
    (Duty.labeller, "topic", "raw", "DescribeConfigs", "DescribeConfigs topic .*raw"),
    (Duty.labeller, "topic", "raw", "Read", "topic .*raw"),
    (Duty.labeller, "topic", "labelled", "Write", "topic .*labelled"),
    (Duty.labeller, "group", "labeller", "Read", "group .*-labeller"),
    (Duty.labeller, "transactional-id", "labeller-", "Write", "transactional id .*-labeller-worker-0"),
    (Duty.detector, "topic", "surge-state", "Write", "topic .*surge-state"),
]
"""Of which duty, on which kind of resource, with which end of its name, what is missing; what the error names."""

LACKING_MORE = [
    (Duty.labeller, "topic", "alerts", "Describe", "Describe topic .*alerts"),
    (Duty.labeller, "topic", "labelled", "Read", "topic .*labelled"),
    (Duty.labeller, "topic", "progress", "Write", "topic .*progress"),
    (Duty.labeller, "topic", "dead", "Write", "topic .*dead"),
    (Duty.labeller, "topic", "surge-state", "Read", "topic .*surge-state"),
    (Duty.detector, "topic", "progress", "Read", "topic .*progress"),
    (Duty.detector, "topic", "surge-state", "Read", "topic .*surge-state"),
    (Duty.detector, "group", "detector", "Read", "group .*-detector"),
    (Duty.detector, "transactional-id", "shard-", "Write", "transactional id .*-detector-shard-0"),
]


def lacking_user(duty: Duty, resource: str, end: str, operation: str, _: str) -> str:
    return f"{duty}-{resource}-{end}-{operation}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    users = ["root", *Duty, *(lacking_user(*case) for case in LACKING + LACKING_MORE), "poor"]
    with run_secured(tmp_path_factory.mktemp("secured"), users) as broker:
        yield broker


@pytest.fixture(autouse=True)
async def closed_connections() -> AsyncIterator[None]:
    """aiokafka does not wait for the end of the connections that it closes."""
    yield
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
async def test_a_user_logs_in_over_tls(secured: Secured, mechanism: str) -> None:
    user = "plain" if mechanism == "PLAIN" else "root"
    await await_broker(KafkaSettings(**secured.as_user(user, sasl_mechanism=mechanism)))


async def test_a_certificate_with_a_locked_key_logs_in(secured: Secured) -> None:
    await await_broker(KafkaSettings(
        bootstrap_servers=secured.mutual,
        security_protocol="SSL",
        ssl_ca_location=secured.authority,
        ssl_certificate_location=secured.folder / "client.pem",
        ssl_key_location=secured.folder / "client.key.pem",
        ssl_key_password=KEY_PASSWORD,
    ))  # fmt: skip


WRONG = {
    "a wrong password": ({"sasl_password": "x"}, r"refuses user root by SCRAM-SHA-512: are kafka\.sasl_username and"),
    "an unknown user": ({"sasl_username": "ghost"}, "refuses user ghost by SCRAM-SHA-512"),
    "a wrong password in the clear": ({"sasl_mechanism": "PLAIN"}, "refuses user root by PLAIN"),
    "another authority": ({"ssl_ca_location": "{folder}/stranger.pem"}, r"not trusted \(.*\): is kafka\.ssl_ca_loc"),
    "no authority": ({"ssl_ca_location": None}, r"not trusted \(.*\): is kafka\.ssl_ca_loc"),
    "another name": ({"bootstrap_servers": "{by_number}"}, r"another name .*'127\.0\.0\.1'.*: name the broker as"),
    "another advertised name": ({"bootstrap_servers": "{misnamed}"}, r"broker 127\.0\.0\.1:\d+ shows .* another name"),
    "no login": ({"security_protocol": "SSL", "sasl_username": None, "sasl_password": None}, "wants a login"),
    "no encryption": ({"security_protocol": "PLAINTEXT", "sasl_username": None, "sasl_password": None,
                       "ssl_ca_location": None}, "speaks TLS, security_protocol = PLAINTEXT does not"),
    "no encryption of the login": ({"security_protocol": "SASL_PLAINTEXT", "ssl_ca_location": None},
                                   "speaks TLS, security_protocol = SASL_PLAINTEXT does not"),
    "encryption that is not there": ({"bootstrap_servers": "{plain}"}, "speaks no TLS"),
    "a login that is not there": ({"bootstrap_servers": "{plain}", "security_protocol": "SASL_PLAINTEXT",
                                   "ssl_ca_location": None}, "knows no login here: set .*= PLAINTEXT"),
    "no certificate": ({"bootstrap_servers": "{mutual}", "security_protocol": "SSL", "sasl_username": None,
                        "sasl_password": None}, r"breaks off TLS .*: if it asks for a certificate"),
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", WRONG)
async def test_what_the_broker_refuses_is_told_with_its_mend(secured: Secured, case: str) -> None:
    changes, message = WRONG[case]
    places = vars(secured) | {"by_number": secured.login.replace("localhost", "127.0.0.1")}
    wrong = {name: value.format(**places) if isinstance(value, str) else value for name, value in changes.items()}
    kafka = KafkaSettings(**secured.as_user("root") | wrong)
    with pytest.raises(Misconfigured, match=message) as raised:
        await describe_topics(kafka, ["x"])
    assert PASSWORD not in str(raised.value)
    if "advertised" not in case:  # a consumer that starts does not yet need the brokers that are advertised
        with pytest.raises(Misconfigured, match=message):
            await await_broker(kafka)


# What a principal may do


def settings_of(
    secured: Secured, prefix: str, user: str | None = None, group: str = "group", **others: Any
) -> Settings:
    """Of a user; without one, of the tests themselves, who may do everything."""
    connection = {"bootstrap_servers": secured.plain} if user is None else secured.as_user(user)
    times = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000, "rebalance_timeout_ms": 6000,
             "transaction_timeout_ms": 10_000}  # fmt: skip
    topics = {"prefix": prefix, "partitions": 2}
    return load_settings(kafka=connection | times, topics=topics, group_prefix=group, instance="worker-0", **others)


async def allow(secured: Secured, user: str, grants: Iterable[Grant]) -> None:
    await secured.grant(render_commands(grants, f"User:{user}", secured.login))


async def feed(settings: Settings) -> None:
    """Make the topics, and send two items and a record that is none."""
    await create_topics(settings.kafka, settings.topic_specs, 1)
    async with open_feed(settings) as write:
        values = (b'{"title": "Acme warns"}', b'{"title": "Acme beats"}', b"no item")
        raw = settings.topic_names.raw
        await write([OutRecord(raw, b"%d" % n, value, n % 2) for n, value in enumerate(values)])


async def carry_out(duty: Duty, settings: Settings, stop: asyncio.Event) -> None:
    await await_broker(settings.kafka)
    await require_topics(settings)
    await require_state(settings)
    if duty is Duty.labeller:
        await run_labeller(settings, DeterministicEngine(), stop, Vitals("labeller"))
    else:
        await run_detector(settings, settings.rules, stop, Vitals("detector"))


async def read_ends(reader: LogReader, topic: str) -> int:
    return sum((await reader.stable_ends([Place(topic, 0)])).values())


async def carry_out_until_written(duty: Duty, settings: Settings, reader: LogReader, topic: str) -> None:
    """Run the duty until there is something new on the topic, then stop it in good order."""
    stop = asyncio.Event()
    before = await read_ends(reader, topic)
    running = asyncio.create_task(carry_out(duty, settings, stop))
    async with asyncio.timeout(30):
        while await read_ends(reader, topic) == before and not running.done():  # noqa: ASYNC110 -- Kafka tells no one
            await asyncio.sleep(0.1)
    stop.set()
    await running


async def bring_an_alert(settings: Settings, writer: Writer) -> None:
    """Notify a receiver of one alert, and have it written down."""
    await await_broker(settings.kafka)
    await require_topics(settings)
    await writer.start()
    alert = make_alert()
    await writer.write([OutRecord(settings.topic_names.alerts, b"a-1", alert.to_json(), 0)])
    await writer.stop()
    stop = asyncio.Event()
    async with Receiver() as receiver:
        webhook = {"name": "desk", "kind": "webhook", "url": receiver.url}
        plan = make_plan({"receiver": [webhook], "route": [{"receiver": "desk"}]}, {})
        bringing = asyncio.create_task(bring(settings, plan, [Vitals("desk")], stop))
        async with asyncio.timeout(30):
            while not receiver.taken and not bringing.done():  # noqa: ASYNC110 -- the receiver tells no one
                await asyncio.sleep(0.1)
        stop.set()
        await bringing
    assert receiver.keys == ["a-1:1"]


async def test_with_exactly_their_acls_all_duties_are_done(secured: Secured, prefix: str) -> None:
    for duty in Duty:
        await allow(secured, duty, list_grants(duty, settings_of(secured, prefix)))

    def settings(duty: Duty) -> Settings:
        return settings_of(secured, prefix, duty)

    topics = settings(Duty.topics).topic_names
    await create_topics(settings(Duty.topics).kafka, settings(Duty.topics).topic_specs, 1)
    async with open_reader(settings(Duty.subscriber), "test") as subscriber:
        viewer = settings(Duty.viewer)
        await require_topics(viewer)
        async with open_reader(viewer, "test") as reader:
            for title in (b"Acme warns", b"Acme beats"):  # the second time they go on from what they have written
                async with open_feed(settings(Duty.feed)) as write:
                    item = b'{"title": "' + title + b'"}'
                    await write([OutRecord(topics.raw, b"1", item, 0), OutRecord(topics.raw, b"2", b"no item", 0)])
                await carry_out_until_written(Duty.labeller, settings(Duty.labeller), subscriber, topics.labelled)
                await carry_out_until_written(Duty.detector, settings(Duty.detector), reader, topics.surge_state)
            assert Place(topics.dead, 0) in await reader.read_last([Place(topics.dead, 0)])
        last = await subscriber.read_last([Place(topics.labelled, 0)])
        assert b"Acme beats" in (last[Place(topics.labelled, 0)].value or b"")
    await bring_an_alert(settings(Duty.notifier), Writer(settings(Duty.detector).kafka, "test"))
    status = await read_status(viewer, datetime.now(UTC))
    assert [partition.lag.records for partition in status.partitions] == [0, 0]
    for arguments, duty in (
        ("dlq list", Duty.viewer),
        ("dlq redrive", Duty.redrive),
        ("alerts silence key=x --for 1h --comment x --by x", Duty.responder),
        ("alerts silences", Duty.viewer),
    ):
        environment = environment_for(secured, prefix, sasl_username=duty) | {"STACKNORM_GROUP_PREFIX": "group"}
        found, said = await command(arguments, environment)
        assert found == 0, said


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "case",
    [*LACKING, *(pytest.param(case, marks=pytest.mark.slow) for case in LACKING_MORE)],
    ids=lambda case: lacking_user(*case),
)
async def test_a_missing_acl_stops_the_worker_and_is_named(
    secured: Secured, prefix: str, case: tuple[Duty, str, str, str, str]
) -> None:
    duty, resource, end, operation, message = case
    user = lacking_user(*case)
    mighty, settings = settings_of(secured, prefix, group="before"), settings_of(secured, prefix, user, user)
    await feed(mighty)
    if operation == "Read" and end in {"labelled", "progress", "surge-state"}:  # there must be something to be read
        async with open_reader(mighty, "test") as reader:
            topics = mighty.topic_names
            await carry_out_until_written(Duty.labeller, mighty, reader, topics.labelled)
            await carry_out_until_written(Duty.detector, mighty, reader, topics.surge_state)
    grants = [
        _without(grant, operation) if grant.resource == resource and grant.name.endswith(end) else grant
        for grant in list_grants(duty, settings)
    ]
    assert grants != list_grants(duty, settings)
    await allow(secured, user, [grant for grant in grants if grant.operations])
    async with asyncio.timeout(30):
        with pytest.raises(Misconfigured, match=f"not authorised .*{message}.*`stacknorm-worker acls`"):
            await carry_out(duty, settings, asyncio.Event())


async def test_topics_that_may_not_be_made_are_named(secured: Secured, prefix: str) -> None:
    settings = settings_of(secured, prefix, "poor")
    with pytest.raises(Misconfigured, match=r"not authorised to Create topic .*raw.*`stacknorm-worker acls`"):
        await create_topics(settings.kafka, settings.topic_specs, 1)


def _without(grant: Grant, operation: str) -> Grant:
    left = tuple(each for each in grant.operations if each != operation)
    return Grant(grant.resource, grant.name, left, grant.prefixed)


# Secrets


async def command(arguments: str, environment: Mapping[str, str]) -> tuple[int | None, str]:
    """Exit status, and all that it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STACKNORM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", *arguments.split(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=inherited | environment,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def environment_for(secured: Secured, prefix: str, **changes: Any) -> dict[str, str]:
    """Of a run as root, its password from a file."""
    password_file = secured.folder / "password"
    password_file.write_text(f"{PASSWORD}\n")
    kafka = secured.as_user("root", sasl_password=None, sasl_password_file=password_file) | changes
    dotted = {f"kafka.{name}": value for name, value in kafka.items() if value is not None} | {
        "topics.prefix": prefix, "topics.partitions": 2, "engine.kind": "deterministic", "log.level": "debug",
    }  # fmt: skip
    return environment_of(dotted)


async def test_no_command_shows_a_secret_not_even_one_that_fails(secured: Secured, prefix: str, tmp_path: Path) -> None:
    news = tmp_path / "news.jsonl"
    news.write_text('{"title": "Acme warns"}\n')
    by_file = environment_for(secured, prefix)
    by_value = environment_for(secured, prefix, sasl_password=PASSWORD, sasl_password_file=None)
    made = await command("topics create", by_file)
    assert made[0] == 0, made[1]
    wrong = f"{PASSWORD}-wrong"
    expected = [
        ("settings", by_value, 0, "kafka.sasl_password"),
        (f"feed jsonl {news}", by_value, 0, "fed 1 items"),
        ("check --no-bundle", by_file, 0, "ok"),
        ("status", by_file, 0, "detector shard 0"),
        ("check --no-bundle", by_value | {"STACKNORM_KAFKA__SASL_PASSWORD": wrong}, 2, "refuses user root by SCRAM"),
        ("run --only labeller", by_value | {"STACKNORM_KAFKA__SASL_PASSWORD": wrong}, 2, "refuses user root by SCRAM"),
        ("check", by_file | {"STACKNORM_KAFKA__SASL_PASWORD": PASSWORD}, 2, "kafka.sasl_pasword: Extra inputs"),
    ]
    done = await asyncio.gather(*(command(arguments, environment) for arguments, environment, *_ in expected))
    for (arguments, _, status, words), (found, said) in zip(expected, done, strict=True):
        assert (arguments, found) == (arguments, status), said
        assert words in " ".join(said.split())
        assert PASSWORD not in said


@pytest.mark.timeout(90)
async def test_a_running_worker_shows_its_secret_nowhere(secured: Secured, prefix: str, tmp_path: Path) -> None:
    mighty = settings_of(secured, prefix)
    await feed(mighty)
    dotted = {"kafka." + name: value for name, value in secured.as_user("root").items()} | {
        "topics.prefix": prefix, "topics.partitions": 2, "engine.kind": "deterministic", "log.level": "debug",
    }  # fmt: skip
    with Fleet(dotted, tmp_path) as fleet:
        fleet.start("labeller", "worker-0")
        async with open_reader(mighty, "test") as reader:

            async def is_labelled() -> bool:
                return await read_ends(reader, mighty.topic_names.labelled) > 0

            await fleet.await_that("a label", is_labelled)
            dead = (await reader.read_last([Place(mighty.topic_names.dead, 0)]))[Place(mighty.topic_names.dead, 0)]
        port = re.search(r'"http_port":(\d+)', fleet.log_tail("worker-0", 1000))
        assert port is not None
        metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics").read())
        statuses = await asyncio.to_thread(fleet.stop)
    assert statuses == {"worker-0": 0}
    shown = [fleet.log_tail("worker-0", 10_000).encode(), metrics, dead.value or b""]
    assert b"unit.committed" in shown[0]
    assert b"stacknorm_records" in shown[1]
    assert [PASSWORD.encode() in each for each in shown] == [False, False, False]
