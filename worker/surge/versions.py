"""Versions of the records of the state topic: each carries its own, ahead of its fields. Pure.

A program reads its newest version and the one before, and writes the older until told, so that a fleet can be rolled
forward and back while workers of both programs run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Fields = Sequence[Any] | dict[str, Any]
"""What a record says beside its version: an array, or an object for the frontier."""

VERSION_FIELD = "v"


@dataclass(frozen=True, slots=True)
class Step:
    """Between the last version and the newest: each way takes the name of a record and its fields, and gives others."""

    upgrade: Callable[[str, Any], Any]
    downgrade: Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Versions:
    """What this program reads, and which it ``writes``; without a ``step`` there is only the newest."""

    newest: int
    writes: int
    step: Step | None = None

    @property
    def oldest(self) -> int:
        """The oldest that is read: the newest but one, if there is a step from it."""
        return self.newest - (self.step is not None)

    def seal(self, name: str, fields: Fields) -> bytes:
        """The record of these fields, of the version that is written."""
        if self.step is not None and self.writes < self.newest:
            fields = self.step.downgrade(name, fields)
        if isinstance(fields, dict):
            return orjson.dumps({VERSION_FIELD: self.writes, **fields})
        return orjson.dumps((self.writes, *fields))

    def open(self, name: str, value: bytes) -> Any:
        """The fields of a record, as of the newest version.

        Raises:
            ValueError: it is of a version that this program does not read.
        """
        record = orjson.loads(value)
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
