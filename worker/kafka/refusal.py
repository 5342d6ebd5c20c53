"""Why brokers that are there will not have us: what aiokafka only logs, and then reports as a broker that is away.

Asks each broker again, as aiokafka does, and judges what then comes up by itself. Only a refusal that no waiting mends
is one; a broker that is down, slow or restarting is none.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from worker.errors import Misconfigured

PROBE_SECONDS = 5.0
OTHER_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
CREDENTIALS = ("client_id", "security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username",
               "sasl_plain_password")  # fmt: skip
HANGS_UP = (errors.KafkaConnectionError, ConnectionError, ssl.SSLEOFError, asyncio.IncompleteReadError)


async def find_refusal(client: object) -> Misconfigured | None:
    """What is wrong with how a client of aiokafka's introduces itself; None if nothing is, or no broker answers.

    Args:
        client: a consumer, producer or administrator that could not do its work.
    """
    inner = getattr(client, "_client", None) or getattr(client, "client", None)
    if not isinstance(inner, AIOKafkaClient):
        return None
    given = {name: vars(inner)[f"_{name}"] for name in CREDENTIALS}
    named = [(host, port) for host, port, _ in inner.hosts]
    advertised = [(broker.host, broker.port) for broker in inner.cluster.brokers()]
    for host, port in dict.fromkeys([*named, *advertised]):
        reason = await _Introduction(host, port, given).find_fault()
        if reason is not None:
            return Misconfigured(f"broker {host}:{port} {reason}")
    return None


@dataclass(frozen=True, slots=True)
class _Introduction:
    """One broker, and how we introduce ourselves to it."""

    host: str
    port: int
    given: dict[str, Any]

    async def find_fault(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._introduce()
        except (OSError, EOFError, TimeoutError, errors.KafkaError) as error:
            return await self._judge(error)
        return None

    async def _introduce(self) -> None:
        connection = await self._connect(**self.given)
        try:
            await connection.send(MetadataRequest([]))
        except errors.KafkaConnectionError as error:
            raise _HungUpError from error
        finally:
            await connection.close()

    async def _connect(self, **given: Any) -> AIOKafkaConnection:
        milliseconds = int(PROBE_SECONDS * 1000)
        return await create_conn(self.host, self.port, request_timeout_ms=milliseconds, **given)

    async def _judge(self, error: BaseException) -> str | None:
        """In words, if it is a refusal."""
        if isinstance(error.__cause__, ssl.SSLError):  # TLS 1.3: the broker judges us after the handshake
            error = error.__cause__
        if isinstance(error, ssl.SSLCertVerificationError):
            return _describe_distrust(error)
        if isinstance(error, _HungUpError) and not self._logs_in:
            return f"wants a login, which security_protocol = {self._protocol} does not: set kafka.security_protocol"
        if isinstance(error, HANGS_UP) or getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
            return await self._compare_encryption()
        if isinstance(error, ssl.SSLError):
            return (
                f"breaks off TLS ({error.reason}): if it asks for a certificate, set kafka.ssl_certificate_location "
                "to one that its authorities signed"
            )
        return self._describe_denied_login(error)

    def _describe_denied_login(self, error: BaseException) -> str | None:
        user, mechanism = self.given["sasl_plain_username"], self.given["sasl_mechanism"]
        if isinstance(error, errors.UnsupportedSaslMechanismError):
            return f"does not offer kafka.sasl_mechanism = {mechanism}: set one of its sasl.enabled.mechanisms"
        if isinstance(error, errors.IllegalSaslStateError):
            return f"knows no login here: set kafka.security_protocol = {self._protocol.removeprefix('SASL_')}"
        if isinstance(error, errors.SaslAuthenticationFailed | errors.AuthenticationFailedError):
            return (
                f"refuses user {user} by {mechanism}: are kafka.sasl_username and kafka.sasl_password right, and has "
                f"the user credentials for {mechanism}?"
            )
        return None

    async def _compare_encryption(self) -> str | None:
        """Whether the broker hangs up because one of us speaks TLS and the other does not."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if self._encrypts:
                    await (await self._connect(client_id=self.given["client_id"])).close()
                    return f"speaks no TLS: security_protocol = {self._protocol} needs another port, or set PLAINTEXT"
                await self._speak_tls()
        except (OSError, EOFError, TimeoutError, errors.KafkaError):
            return None
        return (
            f"speaks TLS, security_protocol = {self._protocol} does not: set kafka.security_protocol = SASL_SSL or SSL"
        )

    async def _speak_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # nothing is sent but the greeting
        context.verify_mode = ssl.CERT_NONE
        _, writer = await asyncio.open_connection(self.host, self.port, ssl=context)
        writer.close()
        await writer.wait_closed()

    @property
    def _protocol(self) -> str:
        protocol: str = self.given["security_protocol"]
        return protocol

    @property
    def _encrypts(self) -> bool:
        return self._protocol.endswith("SSL")

    @property
    def _logs_in(self) -> bool:
        return self._protocol.startswith("SASL")


class _HungUpError(ConnectionError):
    """The broker took the connection, told its versions, and hung up at the first question."""


def _describe_distrust(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in OTHER_NAME:
        return (
            f"shows a certificate of another name ({error.verify_message}): name the broker as its certificate does, "
            "in kafka.bootstrap_servers and in its own advertised.listeners"
        )
    return (
        f"shows a certificate that is not trusted ({error.verify_message}): is kafka.ssl_ca_location that of the "
        "authority that signed it?"
    )
