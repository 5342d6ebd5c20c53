"""Sending dead letters to the raw topic again, each at most once however often it is asked for. Pure but for `deliver`.

What was sent is remembered in the dead-letter topic itself: the transaction that writes a raw record again also writes
a note behind its letter, in the same partition, so that retention never takes the note before the letter. A committed
offset could not remember it, since ``--where`` leaves holes. The transactional id is one for all: a second redrive
fences the first before it reads the notes, so two at once cannot send a letter twice.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from schemas.events import DeadLetter
from worker.dlq.letters import NOTE_KIND, REDRIVEN_HEADER, Identity, Letter, Selection
from worker.records import OutRecord

BATCH_LETTERS = 200
BATCH_BYTES = 1 << 20

Deliver = Callable[[Sequence[OutRecord]], Awaitable[None]]
"""Writes all of it in one transaction, or raises."""


class Fate(StrEnum):
    """What becomes of a letter that was asked for."""

    redriven = "redriven"
    already = "already redriven"
    exhausted = "redriven too often"
    lacking = "without its value"
    foreign = "of another topic"
    expired = "too old for the raw topic"

    @property
    def is_refusal(self) -> bool:
        """Whether something that was asked for cannot be done."""
        return self not in {Fate.redriven, Fate.already}


@dataclass(frozen=True, slots=True)
class RedriveRules:
    """Where letters come from and go to, and which may go.

    ``oldest_ms`` is the timestamp before which the raw topic's retention would delete a record again, perhaps unread;
    None where it keeps all.
    """

    dead_topic: str
    raw_topic: str
    partitions: int
    max_times: int = 1
    oldest_ms: int | None = None


@dataclass(slots=True)
class Tally:
    """What has become of the letters so far; grows while they are sent, and is true also when that fails midway."""

    fates: Counter[Fate] = field(default_factory=Counter)
    examples: dict[Fate, Letter] = field(default_factory=dict)

    def add(self, fate: Fate, *letters: Letter) -> None:
        """Count letters."""
        if letters:
            self.fates[fate] += len(letters)
            self.examples.setdefault(fate, letters[0])

    @property
    def refused(self) -> int:
        """Letters that were asked for and cannot be sent."""
        return sum(count for fate, count in self.fates.items() if fate.is_refusal)


def decide(letter: Letter, redriven: set[Identity], rules: RedriveRules) -> Fate:
    """Whether a letter may be sent."""
    place, times = letter.body.input, letter.times_redriven
    if letter.identity in redriven:
        return Fate.already
    if place.topic != rules.raw_topic or place.partition >= rules.partitions:
        return Fate.foreign
    if letter.lacks_value:
        return Fate.lacking
    if times is None or times >= rules.max_times:
        return Fate.exhausted
    if rules.oldest_ms is not None and 0 <= letter.body.timestamp_ms < rules.oldest_ms:
        return Fate.expired
    return Fate.redriven


def write_again(letter: Letter, rules: RedriveRules, now: datetime) -> tuple[OutRecord, OutRecord]:
    """The raw record with its count of redrives, and the note."""
    body, place = letter.body, letter.body.input
    times = (letter.times_redriven or 0) + 1
    kept = [(name, value) for name, value in body.headers if name != REDRIVEN_HEADER]
    headers = (*kept, (REDRIVEN_HEADER, str(times).encode()))
    note = DeadLetter(
        input=place,
        timestamp_ms=body.timestamp_ms,
        kind=NOTE_KIND,
        reason=f"the letter at offset {letter.offset}, {body.kind!r}, was sent to its partition again",
        attempts=body.attempts,
        failed_at=now,
    )
    return (
        OutRecord(place.topic, body.key, body.value, place.partition, headers, body.timestamp_ms),
        OutRecord(rules.dead_topic, letter.coordinates.encode(), note.to_json(), 0),
    )


@dataclass(slots=True)
class _Batch:
    letters: list[Letter] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, letter: Letter) -> None:
        self.letters.append(letter)
        self.size_bytes += len(letter.body.value or b"")

    @property
    def is_full(self) -> bool:
        return len(self.letters) >= BATCH_LETTERS or self.size_bytes >= BATCH_BYTES


async def redrive(
    letters: AsyncIterator[Letter],
    redriven: set[Identity],
    selection: Selection,
    rules: RedriveRules,
    *,
    deliver: Deliver,
    tally: Tally,
    now: datetime,
    max_letters: int | None = None,
) -> None:
    """Send the letters that are meant, in their order, in batches.

    Args:
        letters: as they lie, no notes among them.
        redriven: what the notes name; grows by what is sent, so that a letter that lies there twice goes once.
        selection: which are meant.
        rules: which of them may go.
        deliver: writes a batch.
        tally: told what became of each, once it is certain.
        now: of the notes.
        max_letters: stop once so many were sent.

    Raises:
        WorkerError: as ``deliver`` says; what the tally counts as redriven is committed.
    """
    left, batch = max_letters, _Batch()

    async def send() -> None:
        await deliver([record for letter in batch.letters for record in write_again(letter, rules, now)])
        tally.add(Fate.redriven, *batch.letters)

    async for letter in letters:
        if left == 0:
            break
        if not selection.holds(letter):
            continue
        fate = decide(letter, redriven, rules)
        if fate is not Fate.redriven:
            tally.add(fate, letter)
            continue
        redriven.add(letter.identity)
        batch.add(letter)
        left = None if left is None else left - 1
        if batch.is_full:
            await send()
            batch = _Batch()
    if batch.letters:
        await send()
