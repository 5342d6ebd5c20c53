"""Reading the dead-letter topic up to a fixed end: first the notes, then the letters."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from worker.dlq.letters import Identity, Letter, decode_letter
from worker.errors import Retriable
from worker.kafka.connection import Place
from worker.kafka.reader import LogReader
from worker.kafka.watermarks import read_high_watermarks
from worker.records import Record
from worker.settings import Settings
from worker.sinks.tail import open_reader

FETCH_RECORDS = 500
FETCH_SECONDS = 0.2
SCAN_SECONDS = 10.0  # how often the broker looks for transactions past their time-out


@dataclass(slots=True)
class DeadLog:
    """The dead-letter topic from ``first`` up to ``end``, read as often as asked; one task reads.

    ``foreign`` counts, once all was read, the records that are no dead letters.
    """

    reader: LogReader
    place: Place
    first: int
    end: int
    patience_seconds: float
    foreign: int = 0

    async def read_notes(self) -> dict[Identity, datetime]:
        """Which raw records were sent again, and when last."""
        found = [letter async for letter in self._decode() if letter.is_note]
        return {note.identity: note.body.failed_at for note in found}

    async def letters(self) -> AsyncIterator[Letter]:
        """All letters in their order, without the notes."""
        async for letter in self._decode():
            if not letter.is_note:
                yield letter

    async def _decode(self) -> AsyncIterator[Letter]:
        self.foreign = 0
        async for record in self._records():
            letter = decode_letter(record)
            self.foreign += letter is None
            if letter is not None:
                yield letter

    async def _records(self) -> AsyncIterator[Record]:
        if self.first >= self.end:
            return
        self.reader.assign({self.place: self.first})
        at, moved = self.first, time.monotonic()
        while at < self.end:
            for record in await self.reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
                if record.offset < self.end:
                    yield record
            position = await self.reader.position(self.place)
            if position > at:
                at, moved = position, time.monotonic()
            elif time.monotonic() - moved > self.patience_seconds:
                raise Retriable(
                    f"{self.place.topic} cannot be read past offset {at} of {self.end} for {self.patience_seconds:.0f} "
                    "s: does a transaction that was never ended hold it back?"
                )


@asynccontextmanager
async def open_dead_log(settings: Settings, *, whole: bool = False) -> AsyncIterator[DeadLog]:
    """The dead-letter topic as it is now.

    Args:
        settings: the connection, and the topic's name.
        whole: wait for what open transactions hold back, since a note may lie behind it.
    """
    place = Place(settings.topic_names.dead, 0)
    async with open_reader(settings, "dlq") as reader:
        first = (await reader.first_offsets([place]))[place]
        ends = await (read_high_watermarks(settings.kafka, [place]) if whole else reader.stable_ends([place]))
        patience_seconds = 2 * settings.kafka.transaction_timeout_ms / 1000 + SCAN_SECONDS
        yield DeadLog(reader, place, first, ends[place], patience_seconds)
