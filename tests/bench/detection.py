"""The detector alone on one core, by the number of keys it knows: labelled events a second, bytes a key, its restore.

Each number of keys has a process of its own, `python -m tests.bench.detection KEYS SLICES STATE`, once the same with
`--write` has made the state. They take turns, a slice of the stream each, for what disturbs the machine hits all alike.
"""

import gc
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import orjson

from schemas.events import Entity, Event, InputRef, LabelledEvent, NewsItem, Progress, Sentiment, StackRef, Topic
from worker.codec import decode_event, decode_labelled, event_id, similarity_keys
from worker.detector import Batch, Detector, Position, is_compiled
from worker.memory import settle_memory
from worker.records import Record
from worker.runner.detector import MAX_RECORDS as BATCH
from worker.surge.rules import Rules

from .contest import Say, Spread

SYMBOLS = (10_000, 100_000, 1_000_000)
SLICE = 5 * BATCH
PARTITIONS = 6
SEED = 1
NEGATIVE_SHARE = 0.27
COPY_SHARE = 0.3
SECOND_SYMBOL_SHARE = 0.3
COPIED_STORIES = 5_000
"""A copy is of one of so many stories before it: of the last seven hours."""

SOURCES = 200
START = datetime(2026, 3, 2, tzinfo=UTC)
LEARNING_DAYS = 3
SILENCE_DAYS = 1.1
"""The state is of the end of a silence in which learning ends: keys have a baseline, no run, and no story is left."""

ROLL_CALL_DAYS = (0, 2)
"""Days of learning on which the items name every symbol once, beside their own."""

BEGIN = START + timedelta(days=LEARNING_DAYS + SILENCE_DAYS)
DAY = timedelta(days=1)
STACK = StackRef(name="finance", digest="5f0c3b1e9a7d4f26" * 4)
TOPICS = ("Financials", "Earnings", "Stock Movement", "Markets", "Energy", "Macro", "Currencies", "Politics", "Deals",
          "Personnel Change", "Legal", "Treasuries", "Gold", "Company | Product News", "Dividend")  # fmt: skip
