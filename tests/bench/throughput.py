"""How many items a second a labeller moves from topic to topic with nothing to compute: the limit of all but models."""

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import orjson

from schemas.events import NewsItem
from worker.broker import free_port
from worker.child import Child
from worker.feeds.jsonl import open_feed
from worker.kafka.admin import create_topics
from worker.records import OutRecord
from worker.settings import Settings, load_settings

from .contest import Say, Spread
from .labelling import STOP_SECONDS, read_cpu_seconds

FLEETS = ((1, 1), (6, 1), (6, 2), (24, 1))
"""Partitions, and how many labellers of one group share them."""

GUARANTEES = ("at_least_once", "exactly_once")
FEED_RECORDS = 2000
POLL_SECONDS = 0.1
FINISH_SECONDS = 180.0


class Committed(NamedTuple):
    """A unit as the labeller's log has it. ``marks`` are the progress records that it wrote beside its events."""

    at: datetime
    items: int
    marks: int


@dataclass(frozen=True, slots=True)
class Passage:
    """All units of a run in their order, and the labellers' processor seconds once they had ``counted`` of them."""

    units: Sequence[Committed]
    counted: int
    cpu_seconds: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of a fleet under a guarantee. ``ratio`` is to at least once, the median of the rounds'."""

    partitions: int
    labellers: int
    guarantee: str
    items_per_second: Spread
    ratio: float
    cpu_us_per_item: float
    records_per_item: float


async def measure_throughput(
    bootstrap_servers: str, texts: Sequence[str], items: int, rounds: int, folder: Path, say: Say
) -> list[Throughput]:
    """Feed ``items`` once for each fleet; labellers of new groups then read them, in turn."""
    found = []
    for partitions, labellers in FLEETS:
        fed = edge_settings(bootstrap_servers, partitions)
        await _feed(fed, texts, items)
        passages: dict[str, list[Passage]] = {guarantee: [] for guarantee in GUARANTEES}
        for number in range(1, rounds + 1):
            for guarantee in GUARANTEES:
                passages[guarantee].append(await _pass(_with_a_new_group(fed, guarantee, labellers), items, folder))
            rates = ", ".join(f"{_items_per_second(passages[each][-1]):,.0f}" for each in GUARANTEES)
            say(f"  {partitions} partitions, {labellers} labellers, round {number} of {rounds}: {rates} items a second")
        found += compare_guarantees(partitions, labellers, passages)
    return found


def compare_guarantees(partitions: int, labellers: int, passages: dict[str, list[Passage]]) -> list[Throughput]:
    """A row for each guarantee."""
    rates = {guarantee: [_items_per_second(passage) for passage in runs] for guarantee, runs in passages.items()}
    return [
        Throughput(
            partitions,
            labellers,
            guarantee,
            Spread.of(rates[guarantee]),
            median(rate / other for rate, other in zip(rates[guarantee], rates["at_least_once"], strict=True)),
            median(_cpu_us_per_item(passage) for passage in runs),
            median(_records_per_item(passage) for passage in runs),
        )
        for guarantee, runs in passages.items()
    ]


def _items_per_second(passage: Passage) -> float:
    """Of everything after the first unit of the last labeller, which ends the warm-up."""
    *_, last_warm = passage.units[: passage.counted]
    rest = passage.units[passage.counted :]
    return sum(unit.items for unit in rest) / (rest[-1].at - last_warm.at).total_seconds()


def _cpu_us_per_item(passage: Passage) -> float:
    started, ended = passage.cpu_seconds
    return 1e6 * (ended - started) / sum(unit.items for unit in passage.units[passage.counted :])


def _records_per_item(passage: Passage) -> float:
    return 1 + sum(unit.marks for unit in passage.units) / sum(unit.items for unit in passage.units)


def edge_settings(bootstrap_servers: str, partitions: int) -> Settings:
    """The defaults with an engine that only hashes, on topics of their own."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    return load_settings(
        kafka={"bootstrap_servers": bootstrap_servers},
        topics={"prefix": f"{run}.", "partitions": partitions},
        engine={"kind": "deterministic"},
    )


def _with_a_new_group(settings: Settings, guarantee: str, labellers: int) -> list[Settings]:
    """Of each labeller of a fleet."""
    group = f"bench-{uuid.uuid4().hex[:8]}"
    return [
        load_settings(
            processing_guarantee=guarantee,
            group_prefix=group,
            kafka=settings.kafka,
            topics=settings.topics,
            engine=settings.engine,
            http={"port": free_port()},
        )
        for _ in range(labellers)
    ]


async def _feed(settings: Settings, texts: Sequence[str], count: int) -> None:
    await create_topics(settings.kafka, settings.topic_specs, settings.topics.replication_factor)
    items = (NewsItem(id=f"t{number}", title=texts[number % len(texts)], language="en") for number in range(count))
    records = [OutRecord(settings.topic_names.raw, (item.id or "").encode(), item.to_json()) for item in items]
    async with open_feed(settings) as write:
        for start in range(0, count, FEED_RECORDS):
            await write(records[start : start + FEED_RECORDS])


@dataclass(frozen=True, slots=True)
class Labeller:
    """A labeller that runs, and the port at which it tells what it has used."""

    process: Child
    port: int


async def _pass(fleet: Sequence[Settings], items: int, folder: Path) -> Passage:
    """Let a fleet of labellers read all items.

    Raises:
        RuntimeError: one ended, or they did not finish in time; the end of its log stands in the message.
    """
    command = (sys.executable, "-m", "worker", "run", "--only", "labeller")
    labellers = [
        Labeller(Child(command, folder / f"{s.instance}.log", environment=s.to_environment()), s.http.port)
        for s in fleet
    ]
    try:
        return await _watch(labellers, items)
    finally:
        for labeller in labellers:
            labeller.process.send_signal(signal.SIGTERM)
        for labeller in labellers:
            await asyncio.to_thread(labeller.process.wait_or_kill, time.monotonic() + STOP_SECONDS)


async def _watch(labellers: Sequence[Labeller], items: int) -> Passage:
    deadline = time.monotonic() + FINISH_SECONDS
    counted, started = 0, 0.0
    while True:
        each = [read_units(labeller.process.log_file) for labeller in labellers]
        units = sorted(chain.from_iterable(each))
        if all(each) and not counted:
            started = await _read_all_cpu_seconds(labellers)
            counted = len(units)
        if sum(unit.items for unit in units) >= items:
            return Passage(units, counted, (started, await _read_all_cpu_seconds(labellers)))
        for labeller in labellers:
            if labeller.process.exit_status is not None or time.monotonic() > deadline:
                raise RuntimeError(f"not all of {items} items were moved:\n{labeller.process.log_tail()}")
        await asyncio.sleep(POLL_SECONDS)


async def _read_all_cpu_seconds(labellers: Sequence[Labeller]) -> float:
    return sum([await asyncio.to_thread(read_cpu_seconds, labeller.port) for labeller in labellers])


def read_units(log_file: Path) -> list[Committed]:
    """The units that a labeller's log says are committed."""
    lines = (orjson.loads(line) for line in log_file.read_bytes().splitlines() if b'"unit.committed"' in line)
    return [Committed(datetime.fromisoformat(u["timestamp"]), u["labelled"], len(u["next_offsets"])) for u in lines]
