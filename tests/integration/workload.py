"""The input of the delivery tests: headlines over six days, surges among them, poison and heartbeats; seeded and pure.

Under the deterministic engine a headline's labels are a hash of its text, so surges are made of headlines that it
happens to call negative.
"""

import csv
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple

import orjson

from schemas.events import NewsItem
from worker import codec
from worker.codec import HEARTBEAT_HEADER
from worker.demo.stream import load_stream
from worker.deterministic import DeterministicEngine
from worker.feeds.jsonl import Line, stamp_with_archive
from worker.records import OutRecord, Record

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 6.0
RUN_OUT = timedelta(hours=50)
"""How far the last heartbeats lie behind the last item: the copy window ends, and the last alert, by its age at the
latest."""

SOURCES = ("Agora Wire", "Beacon", "Courant", "Dispatch", "Evening Ledger", "Foreland Post")
SYMBOLS = tuple(f"SYM{number:02}" for number in range(60))


class Surge(NamedTuple):
    """Bad news about one symbol; days count from ``START``."""

    symbol: str
    from_day: float
    to_day: float
    items: int


LONG_SURGE = Surge("NORD", 3.9, 5.1, 200)
SURGES = (Surge("VELO", 3.4, 3.45, 40), LONG_SURGE, Surge("TARN", 5.2, 5.3, 40), Surge("CASK", 5.5, 5.55, 40))


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent to the raw topic, in order, each record with its partition; ``headlines`` and ``poison`` counted."""

    records: tuple[OutRecord, ...]
    partitions: int
    headlines: int
    poison: int

    def as_read(self) -> dict[int, list[Record]]:
        """The raw partitions as a reader finds them in a topic that nobody else has written to."""
        logs: dict[int, list[Record]] = {partition: [] for partition in range(self.partitions)}
        for sent in self.records:
            assert sent.partition is not None
            assert sent.timestamp_ms is not None
            log = logs[sent.partition]
            log.append(
                Record(
                    sent.topic, sent.partition, len(log), sent.timestamp_ms, sent.key, sent.value, tuple(sent.headers)
                )
            )
        return logs


def make_workload(
    topic: str,
    *,
    headlines: int = 2000,
    partitions: int = 3,
    titles: Sequence[str] | None = None,
    seed: int = 20260302,
) -> Workload:
    """Headlines, one poison record for every hundred of them, and the archive's heartbeats, in order of their time.

    Args:
        topic: the raw topic.
        headlines: how many.
        partitions: of the raw topic.
        titles: taken in turn, from the second round on numbered; ``titles_at_hand()`` without it.
        seed: of all that is left to chance.
    """
    random = Random(seed)
    items = list(_news(random, headlines, titles or titles_at_hand()))
    poison = list(_poison(random, headlines // 100))
    lines = sorted([*items, *poison], key=lambda line: line.published_ms or 0)
    stamped = stamp_with_archive(lines, topic, partitions)
    placed = (
        record if record.partition is not None else replace(record, partition=_partition_of(record, partitions))
        for record in stamped
    )
    last_ms = lines[-1].published_ms
    assert last_ms is not None
    records = (*placed, *_last_heartbeats(topic, partitions, last_ms))
    return Workload(records, partitions, len(items), len(poison))


def _partition_of(record: OutRecord, partitions: int) -> int:
    return zlib.crc32(record.key or b"") % partitions


def _last_heartbeats(topic: str, partitions: int, last_ms: int) -> Iterator[OutRecord]:
    clock_ms = last_ms + RUN_OUT // timedelta(milliseconds=1)
    for partition in range(partitions):
        yield OutRecord(topic, b"last", None, partition, ((HEARTBEAT_HEADER, b"1"),), clock_ms)


# Headlines


def _news(random: Random, count: int, titles: Sequence[str]) -> Iterator[Line]:
    chosen = list(itertools.islice(_distinct(titles), count))
    random.shuffle(chosen)
    told = DeterministicEngine().predict(chosen)
    bad = [title for title, said in zip(chosen, told, strict=True) if said.tasks["sentiment"].label == "negative"]
    numbers = itertools.count(1)
    spent: set[str] = set()
    for surge in SURGES:
        for title in [bad.pop() for _ in range(surge.items * count // 2000)]:
            spent.add(title)
            day = random.uniform(surge.from_day, surge.to_day)
            yield _line(next(numbers), title, day, random.choice(SOURCES), (surge.symbol,))
    for title in chosen:
        if title not in spent:
            symbols = random.sample(SYMBOLS, random.choice((0, 1, 1, 2)))
            yield _line(next(numbers), title, random.uniform(0.0, DAYS), random.choice(SOURCES), symbols)


def _line(number: int, title: str, day: float, source: str, symbols: Sequence[str]) -> Line:
    published = START + timedelta(milliseconds=round(day * 86_400_000))
    item = NewsItem(id=f"n-{number:05}", title=title, published_at=published, source=source, symbols=tuple(symbols))
    return Line(item.id.encode() if item.id else b"", item.to_json(), codec.to_ms(published))


def _distinct(titles: Sequence[str]) -> Iterator[str]:
    known = dict.fromkeys(titles)
    for lap in itertools.count(1):
        yield from (title if lap == 1 else f"{title} ({lap})" for title in known)


def titles_at_hand() -> list[str]:
    """Real headlines where the shared data is there, else the demo's."""
    headlines, tweets = SHARED_DATA / "sentfin.jsonl", SHARED_DATA / "tfns_train.csv"
    if not (headlines.is_file() and tweets.is_file()):
        return demo_titles()
    with headlines.open("rb") as lines, tweets.open(newline="", encoding="utf-8") as rows:
        first = [orjson.loads(line)["text"] for line in itertools.islice(lines, 1500)]
        return first + [row["text"] for row in itertools.islice(csv.DictReader(rows), 1500)]


def demo_titles() -> list[str]:
    """The headlines of the demo."""
    return [orjson.loads(line.value)["title"] for line in load_stream()]


# Poison


def _poison(random: Random, count: int) -> Iterator[Line]:
    for number, value in enumerate(itertools.islice(itertools.cycle(poison_values()), count), 1):
        published = START + timedelta(milliseconds=round(random.uniform(0.0, DAYS) * 86_400_000))
        yield Line(f"poison-{number}".encode(), value, codec.to_ms(published))


def poison_values() -> tuple[bytes, ...]:
    """Records that can never be labelled, each bad in its own way."""
    marks = "\N{COMBINING ACUTE ACCENT}\N{COMBINING CEDILLA}" * 5_000
    return (
        b"not json",
        b'{"title": "cut in the mid',
        b'{"title": "\xff\xfe is not UTF-8"}',
        b"[" * 50_000,
        b'{"title": ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_001,
        b"",
        b" \n\t ",
        b'{"title": 5}',
        b'{"title": " ", "body": ""}',
        b'["a", "list"]',
        b"\x00\x80\x00\x00",
        orjson.dumps({"title": "a" * 100_001}),
        orjson.dumps({"title": f"combined a{marks}"}),
        orjson.dumps({"title": "bad time", "published_at": "yesterday"}),
        b'{"title": "lone \\ud800 surrogate"}',
        b'{"title": "many lists", "x": [' + b"[]," * 130_000 + b"1]}",
        b'{"title": "no symbols", "symbols": [' + b"1," * 100_000 + b"1]}",
        b'{"title": "long number", "revision": ' + b"9" * 100_000 + b"}",
        b'{"title": "infinite", "revision": 1e999}',
        b'{"title": "long name", "supersedes": "' + b"a" * 100_000 + b'"}',
    )
