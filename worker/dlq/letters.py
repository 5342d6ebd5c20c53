"""Dead letters as an operator asks for them: where one lies, what is said of it, which are meant. Pure.

A letter's coordinates are those of its raw record, as in the `event_id` of an event. A note is a letter of the kind
``redriven``: it says that the raw record at its coordinates was sent again.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas.events import DeadLetter, format_instant
from worker.codec import event_id, to_instant
from worker.records import Record

NOTE_KIND = "redriven"
REDRIVEN_HEADER = "stacknorm-redriven"
"""On a raw record that was sent again: how often, in decimal."""

_CONDITION = re.compile(r"(\w+)([=~])(.*)", re.DOTALL)
_FIELDS: Mapping[str, Callable[[DeadLetter], str]] = {
    "kind": lambda letter: letter.kind,
    "topic": lambda letter: letter.input.topic,
    "partition": lambda letter: str(letter.input.partition),
    "offset": lambda letter: str(letter.input.offset),
    "reason": lambda letter: letter.reason,
}


class Identity(NamedTuple):
    """One raw record, also where a topic was made anew and counts its offsets from 0 again."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, and its offset in the dead-letter topic."""

    offset: int
    body: DeadLetter

    @property
    def coordinates(self) -> str:
        """Where the raw record lies."""
        return event_id(self.body.input)

    @property
    def identity(self) -> Identity:
        """What a note names it by."""
        place = self.body.input
        return Identity(place.topic, place.partition, place.offset, self.body.timestamp_ms)

    @property
    def is_note(self) -> bool:
        """Whether it only says that a record was sent again."""
        return self.body.kind == NOTE_KIND

    @property
    def lacks_value(self) -> bool:
        """Whether the record was too large for the topic, so that only its coordinates are here."""
        return self.body.value is None and (self.body.kind != "empty" or self.body.key is None)

    @property
    def times_redriven(self) -> int | None:
        """How often the record had been sent again before it failed; None where its header is no number."""
        said = [value or b"" for name, value in self.body.headers if name == REDRIVEN_HEADER]
        if not said:
            return 0
        return int(said[-1]) if said[-1].isdigit() else None


def decode_letter(record: Record) -> Letter | None:
    """The letter in a record of the dead-letter topic; None where another program has written something else."""
    try:
        return Letter(record.offset, DeadLetter.model_validate_json(record.value or b""))
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class Condition:
    """What a field of a letter must be, or hold."""

    field: str
    whole: bool
    text: str

    def holds(self, letter: Letter) -> bool:
        """Whether it is so."""
        found = _FIELDS[self.field](letter.body)
        return found == self.text if self.whole else self.text.casefold() in found.casefold()


def parse_condition(text: str) -> Condition:
    """``kind=json`` or ``reason~UTF-8``.

    Raises:
        ValueError: names the fields there are.
    """
    match = _CONDITION.fullmatch(text)
    if match is None or match[1] not in _FIELDS:
        raise ValueError(f"{text!r} is not FIELD=WHOLE or FIELD~PART with one of the fields {', '.join(_FIELDS)}")
    return Condition(match[1], match[2] == "=", match[3])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: of each field that has conditions, one must hold; ``since`` <= failed_at < ``until``."""

    conditions: tuple[Condition, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def holds(self, letter: Letter) -> bool:
        """Whether this letter is meant."""
        at = letter.body.failed_at
        if (self.since and at < self.since) or (self.until and at >= self.until):
            return False
        fields = {condition.field for condition in self.conditions}
        return all(any(each.holds(letter) for each in self.conditions if each.field == field) for field in fields)


def describe(letter: Letter, redriven_at: datetime | None) -> dict[str, Any]:
    """A letter for scripts, without the record's content; absent where there is nothing to say."""
    body = letter.body
    said = {
        "coordinates": letter.coordinates,
        "kind": body.kind,
        "reason": body.reason,
        "attempts": body.attempts,
        "failed_at": format_instant(body.failed_at),
        "timestamp": format_instant(to_instant(body.timestamp_ms)) if body.timestamp_ms >= 0 else None,
        "times_redriven": letter.times_redriven,
        "redriven_at": format_instant(redriven_at) if redriven_at else None,
        "offset_in_dead_letters": letter.offset,
    }
    return _without_absent(said.items())


def describe_whole(letter: Letter, redriven_at: datetime | None) -> dict[str, Any]:
    """A letter with its record: bytes as text where they are UTF-8, and in standard base64."""
    body = letter.body
    headers = [{"name": name, **_describe_bytes("value", value)} for name, value in body.headers]
    return (
        describe(letter, redriven_at)
        | _describe_bytes("key", body.key)
        | _describe_bytes("value", body.value)
        | {"headers": headers}
    )


def read_text(content: bytes) -> str | None:
    """Bytes as text; None where they are not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _describe_bytes(name: str, content: bytes | None) -> dict[str, str]:
    if content is None:
        return {}
    return _without_absent([(name, read_text(content)), (f"{name}_base64", b64encode(content).decode())])


def _without_absent(said: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in said if value is not None}
