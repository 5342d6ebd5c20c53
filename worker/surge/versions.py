"""Versions of the records of the state topic: each carries its own, ahead of its fields. Pure.

A program reads its newest version and the one before, and writes the older until told, so that a fleet can be rolled
forward and back while workers of both programs run. Numbers survive the round trip bit for bit, which is what makes a
restored detector go on exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from msgspec import MsgspecError, convert, json

VERSION_FIELD = "v"

KEY_PREFIX: Final = "k:"
CLUSTER_PREFIX: Final = "c:"
"""How the names of keys' and of clusters' records begin."""

Kind = TypeVar("Kind")

_encode: Final = json.Encoder().encode
_ARRAY: Final = ord("[")


@dataclass(frozen=True, slots=True)
class Step:
    """Between the last version and the newest: each way takes the name of a record and its fields, and gives others.

    Fields are a list, or a dictionary for the frontier.
    """

    upgrade: Callable[[str, Any], Any]
    downgrade: Callable[[str, Any], Any]


@dataclass
class Versions:
    """What this program reads, and which it ``writes``; without a ``step`` there is only the newest."""

    newest: int
    writes: int
    step: Step | None = None

    @property
    def oldest(self) -> int:
        """The oldest that is read: the newest but one, if there is a step from it."""
        return self.newest - (self.step is not None)

    def __post_init__(self) -> None:
        self._array_head = b"[%d," % self.writes
        self._object_head = b'{"%s":%d,' % (VERSION_FIELD.encode(), self.writes)
        self._newest_head = b"[%d," % self.newest

    def seal(self, name: str, record: object) -> bytes:
        """A record of the version that is written; its fields are what msgspec makes an array or an object of."""
        fields = _encode(record)
        if self.step is not None and self.writes < self.newest:
            fields = _encode(self.step.downgrade(name, json.decode(fields)))
        return (self._array_head if fields[0] == _ARRAY else self._object_head) + fields[1:]

    def open(self, name: str, value: bytes, decoder: json.Decoder[Kind]) -> Kind:
        """What a record says, as of the newest version; the decoder is of its fields.

        Raises:
            ValueError: it is of a version that this program does not read, or no such record.
        """
        head = self._newest_head
        try:
            if value.startswith(head):  # so are all but the frontier, unless a fleet is rolled forward
                return decoder.decode(b"[" + value[len(head) :])
            return convert(self._fields(name, value), decoder.type)
        except MsgspecError as error:
            raise ValueError(f"record {name} is damaged: {error}") from error

    def _fields(self, name: str, value: bytes) -> Any:
        record = json.decode(value)
        version, fields = (record.pop(VERSION_FIELD), record) if isinstance(record, dict) else (record[0], record[1:])
        if version == self.newest:
            return fields
        if version == self.oldest and self.step is not None:
            return self.step.upgrade(name, fields)
        read = f"version {self.newest}" if self.step is None else f"versions {self.oldest} and {self.newest}"
        whose = "a newer worker wrote it" if version > self.newest else "an older worker wrote it"
        raise ValueError(f"record {name} is of version {version}, this worker reads {read}: {whose}")


STATE = Versions(newest=1, writes=1)
"""Of this program."""
