"""The routes file: receivers and routes, checked as a whole, with secrets from the environment or from files.

Reads the files it names; the environment is given.
"""

import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator

from schemas.events import Matcher
from worker.errors import Misconfigured
from worker.kafka_settings import Section
from worker.matchers import parse_matcher, render_matcher
from worker.notify.decision import Route
from worker.notify.hours import Hours, parse_days

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]
Seconds = Annotated[float, Field(gt=0, le=120)]


class Secret(Section):
    """Where a secret stands: in an environment variable or in a file."""

    env: str | None = None
    """Name of the variable."""
    file: Path | None = None
    """A file that holds nothing else."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.env is None) is (self.file is None):
            raise ValueError('name one place: { env = "NAME" } or { file = "PATH" }')
        return self

    def read(self, environ: Mapping[str, str]) -> SecretStr:
        """The secret as it stands now.

        Raises:
            ValueError: there is none; names the place.
        """
        if self.env is not None:
            found = environ.get(self.env, "")
            place = f"environment variable {self.env}"
        else:
            assert self.file is not None
            place = f"file {self.file}"
            try:
                found = self.file.read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(f"{place} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError:  # its context would show bytes of the file
                raise ValueError(f"{place} is not text") from None
        if not found.strip():
            raise ValueError(f"{place} is not set, or empty")
        return SecretStr(found.strip())


Url = str | Secret


class _Receiver(Section):
    """What all receivers have."""

    name: Name
    timeout_seconds: Seconds = 10.0
    """How long an answer may take."""
    max_backoff_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """A receiver that fails is left alone for so long at most, unless it asks for more (``Retry-After``)."""
    allow_plain_http: bool = False
    """Allow ``http`` to other machines: what is sent can be read and altered on the way."""
    storm_cap: Annotated[int, Field(gt=0)] = 20
    """So many new alerts are sent one by one in a window; the rest comes together at its end."""
    storm_window_seconds: Annotated[float, Field(gt=0)] = 600.0


class WebhookReceiver(_Receiver):
    """Gets alerts as they were published."""

    kind: Literal["webhook"]
    url: Url
    secret: Secret | None = None
    """Signs what is sent."""


class AlertmanagerReceiver(_Receiver):
    """Prometheus' Alertmanager."""

    kind: Literal["alertmanager"]
    url: Url
    token: Secret | None = None
    """Shown as a bearer token."""
    resend_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How often it is told that an alert goes on."""


class SlackReceiver(_Receiver):
    """Slack, or what speaks its tongue: by an incoming webhook (``url``), or as an app (``token`` and ``channel``)."""

    kind: Literal["slack"]
    url: Url | None = None
    token: Secret | None = None
    channel: str | None = None
    revisions: Literal["update", "thread"] = "update"
    base_url: str = "https://slack.com/api"

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if (self.url is None) is (self.token is None):
            raise ValueError("give either url, of an incoming webhook, or token and channel, of an app")
        if (self.token is None) is not (self.channel is None):
            raise ValueError("token and channel go together")
        return self


Receiver = WebhookReceiver | AlertmanagerReceiver | SlackReceiver


class _Active(Section):
    """``active`` of a route."""

    timezone: str
    days: str = "Mon-Sun"
    opens: Annotated[str, Field(alias="from")] = "00:00"
    closes: Annotated[str, Field(alias="to")] = "00:00"

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        self.to_hours()
        return self

    def to_hours(self) -> Hours:
        """As the routes use it.

        Raises:
            ValueError: says what is wrong.
        """
        try:
            zone = ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{self.timezone!r} is no time zone, such as Europe/London") from error
        return Hours(zone, parse_days(self.days), _read_clock(self.opens), _read_clock(self.closes))


def _read_clock(text: str) -> time:
    at = time.fromisoformat("00:00" if text == "24:00" else text)
    if at.tzinfo is not None:
        raise ValueError(f"{text!r} must be without a zone")
    return at


def _read_matchers(given: Any) -> tuple[Matcher, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError('matchers is a list of texts, such as ["severity=critical"]')
    return tuple(parse_matcher(each) for each in given)


class _RouteTable(Section):
    """A ``[[route]]``."""

    receiver: str
    matchers: Annotated[tuple[Matcher, ...], BeforeValidator(_read_matchers)] = ()
    active: _Active | None = None
    outside: Literal["hold", "drop"] = "hold"
    goes_on: Annotated[bool, Field(alias="continue")] = False
    include_pending: bool = False
    inhibited: Literal["hide", "send"] = "hide"

    def to_route(self) -> Route:
        """As decisions use it."""
        return Route(
            self.receiver,
            self.matchers,
            self.active.to_hours() if self.active else None,
            self.outside,
            self.goes_on,
            self.include_pending,
            self.inhibited,
        )


class _File(Section):
    """The whole file."""

    receiver: Annotated[tuple[Annotated[Receiver, Field(discriminator="kind")], ...], Field(min_length=1)]
    route: Annotated[tuple[_RouteTable, ...], Field(min_length=1)]
    allowed_hosts: tuple[str, ...] | None = None
    proxy: Url | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a receiver is spoken to, with its secrets."""

    receiver: Receiver
    url: SecretStr
    secret: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Receivers and routes that fit together. ``proxy`` and ``ca_file`` are of all connections."""

    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    proxy: SecretStr | None = None
    ca_file: Path | None = None


def load_plan(path: Path, environ: Mapping[str, str]) -> Plan:
    """The plan in a routes file.

    Raises:
        Misconfigured: names all that is wrong; no secret is shown.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"routes file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"routes file {path} is no TOML: {error}") from error
    return make_plan(given, environ, str(path))


