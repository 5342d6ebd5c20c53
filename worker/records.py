"""What travels between the Kafka edge and the core: records as bytes with coordinates, and a partition's clock.

Knows no Kafka client and no event model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read. ``timestamp_ms`` is -1 where it has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers."""
        size_bytes = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size_bytes += len(name) + len(value or b"")
        return size_bytes


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be written.

    ``partition`` None leaves the choice to the partitioner, ``timestamp_ms`` None the time to the client.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionClock:
    """How far a raw partition has come; travels as the metadata of its committed offset.

    ``clock_ms`` is None until a record or an idle mark has set it. ``labelled_next_offset`` is the offset after the
    last event written to the labelled partition of the same number.
    """

    clock_ms: int | None = None
    labelled_next_offset: int = 0