WORDS = (
    "shares", "fall", "rise", "after", "results", "beat", "miss", "estimates", "warns", "of", "weaker", "demand",
    "cuts", "outlook", "raises", "guidance", "names", "new", "chief", "executive", "bank", "regulator", "fines",
    "probe", "opens", "over", "accounting", "deal", "talks", "merger", "with", "rival", "buys", "sells", "unit",
    "plant", "halts", "output", "recall", "chips", "oil", "gas", "gold", "dollar", "yields", "inflation", "data",
    "rate", "hike", "central", "lender", "bond", "default", "downgrade", "upgrade", "analysts", "see", "quarter",
    "profit", "loss", "revenue", "record", "drop", "surge", "plunge", "lawsuit", "settles", "strike", "factory",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """How much of the stream is timed, in slices, after a day of it that fills the window of copies.

    25,000 items a day have some 20,000 key-attributed negative stories, for which the rules are made.
    """

    items_a_day: int = 25_000
    slices: int = 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What the detector knew when it was restored, and what that took."""

    keys: int
    idle_key_bytes: float
    seconds: float
    facts_ms: float
    compiled: bool


@dataclass(frozen=True, slots=True)
class Detection:
    """What was measured at a number of keys. Microseconds are of the processor and for one labelled event.

    ``rest`` is the merge's buffer and the encoding of alerts; changelog records are encoded within ``step``. ``ratio``
    is the rate over that at the fewest keys, the median of the rounds'.
    """

    restored: Restored
    events_per_second: Spread
    ratio: float
    decode_us: float
    step_us: float
    rest_us: float


class Writer:
    """Labelled and progress records as the labeller writes them, from a seeded stream."""

    def __init__(self, symbols: int, items_a_day: int) -> None:
        self._items_a_day = items_a_day
        self.random = Random(SEED)
        self._names = [f"S{number:06}" for number in range(symbols)]
        self._by_symbol = _zipf(symbols)
        self._by_source = _zipf(SOURCES)
        self._next_offsets = [0] * PARTITIONS
        self._mark_offsets = [0] * PARTITIONS
        self._number = 0
        self._latest: deque[NewsItem] = deque(maxlen=COPIED_STORIES)

    def go_on(self, detector: Detector) -> None:
        """Write behind what a detector has read."""
        for number, position in detector.positions.items():
            self._next_offsets[number], self._mark_offsets[number] = position

    def learning(self) -> Iterator[list[Record]]:
        """The days of learning, in units; most keys are met on those of the roll call alone."""
        for start in range(0, LEARNING_DAYS * self._items_a_day, BATCH):
            day, number = divmod(start, self._items_a_day)
            called = self._names[self._called(number) : self._called(number + BATCH)]
            each = len(called) // BATCH + 1
            more = [called[n * each : (n + 1) * each] if day in ROLL_CALL_DAYS else [] for n in range(BATCH)]
            yield self.stream(START + start / self._items_a_day * DAY, more)

    def _called(self, number: int) -> int:
        """How many symbols the first ``number`` items of a day call."""
        return min(number, self._items_a_day) * len(self._names) // self._items_a_day

    def stream(self, begin: datetime, more_symbols: Sequence[Sequence[str]]) -> list[Record]:
        """An item of a usual day for each entry, which names these symbols too."""
        items = [self._item([*self._symbols(), *more]) for more in more_symbols]
        for n in range(len(items)):
            if self.random.random() < COPY_SHARE and self._latest and not more_symbols[n]:
                story = self.random.choice(self._latest)
                items[n] = story.model_copy(update={"source": self._source()})
            else:
                self._latest.append(items[n])
        keys = similarity_keys(items)
        return [
            self._record(item, key, begin + n / self._items_a_day * DAY)
            for n, (item, key) in enumerate(zip(items, keys, strict=True))
        ]

    def marks(self, clock: datetime) -> list[Record]:
        """One for each partition, behind all that has been written."""
        return [self._mark(partition, clock) for partition in range(PARTITIONS)]

    def _item(self, symbols: Sequence[str]) -> NewsItem:
        words = " ".join(self.random.choices(WORDS, k=self.random.randint(7, 12)))
        return NewsItem(title=f"{symbols[0]} {words}".capitalize(), source=self._source(), symbols=tuple(symbols))

    def _symbols(self) -> list[str]:
        count = 1 + (self.random.random() < SECOND_SYMBOL_SHARE)
        return list(dict.fromkeys(self.random.choices(self._names, cum_weights=self._by_symbol, k=count)))

    def _source(self) -> str:
        number = self.random.choices(range(SOURCES), cum_weights=self._by_source)[0]
        return f"Source {number} Wire"

    def _record(self, item: NewsItem, similarity_key: str, clock: datetime) -> Record:
        partition = self._number % PARTITIONS
        offset = self._next_offsets[partition]
        self._next_offsets[partition] += 1
        self._number += 1
        topic, *others = self.random.sample(TOPICS, 5)
        event = LabelledEvent(
            event_id=event_id(Record("news.raw", partition, offset, 0, None, None)),
            item_id=f"item-{self._number}",
            title=item.title,
            url=f"https://example.com/news/{self._number}",
            source=item.source or "",
            published_at=clock,
            received_at=clock,
            clock=clock,
            labelled_at=clock + timedelta(milliseconds=80),
            sentiment=self._sentiment(),
            topic=Topic(label=topic, probabilities={topic: 0.712345, **dict.fromkeys(others, 0.0431123)}),
            entities=tuple(Entity(id=symbol, scheme="symbol") for symbol in item.symbols),
            similarity_key=similarity_key,
            stack=STACK,
            input=InputRef(topic="news.raw", partition=partition, offset=offset),
        )
        return _encode(event, "news.labelled", partition, offset)

    def _sentiment(self) -> Sentiment:
        negative = self.random.random() < NEGATIVE_SHARE
        p = self.random.uniform(0.55, 0.98) if negative else self.random.uniform(0.01, 0.4)
        rest = (1 - p) / 3
        return Sentiment(
            label="negative" if negative else "neutral",
            score=rest - p,
            probabilities={"negative": p, "neutral": 2 * rest, "positive": rest},
            entropy=self.random.random(),
            disagreement=self.random.random() / 10,
        )

    def _mark(self, partition: int, clock: datetime) -> Record:
        offset = self._mark_offsets[partition]
        self._mark_offsets[partition] += 1
        reached = self._next_offsets[partition]
        mark = Progress(
            partition=partition, clock=clock, labelled_next_offset=reached, raw_next_offset=reached, lag=0, stack=STACK
        )
        return _encode(mark, "news.progress", partition, offset)


def _encode(event: Event, topic: str, partition: int, offset: int) -> Record:
    return Record(topic, partition, offset, 0, b"key", event.to_json())


def _zipf(count: int) -> list[float]:
    return list(accumulate(1 / rank for rank in range(1, count + 1)))


@dataclass(slots=True)
class Spent:
    """Processor seconds on each part of the work of a slice."""

    decode: float = 0.0
    step: float = 0.0
    rest: float = 0.0

    @property
    def total(self) -> float:
        """Of all parts."""
        return self.decode + self.step + self.rest


class Reading:
    """A detector that is fed records as its runner feeds it, with a clock that runs beside it."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.spent = Spent()

    def take(self, records: Sequence[Record], keep: Callable[[Batch], object] = lambda _: None) -> None:
        """Feed a unit and commit all that comes of it."""
        events, marks, spent = [], [], self.spent
        started = time.process_time()
        for record in records:
            if record.topic == "news.labelled":
                events.append((record, decode_labelled(record)))
            else:
                marks.append((record, decode_event(Progress, record)))
        decoded = time.process_time()
        for record, event in events:
            self.detector.add_event(record.partition, record.offset, event)
        for record, mark in marks:
            self.detector.add_mark(record.partition, record.offset, mark)
        ended = time.process_time()
        spent.decode += decoded - started
        spent.rest += ended - decoded
        while (batch := self._step()) is not None:
            keep(batch)

    def _step(self) -> Batch | None:
        started = time.process_time()
        batch = self.detector.step(BATCH, BEGIN)
        stepped = time.process_time()
        for alert in () if batch is None else batch.alerts:
            alert.to_json()
        self.spent.step += stepped - started
        self.spent.rest += time.process_time() - stepped
        return batch


def write_state(symbols: int, file: Path, load: Load) -> None:
    """Let a new detector meet every symbol, and write the newest record of each name, a line each."""
    writer = Writer(symbols, load.items_a_day)
    reading = Reading(Detector(Rules(), PARTITIONS))
    newest = dict(reading.detector.begin({number: Position(0, 0) for number in range(PARTITIONS)}).changelog)
    for unit in writer.learning():
        reading.take(unit, lambda batch: newest.update(batch.changelog))
    reading.take(writer.marks(BEGIN), lambda batch: newest.update(batch.changelog))
    with file.open("wb") as opened:
        for name, value in newest.items():
            if value is not None:
                opened.write(orjson.dumps((name.decode(), value.decode())) + b"\n")


def _cut(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    return (records[start : start + size] for start in range(0, len(records), size))


def _read_state(file: Path) -> Iterator[tuple[bytes, bytes]]:
    with file.open("rb") as opened:
        for line in opened:
            name, value = orjson.loads(line)
            yield name.encode(), value.encode()


def measure(symbols: int, file: Path, load: Load) -> tuple[Restored, Iterator[Spent]]:
    """Restore the state that knows so many symbols and let a day go by; the slices are timed as they are asked for."""
    gc.collect()
    before_bytes = _resident_bytes()
    started = time.perf_counter()
    detector = Detector.restore(Rules(), PARTITIONS, _read_state(file))
    restored_seconds = time.perf_counter() - started
    gc.collect()
    keys = detector.facts().keys
    key_bytes = (_resident_bytes() - before_bytes) / keys
    reading = Reading(detector)
    writer = Writer(symbols, load.items_a_day)
    writer.go_on(detector)
    records = writer.stream(BEGIN, [()] * (load.items_a_day + load.slices * SLICE))
    settle_memory()
    _time_slice(reading, records[: load.items_a_day])
    started = time.perf_counter()
    detector.facts()
    facts_ms = 1000 * (time.perf_counter() - started)
    restored = Restored(keys, key_bytes, restored_seconds, facts_ms, is_compiled())
    return restored, (_time_slice(reading, part) for part in _cut(records[load.items_a_day :], SLICE))


def _time_slice(reading: Reading, records: Sequence[Record]) -> Spent:
    reading.spent = Spent()
    for unit in _cut(records, BATCH):
        reading.take(unit)
    return reading.spent


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure_detector(symbols: Sequence[int], load: Load, folder: Path, say: Say) -> list[Detection]:
    """Let a process for each number of symbols time a slice, then all the next, and so on."""
    with ExitStack() as running:
        processes, restored = [], []
        for count in symbols:
            state = folder / f"state-{count}.jsonl"
            command = (sys.executable, "-m", "tests.bench.detection", str(count), str(load.slices), str(state))
            subprocess.run((*command, "--write"), check=True)
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.append(running.enter_context(started))
            restored.append(Restored(**_ask(started)))
            state.unlink()
            say(f"  {restored[-1].keys:,} keys restored")
        rounds = [[Spent(**_ask(process)) for process in processes] for _ in range(load.slices)]
    return compare_slices(restored, rounds)


def _ask(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The next answer of ``main``."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    told: dict[str, Any] = orjson.loads(process.stdout.readline())
    return told


def compare_slices(restored: Sequence[Restored], rounds: Sequence[Sequence[Spent]]) -> list[Detection]:
    """One for each detector, of its slices in all rounds."""
    return [
        Detection(
            restored=known,
            events_per_second=Spread.of(SLICE / spent.total for spent in slices),
            ratio=median(spent[0].total / spent[number].total for spent in rounds),
            decode_us=_microseconds(spent.decode for spent in slices),
            step_us=_microseconds(spent.step for spent in slices),
            rest_us=_microseconds(spent.rest for spent in slices),
        )
        for number, (known, slices) in enumerate(zip(restored, zip(*rounds, strict=True), strict=True))
    ]


def _microseconds(seconds: Iterable[float]) -> float:
    return 1e6 * median(seconds) / SLICE


def main(count: str, slices: str, file: str, write: str = "") -> None:
    """In a process of its own: an answer for each line, what was restored and then a slice each."""
    load = Load(slices=int(slices))
    if write:
        write_state(int(count), Path(file), load)
    else:
        restored, timed = measure(int(count), Path(file), load)
        for _, answer in zip(sys.stdin, chain((restored,), timed), strict=False):
            print(orjson.dumps(asdict(answer)).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
