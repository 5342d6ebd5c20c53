"""From an archive to what labellers would have written, a unit at a time: by partition, in the order of its time.

Partitions, offsets, clocks and heartbeats are those of `stacknorm-worker feed jsonl` with ``idle_clock = "data"``.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from schemas.events import LabelledEvent
from stacknorm.progress import Report
from worker import codec
from worker.codec import InputRules
from worker.feeds.jsonl import LAST_HEARTBEAT_AFTER_MS, Line, stamp_with_archive
from worker.kafka.partitioner import partition_of
from worker.labeller import Engine, LabelledRun, label_unit
from worker.records import OutRecord, Record
from worker.units import Run, Unit

UNIT_ITEMS = 500
Runs = Mapping[int, LabelledRun]
"""What a unit became, by partition."""


def label_lines(
    lines: Sequence[Line],
    engine: Engine,
    place: tuple[str, int],
    *,
    rules: InputRules,
    now: datetime,
    report: Report,
) -> Iterator[Runs]:
    """Label items as workers do that find them in a new raw topic.

    Args:
        lines: in the order of their time.
        engine: what labels.
        place: name of the raw topic, and its partitions.
        rules: how raw records are read.
        now: wall time; no item is received later.
        report: told how many items are labelled.
    """
    topic, partitions = place
    clocks_ms: dict[int, int | None] = {}
    done = 0
    for records in _cut(_written(stamp_with_archive(lines, topic, partitions), partitions)):
        logs: defaultdict[int, list[Record]] = defaultdict(list)
        for record in records:
            logs[record.partition].append(record)
        unit = Unit({partition: Run(tuple(log)) for partition, log in logs.items()})
        runs = label_unit(unit, clocks_ms, engine, rules, now)
        clocks_ms |= {partition: run.clock_ms for partition, run in runs.items()}
        yield runs
        done += sum(record.value is not None for record in records)
        report("labelling", done, len(lines))


def _written(sent: Iterable[OutRecord], partitions: int) -> Iterator[Record]:
    """The records as a reader finds them in a topic that nobody else has written to."""
    next_offsets = [0] * partitions
    for record in sent:
        partition = partition_of(record.key or b"", partitions) if record.partition is None else record.partition
        offset, timestamp_ms = next_offsets[partition], record.timestamp_ms
        next_offsets[partition] += 1
        assert timestamp_ms is not None  # an archive's
        yield Record(record.topic, partition, offset, timestamp_ms, record.key, record.value, tuple(record.headers))


def _cut(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Runs of records with `UNIT_ITEMS` items each, however many heartbeats lie between them."""
    taken: list[Record] = []
    items = 0
    for record in records:
        taken.append(record)
        items += not codec.is_heartbeat(record)
        if items == UNIT_ITEMS:
            yield taken
            taken, items = [], 0
    if taken:
        yield taken


def replay_events(partitions: Sequence[Sequence[LabelledEvent]], report: Report) -> Iterator[Runs]:
    """Events that are labelled already, as their labellers wrote them, and marks that lead past the last of all.

    Args:
        partitions: the events of each, whose clocks do not fall.
        report: told how many events are replayed.
    """
    total = sum(map(len, partitions))
    merged = heapq.merge(*partitions, key=lambda event: (event.clock, event.input.partition))
    done = 0
    while taken := list(islice(merged, UNIT_ITEMS)):
        done += len(taken)
        last_ms = codec.to_ms(taken[-1].clock) + (LAST_HEARTBEAT_AFTER_MS if done == total else 0)
        events: defaultdict[int, list[LabelledEvent]] = defaultdict(list)
        for event in taken:
            events[event.input.partition].append(event)
        yield {number: LabelledRun(0, last_ms, tuple(events[number]), ()) for number in range(len(partitions))}
        report("reading labels", done, total)
