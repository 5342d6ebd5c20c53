"""The settings of the connection to Kafka: where, how protected, as whom, how patient; and what cannot go together.

Secrets are held masked, and read from their files whenever a client is made, so that what a cluster rotates is used.
"""

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from worker.errors import Misconfigured

Positive = Annotated[int, Field(gt=0)]

CERTIFICATE = "-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = "PRIVATE KEY-----"


class Section(BaseModel):
    """A table of the settings. What was given is never shown in an error: it may be a secret in the wrong place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class KafkaSettings(Section):
    """The connection, and the times after which the broker gives up on us."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers to start from, ``host:port`` separated by commas."""
    client_id: str = "stacknorm"
    """How we are named in the broker's logs and in `status`, together with the instance."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    """``SSL`` encrypts, ``SASL`` logs in; see docs/security.md."""
    ssl_ca_location: Path | None = None
    """PEM file of the authorities that sign the brokers' certificates; without it those that the system trusts."""
    ssl_certificate_location: Path | None = None
    """PEM file of our own certificate (mutual TLS), with its chain, and with its key if that has no file of its own."""
    ssl_key_location: Path | None = None
    """PEM file of the key of our certificate."""
    ssl_key_password: SecretStr | None = None
    """Opens the key."""
    ssl_key_password_file: Path | None = None
    """The same from a file, as clusters mount secrets."""
    ssl_endpoint_identification_algorithm: Literal["https", "none"] = "https"
    """``none`` takes a certificate of a trusted authority for any host: whoever has one can pose as your broker."""
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """How to log in; ``PLAIN`` shows the broker the password, so it needs TLS."""
    sasl_username: str | None = None
    """As whom to log in."""
    sasl_password: SecretStr | None = None
    """The password; never printed."""
    sasl_password_file: Path | None = None
    """The same from a file, as clusters mount secrets; read again for each new client."""
    sasl_without_encryption: bool = False
    """Allow ``SASL_PLAINTEXT`` to other machines: what you send and read can be seen and altered on the way."""
    session_timeout_ms: Positive = 45_000
    """A member that is silent for so long has lost its partitions."""
    heartbeat_interval_ms: Positive = 3_000
    """How often a member says that it lives; at most a third of the session time-out."""
    max_poll_interval_ms: Positive = 300_000
    """A member that does not fetch for so long has lost its partitions."""
    rebalance_timeout_ms: Positive = 60_000
    """How long a rebalance waits for a member; more than the slowest commit takes."""
    transaction_timeout_ms: Positive = 15_000
    """The broker aborts a transaction open for so long; a dead worker's readers wait for it."""
    request_timeout_ms: Positive = 40_000
    """How long an answer may take."""

    @property
    def encrypts(self) -> bool:
        """Whether the connection is TLS."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def logs_in(self) -> bool:
        """Whether there is a user."""
        return self.security_protocol in {"SASL_SSL", "SASL_PLAINTEXT"}

    def read_password(self) -> str:
        """The password of the user, as it stands now; to be handed on, never to be shown.

        Raises:
            Misconfigured: its file cannot be read, or is empty.
        """
        return _read_secret(self.sasl_password, self.sasl_password_file, "kafka.sasl_password_file") or ""

    def make_ssl_context(self) -> ssl.SSLContext:
        """What TLS trusts and shows: certificates are always verified, TLS 1.2 is the oldest spoken.

        Raises:
            Misconfigured: a file cannot be used; names its setting.
        """
        context = ssl.create_default_context()
        if self.ssl_ca_location is not None:
            context = ssl.create_default_context(cafile=self.ssl_ca_location)
        context.check_hostname = self.ssl_endpoint_identification_algorithm == "https"
        if self.ssl_certificate_location is not None:
            _load_certificate(context, self, self.ssl_certificate_location)
        return context

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if 3 * self.heartbeat_interval_ms > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms} is over a third of "
                f"session_timeout_ms = {self.session_timeout_ms}"
            )
        return self

    @model_validator(mode="after")
    def _security_fits(self) -> Self:
        contradictions = [*_contradict_login(self), *_contradict_encryption(self), *_doubt_files(self)]
        if contradictions:
            raise ValueError("; ".join(contradictions))
        return self


def _contradict_login(kafka: KafkaSettings) -> Iterator[str]:
    protocol = f"security_protocol = {kafka.security_protocol}"
    given = [
        name for name in ("sasl_username", "sasl_password", "sasl_password_file") if getattr(kafka, name) is not None
    ]
    if not kafka.logs_in:
        if given:
            yield f"{given[0]} is set, but {protocol} logs nobody in: set security_protocol = SASL_SSL, or remove it"
        return
    if kafka.sasl_username is None:
        yield f"{protocol} needs a user: set sasl_username"
    if len(given) == 3 or given == ["sasl_password", "sasl_password_file"]:
        yield "sasl_password and sasl_password_file are both set: remove one"
    if kafka.sasl_password is None and kafka.sasl_password_file is None:
        yield f"{protocol} needs a password: set sasl_password_file or sasl_password"


def _contradict_encryption(kafka: KafkaSettings) -> Iterator[str]:
    protocol = f"security_protocol = {kafka.security_protocol}"
    if not kafka.encrypts:
        settings = ((name, field) for name, field in type(kafka).model_fields.items() if name.startswith("ssl_"))
        given = [name for name, field in settings if getattr(kafka, name) != field.default]
        if given:
            yield f"{given[0]} is set, but {protocol} does not encrypt: set SSL or SASL_SSL, or remove {given[0]}"
    if kafka.security_protocol == "SASL_PLAINTEXT":
        if kafka.sasl_mechanism == "PLAIN":
            yield f"sasl_mechanism = PLAIN would send the password readable over {protocol}: set SASL_SSL, or SCRAM"
        far = [host for host in kafka.bootstrap_servers.split(",") if not _is_loopback(host)]
        if far and not kafka.sasl_without_encryption:
            yield (
                f"{protocol} is not encrypted on the way to {far[0].strip()}: set SASL_SSL, or, if you mean it, "
                "sasl_without_encryption = true"
            )
    if kafka.ssl_certificate_location is None and kafka.ssl_key_location is not None:
        yield f"ssl_key_location = {kafka.ssl_key_location} has no certificate: set ssl_certificate_location"
    password = kafka.ssl_key_password is not None, kafka.ssl_key_password_file is not None
    if all(password):
        yield "ssl_key_password and ssl_key_password_file are both set: remove one"
    elif any(password) and kafka.ssl_certificate_location is None:
        yield "ssl_key_password has no key to open: set ssl_certificate_location and ssl_key_location"


def _is_loopback(server: str) -> bool:
    host = server.strip().rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _doubt_files(kafka: KafkaSettings) -> Iterator[str]:
    """What is wrong with the files as such; whether they go together shows when TLS loads them."""
    pem = ("ssl_ca_location", CERTIFICATE), ("ssl_certificate_location", CERTIFICATE), ("ssl_key_location", PRIVATE_KEY)
    for name, mark in (*pem, ("ssl_key_password_file", ""), ("sasl_password_file", "")):
        path = getattr(kafka, name)
        if path is None:
            continue
        try:
            text = _read_text(path, name)
        except Misconfigured as problem:
            yield str(problem)
        else:
            if mark not in text:
                yield f"{name} = {path} is not PEM: it has no line {mark}"


def _read_text(path: Path, name: str) -> str:
    """The text of a file that a setting names, without the end of its last line.

    Raises:
        Misconfigured: it cannot be read, or is empty; names the setting.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise Misconfigured(f"{name} = {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:  # its context would show bytes of the file
        raise Misconfigured(f"{name} = {path} is not text") from None
    if not text:
        raise Misconfigured(f"{name} = {path} is empty")
    return text


def _read_secret(given: SecretStr | None, path: Path | None, name: str) -> str | None:
    if given is not None:
        return given.get_secret_value()
    return None if path is None else _read_text(path, name)


def _load_certificate(context: ssl.SSLContext, kafka: KafkaSettings, certificate: Path) -> None:
    password = _read_secret(kafka.ssl_key_password, kafka.ssl_key_password_file, "kafka.ssl_key_password_file")
    key = kafka.ssl_key_location
    try:
        context.load_cert_chain(certificate, key, password or "")  # without one OpenSSL would ask at the terminal
    except OSError as error:  # SSLError is one
        reason = getattr(error, "reason", None) or error.strerror
        raise Misconfigured(
            f"kafka.ssl_certificate_location = {certificate} cannot be used with kafka.ssl_key_location = {key}: "
            f"{reason}; is the key that of the certificate, and kafka.ssl_key_password right?"
        ) from error
