"""What `stacknorm-worker status` shows: who owns what, how far behind it is, and where the detector stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.events import format_instant
from worker.codec import to_instant
from worker.detector import Facts, combine_facts
from worker.kafka.admin import Lag, read_lag
from worker.kafka.connection import Place
from worker.kafka.groups import Owner, read_owners
from worker.kafka.reader import LogReader
from worker.runner.detector import restore_detector
from worker.settings import Settings
from worker.sinks.tail import open_reader

WAITING_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A raw partition: its owner, what waits in it, and since when the oldest of that has waited."""

    partition: int
    owner: Owner | None
    lag: Lag
    oldest_waiting: datetime | None

    def lag_seconds(self, now: datetime) -> float:
        """Age of the oldest record that waits; 0 when none does."""
        return max(0.0, (now - self.oldest_waiting).total_seconds()) if self.oldest_waiting else 0.0


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A shard of the detector: who runs it, and where it stands by its committed state."""

    owner: Owner | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class Status:
    """All of it at one time."""

    at: datetime
    partitions: Sequence[PartitionStatus]
    shards: Sequence[ShardStatus]

    @property
    def facts(self) -> Facts:
        """Of the whole detector."""
        return combine_facts([shard.facts for shard in self.shards])


async def read_status(settings: Settings, now: datetime) -> Status:
    """Ask the broker; joins no group."""
    topics = settings.topic_names
    lags = await read_lag(settings.kafka, settings.labeller_group, topics.raw, settings.topics.partitions)
    owners = await read_owners(settings.kafka, settings.labeller_group, topics.raw)
    shard_owners = await read_owners(settings.kafka, settings.detector_group, topics.surge_state)
    async with open_reader(settings, "status") as reader:
        waiting = await _read_oldest(reader, topics.raw, lags)
        facts = await _read_facts(reader, settings)
    shards = [ShardStatus(shard_owners.get(shard), each) for shard, each in enumerate(facts)]
    partitions = [
        PartitionStatus(partition, owners.get(partition), lag, waiting.get(partition))
        for partition, lag in sorted(lags.items())
    ]
    return Status(now, partitions, shards)


async def read_detector_facts(settings: Settings) -> Facts:
    """Where the detector, all its shards together, stands by its committed state."""
    async with open_reader(settings, "status") as reader:
        return combine_facts(await _read_facts(reader, settings))


async def _read_facts(reader: LogReader, settings: Settings) -> list[Facts]:
    """Of each shard, one after the other: a state may be large."""
    facts = []
    for shard in range(settings.surge.shards):
        changelog = await reader.read_newest(Place(settings.topic_names.surge_state, shard))
        facts.append(restore_detector(settings, settings.rules, shard, changelog).facts())
    return facts


async def _read_oldest(reader: LogReader, topic: str, lags: dict[int, Lag]) -> dict[int, datetime]:
    """By partition, the time of the first record that waits."""
    behind = {Place(topic, p): max(lag.first, lag.committed or 0) for p, lag in lags.items() if lag.records}
    if not behind:
        return {}
    reader.assign(behind)
    oldest: dict[int, datetime] = {}
    for place in behind:
        for record in await reader.fetch(1, WAITING_TIMEOUT_SECONDS, [place]):
            if record.timestamp_ms >= 0:
                oldest[record.partition] = to_instant(record.timestamp_ms)
    return oldest


def describe_status(status: Status) -> dict[str, Any]:
    """For scripts; ends are last stable offsets, so records of open transactions do not wait yet."""
    return {
        "at": format_instant(status.at),
        "partitions": [
            {
                "partition": row.partition,
                "owner": row.owner and row.owner._asdict(),
                "committed": row.lag.committed,
                "end": row.lag.last_stable_offset,
                "lag_records": row.lag.records,
                "lag_seconds": round(row.lag_seconds(status.at), 3),
            }
            for row in status.partitions
        ],
        "detector": {
            **_describe_facts(status.facts),
            "shards": [
                {"shard": shard, "owner": each.owner and each.owner._asdict(), **_describe_facts(each.facts)}
                for shard, each in enumerate(status.shards)
            ],
        },
    }


def _describe_facts(facts: Facts) -> dict[str, Any]:
    return {
        "clock": facts.clock and format_instant(facts.clock),
        "learning": facts.learning,
        "exposure_days": round(facts.exposure_days, 3),
        "keys": facts.keys,
        "keys_learning": facts.keys_learning,
        "firing": facts.firing,
    }


def render_status(status: Status) -> RenderableType:
    """For the terminal."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("raw partition", "owner", "committed", "end", "lag records", "lag seconds"):
        table.add_column(column, justify="left" if column == "owner" else "right")
    for row in status.partitions:
        owner = f"{row.owner.client_id} at {row.owner.host}" if row.owner else "[red]nobody[/]"
        committed = "-" if row.lag.committed is None else str(row.lag.committed)
        lag_seconds = f"{row.lag_seconds(status.at):.1f}"
        table.add_row(
            str(row.partition), owner, committed, str(row.lag.last_stable_offset), str(row.lag.records), lag_seconds
        )
    shards = [line for shard, each in enumerate(status.shards) for line in _render_shard(shard, each)]
    if len(status.shards) > 1:
        shards.append(Text(f"all shards: {_count_keys(status.facts)}"))
    return Group(table, Text(), *shards)


def _render_shard(shard: int, status: ShardStatus) -> list[Text]:
    facts = status.facts
    owner = f"{status.owner.client_id} at {status.owner.host}" if status.owner else "nobody"
    clock = f"{facts.clock:%Y-%m-%d %H:%M:%S}Z" if facts.clock else "not started"
    learning = f"learning: nothing fires yet ({facts.exposure_days:.1f} days seen)" if facts.learning else "watching"
    return [
        Text(f"detector shard {shard}: {owner}, clock {clock}, {learning}", "bold"),
        Text(f"  {_count_keys(facts)}"),
    ]


def _count_keys(facts: Facts) -> str:
    return f"{facts.keys} keys, {facts.keys_learning} of them learning; {facts.firing} alerts firing"