def make_plan(given: Mapping[str, Any], environ: Mapping[str, str], path: str = "routes") -> Plan:
    """See `load_plan`."""
    try:
        file = _File.model_validate(given)
    except ValidationError as error:
        raise Misconfigured("\n".join(f"{path}: {line}" for line in _explain(error))) from error
    problems: list[str] = []
    addresses = tuple(_find_address(each, environ, file.allowed_hosts, problems) for each in file.receiver)
    proxy = _read_url(file.proxy, environ, "proxy", problems) if file.proxy is not None else None
    if file.ca_file is not None and not file.ca_file.is_file():
        problems.append(f"ca_file = {file.ca_file} does not exist")
    problems += _doubt_names([each.name for each in file.receiver], [each.receiver for each in file.route])
    if problems:
        raise Misconfigured("\n".join(f"{path}: {problem}" for problem in problems))
    return Plan(addresses, tuple(each.to_route() for each in file.route), proxy, file.ca_file)


def _explain(error: ValidationError) -> list[str]:
    """Each problem by its place in the file; what was given is not repeated, since it may be a secret."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"] if part not in {"Secret", "str"})
        lines.append(f"{where or 'file'}: {problem['msg'].removeprefix('Value error, ')}")
    return lines


def _doubt_names(receivers: Sequence[str], used: Sequence[str]) -> list[str]:
    twice = sorted({name for name in receivers if receivers.count(name) > 1})
    unknown = sorted(set(used) - set(receivers))
    unused = sorted(set(receivers) - set(used))
    return [
        *(f"receiver {name!r} is there twice" for name in twice),
        *(f"a route leads to receiver {name!r}, which is not there" for name in unknown),
        *(f"no route leads to receiver {name!r}" for name in unused),
    ]


def _find_address(
    receiver: Receiver, environ: Mapping[str, str], allowed: Sequence[str] | None, problems: list[str]
) -> Address:
    where = f"receiver {receiver.name!r}"
    given = receiver.url
    if given is None:
        assert isinstance(receiver, SlackReceiver)
        given = receiver.base_url
    url = _read_url(given, environ, where, problems)
    problems += [f"{where}: {problem}" for problem in _doubt_url(url.get_secret_value(), receiver, allowed)]
    place = receiver.secret if isinstance(receiver, WebhookReceiver) else receiver.token
    secret = None
    if place is not None:
        try:
            secret = place.read(environ)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return Address(receiver, url, secret)


def _read_url(given: Url, environ: Mapping[str, str], where: str, problems: list[str]) -> SecretStr:
    if isinstance(given, str):
        return SecretStr(given)
    try:
        return given.read(environ)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return SecretStr("")


def _doubt_url(url: str, receiver: Receiver, allowed: Sequence[str] | None) -> list[str]:
    """What speaks against a url; its path may be a secret and is not shown."""
    if not url:
        return []
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ["url is none"]
    if parts.scheme not in {"http", "https"} or not host:
        return ["url must begin with https:// or http:// and name a host"]
    if parts.username is not None or parts.password is not None:
        return ["url must not hold a user or a password"]
    problems = []
    if allowed is not None and host not in allowed:
        problems.append(f"host {host} is not among allowed_hosts")
    if parts.scheme == "http" and not _is_loopback(host) and not receiver.allow_plain_http:
        problems.append(f"http to {host} is not encrypted: use https, or, if you mean it, allow_plain_http = true")
    return problems


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def render_plan(plan: Plan) -> list[str]:
    """The plan in lines; secrets and paths of urls are left out."""
    lines = []
    for address in plan.addresses:
        receiver = address.receiver
        parts = urlsplit(address.url.get_secret_value())
        signed = ", signed" if isinstance(receiver, WebhookReceiver) and address.secret is not None else ""
        lines.append(f"receiver {receiver.name}: {receiver.kind} at {parts.scheme}://{parts.netloc}{signed}")
    for number, route in enumerate(plan.routes, start=1):
        what = " and ".join(render_matcher(each) for each in route.matchers) or "every alert"
        when = f", {route.active} (else {route.outside})" if route.active else ""
        more = [text for text, said in (("pending too", route.include_pending),) if said]
        more += ["inhibited too"] if route.inhibited == "send" else []
        then = "; the next routes are asked too" if route.goes_on else ""
        lines.append(f"route {number}: {what} -> {route.receiver}{when}{''.join(f', {each}' for each in more)}{then}")
    return lines
