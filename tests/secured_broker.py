"""A real Apache Kafka that lets in only whom it knows, by certificates of an authority that is thrown away after it.

Listeners: LOGIN wants TLS and a user, MUTUAL a certificate, MISNAMED is LOGIN advertised under a name that its
certificate lacks. ANONYMOUS on the plain one of loopback may do everything: the tests set up by it.
"""

import argparse
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from aiokafka import errors
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from worker.broker import LocalBroker, free_port
from worker.kafka.admin import administration
from worker.kafka_settings import KafkaSettings

PASSWORD = "swordfish-5f2c"
KEY_PASSWORD = "marlin-91ab"
RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
LITERAL, PREFIXED, ALLOW = 3, 4, 3


@dataclass(frozen=True)
class Secured:
    """The broker's addresses, and the files of those that connect."""

    folder: Path
    plain: str
    login: str
    mutual: str
    misnamed: str

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    def as_user(self, user: str, **others: Any) -> dict[str, Any]:
        """Settings of the connection for a user that logs in."""
        return {
            "bootstrap_servers": self.login,
            "security_protocol": "SASL_SSL",
            "ssl_ca_location": str(self.authority),
            "sasl_username": user,
            "sasl_password": PASSWORD,
        } | others

    async def grant(self, commands: Iterable[str]) -> None:
        """Do what `kafka-acls.sh` would."""
        async with administration(KafkaSettings(bootstrap_servers=self.plain)) as admin:
            for command in commands:
                for request in _read_command(command):
                    answer = await admin._send_to_controller(request)
                    ((code, message),) = answer.creation_responses
                    assert errors.for_code(code) is errors.NoError, message


def _read_command(command: str) -> Iterator[CreateAclsRequest]:
    program, *words = shlex.split(command)
    assert program == "kafka-acls.sh"
    parser = argparse.ArgumentParser(exit_on_error=True, allow_abbrev=False)
    for option in ("--bootstrap-server", "--command-config", "--allow-principal"):
        parser.add_argument(option, required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", choices=["prefixed"])
    for resource in RESOURCES:
        parser.add_argument(f"--{resource}", action="append", default=[])
    given = vars(parser.parse_args(words))
    pattern = PREFIXED if given["resource_pattern_type"] else LITERAL
    for resource, number in RESOURCES.items():
        for name in given[resource.replace("-", "_")]:
            for operation in given["operation"]:
                yield CreateAclsRequest(
                    number, name, pattern, given["allow_principal"], "*", OPERATIONS[operation], ALLOW
                )


@contextmanager
def run_secured(folder: Path, users: Iterable[str]) -> Iterator[Secured]:
    """Start it; all users have the same password."""
    secured = Secured(folder, "", *(f"localhost:{free_port()}" for _ in range(2)), f"127.0.0.1:{free_port()}")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(secured.authority))
    trustme.CA().cert_pem.write_to_path(str(folder / "stranger.pem"))
    _write_pair(folder, "broker", authority.issue_cert("localhost"))
    _write_pair(folder, "client", authority.issue_cert("client.test", common_name="machine"), KEY_PASSWORD)
    listeners = {"LOGIN": secured.login, "MUTUAL": secured.mutual, "MISNAMED": secured.misnamed}
    with LocalBroker(
        properties=_properties(secured), listeners=listeners, scram_passwords=dict.fromkeys(users, PASSWORD)
    ) as broker:
        yield Secured(folder, broker.bootstrap, secured.login, secured.mutual, _rename(secured.misnamed))


def _rename(address: str) -> str:
    return address.replace("127.0.0.1", "localhost")


def _write_pair(folder: Path, name: str, certificate: trustme.LeafCert, password: str = "") -> None:
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    locked: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)  # the form that Kafka reads
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / f"{name}.key.pem").write_bytes(pem)
    (folder / f"{name}.pem").write_bytes(chain)
    (folder / f"{name}.both.pem").write_bytes(pem + chain)


def _properties(secured: Secured) -> Mapping[str, str]:
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_plain="{PASSWORD}";'
    logins = {
        f"listener.name.{listener}.{mechanism}.sasl.jaas.config": module
        for listener in ("login", "misnamed")
        for mechanism, module in (("scram-sha-256", scram), ("scram-sha-512", scram), ("plain", plain))
    }
    protocols = {
        "PLAINTEXT": "PLAINTEXT",
        "CONTROLLER": "PLAINTEXT",
        "LOGIN": "SASL_SSL",
        "MUTUAL": "SSL",
        "MISNAMED": "SASL_SSL",
    }
    return logins | {
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(secured.folder / "broker.both.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(secured.authority),
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:root",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    }
