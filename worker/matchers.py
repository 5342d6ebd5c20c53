"""Which alerts are meant, in Alertmanager's syntax: text to matchers and back, and whether they hold. Pure.

A pattern that does not compile, or has not answered in time, holds for no alert, negated or not: so a broken silence
silences nothing.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, get_args

import regex

from schemas.events import AlertEvent, AlertKind, AlertStatus, KeyType, Matcher, Severity

FIELDS: tuple[str, ...] = get_args(Matcher.model_fields["field"].annotation)
MAX_VALUE_CHARS = 256
PATTERN_SECONDS = 0.01

_CLOSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kind": tuple(AlertKind),
        "severity": tuple(Severity),
        "status": tuple(AlertStatus),
        "key_type": tuple(KeyType),
    }
)
_MATCHER = re.compile(r"\s*(\w+)\s*(=~|!=|!~|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\([\\"n])')


def parse_matcher(text: str) -> Matcher:
    r"""``key=symbol:HRVL``, ``severity=~"warning|critical"``, ``key_type!=source`` or ``key!~"symbol:.*"``.

    In quotes ``\"``, ``\\`` and ``\n`` stand for a quote, a backslash and a line end; any other backslash is itself.

    Raises:
        ValueError: says what is wrong with it.
    """
    match = _MATCHER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no matcher: write FIELD=VALUE, FIELD!=VALUE, FIELD=~PATTERN or FIELD!~PATTERN")
    field, op, value = match[1], match[2], _unquote(match[3], text)
    if field not in FIELDS:
        raise ValueError(f"{text!r}: alerts have no field {field!r} to match; there are {', '.join(FIELDS)}")
    if len(value) > MAX_VALUE_CHARS:
        raise ValueError(f"{text[:40]!r}...: {len(value)} characters are too many; at most {MAX_VALUE_CHARS}")
    if op in {"=~", "!~"}:
        _require_pattern(value, text)
    elif value and value not in _CLOSED.get(field, (value,)):
        raise ValueError(f"{text!r}: {field} is one of {', '.join(_CLOSED[field])}")
    return Matcher.model_validate({"field": field, "op": op, "value": value})


def _unquote(value: str, text: str) -> str:
    if '"' not in value[:1] + value[-1:]:
        return value
    quoted = _QUOTED.fullmatch(value)
    if quoted is None:
        raise ValueError(f"{text!r}: quotes must stand around the whole value, and be escaped within it")
    return _ESCAPED.sub(lambda escaped: "\n" if escaped[1] == "n" else escaped[1], quoted[1])


def _require_pattern(value: str, text: str) -> None:
    try:
        regex.compile(value)
    except (regex.error, ValueError) as error:
        raise ValueError(f"{text!r}: the pattern is no regular expression: {error}") from error


def render_matcher(matcher: Matcher) -> str:
    """What `parse_matcher` reads as the same matcher."""
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.field}{matcher.op}"{value}"'


def matches(matcher: Matcher, alert: AlertEvent) -> bool:
    """Whether it holds for the alert; a field that is absent counts as empty."""
    found = getattr(alert, matcher.field)
    value = "" if found is None else str(found)
    if matcher.op in {"=", "!="}:
        return (value == matcher.value) is (matcher.op == "=")
    holds = _fits(matcher.value, value)
    return holds is not None and holds is (matcher.op == "=~")


def match_all(matchers: Iterable[Matcher], alert: AlertEvent) -> bool:
    """Whether every one of them holds; none at all hold for any alert."""
    return all(matches(matcher, alert) for matcher in matchers)


def _fits(pattern: str, value: str) -> bool | None:
    """Whether a pattern fits the whole value; None where there is no telling."""
    compiled = _compile(pattern)
    try:
        return None if compiled is None else compiled.fullmatch(value, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        return None


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> Any:  # regex has no types
    try:
        return regex.compile(pattern)
    except (regex.error, ValueError):
        return None
