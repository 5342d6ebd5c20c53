"""What can be seen of a run from outside: committed offsets, the detector's frontier, open transactions, outputs."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import TopicPartition

from schemas.events import AlertEvent, DeadLetter, LabelledEvent, Progress, TrendEvent
from transactions import open_transactions
from verify import Marked, Outputs, Placed
from worker.detector import FRONTIER_KEY, Detector
from worker.errors import Retriable
from worker.kafka.connection import to_record
from worker.kafka.verdicts import KAFKA_ERRORS
from worker.records import Record
from worker.settings import Settings
from worker.surge.ownership import Ownership

Made = TypeVar("Made")


class Ends(NamedTuple):
    """Of a log: what read_committed readers may see, and what is there."""

    last_stable_offset: int
    high_watermark: int


class Observer:
    """Looks at the topics and groups of one run, with clients of its own. An asynchronous context manager.

    ``_stable`` and ``_all`` only ask for the ends of logs, ``_state`` follows the changelog of the detector's shards.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shards = range(settings.surge.shards)
        self._frontiers: dict[int, bytes] = {}

    async def __aenter__(self) -> Self:
        servers = self._settings.kafka.bootstrap_servers
        self._stable = _make_reader(servers, "read_committed")
        self._all = _make_reader(servers, "read_uncommitted")
        self._state = _make_reader(servers, "read_committed")
        self._admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        for client in (self._stable, self._all, self._state, self._admin):
            await client.start()
        self._state.assign(self._state_places)
        for place in self._state_places:
            self._state.seek(place, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for consumer in (self._stable, self._all, self._state):
            await consumer.stop()
        await self._admin.close()

    async def committed(self) -> dict[int, int]:
        """By raw partition, what the labellers have committed; absent where they have not."""
        raw = self._settings.topic_names.raw
        try:
            offsets = await self._admin.list_consumer_group_offsets(self._settings.labeller_group)
        except GroupCoordinatorNotAvailableError:  # before a broker's first group
            return {}
        return {place.partition: kept.offset for place, kept in offsets.items() if place.topic == raw}

    async def ends(self, topic: str) -> dict[int, Ends]:
        """By partition of a topic, its ends."""
        places = await self._places(topic)
        high = await self._all.end_offsets(places)  # asked first: what commits in between is not taken for unstable
        stable = await self._stable.end_offsets(places)
        return {place.partition: Ends(stable[place], high[place]) for place in places}

    async def unstable(self, topic: str) -> dict[int, Ends]:
        """The partitions of a topic into which an open transaction has written."""
        ends = await self.ends(topic)
        return {partition: end for partition, end in ends.items() if end.last_stable_offset < end.high_watermark}

    async def open_transactions(self) -> list[str]:
        """Transactional ids of this run whose transaction has not ended."""
        return await open_transactions(self._admin, self._settings.group_prefix)

    async def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition."""
        (described,) = await self._admin.describe_topics([topic])
        return next(each["leader"] for each in described["partitions"] if each["partition"] == partition)

    async def group_coordinator(self, group: str) -> int:
        """The node that coordinates a group."""
        return await self._admin.find_coordinator(group, 0)

    async def transaction_coordinator(self, transactional_id: str) -> int:
        """The node that coordinates the transactions of an id."""
        return await self._admin.find_coordinator(transactional_id, 1)

    async def out_of_sync(self, nodes: int) -> dict[str, list[int]]:
        """By topic, Kafka's own included, the partitions that fewer than so many nodes hold in full."""
        described = await self._admin.describe_topics()
        return {
            topic["topic"]: lacking
            for topic in described
            if (lacking := [each["partition"] for each in topic["partitions"] if len(each["isr"]) < nodes])
        }

    @property
    def _state_places(self) -> list[TopicPartition]:
        return [TopicPartition(self._settings.topic_names.surge_state, shard) for shard in self._shards]

    async def frontier(self) -> datetime | None:
        """The merge clock in the newest committed frontier of the shard that is furthest behind; None before it."""
        ends = await self._stable.end_offsets(self._state_places)
        while any([await self._state.position(place) < ends[place] for place in ends]):
            for place, records in (await self._state.getmany(timeout_ms=100)).items():
                for record in records:
                    if record.key == FRONTIER_KEY:
                        self._frontiers[place.partition] = record.value
        clocks = [self._read_clock(shard) for shard in self._shards]
        known = [clock for clock in clocks if clock is not None]
        return min(known) if len(known) == len(clocks) else None

    def _read_clock(self, shard: int) -> datetime | None:
        if shard not in self._frontiers:
            return None
        changelog = [(FRONTIER_KEY, self._frontiers[shard])]
        partitions, ownership = self._settings.topics.partitions, Ownership(shard, len(self._shards))
        return Detector.restore(self._settings.rules, partitions, changelog, ownership=ownership).facts().clock

    async def read(self, topic: str) -> list[Record]:
        """All that a read_committed reader finds, each partition up to its last stable offset."""
        places = await self._places(topic)
        ends = await self._stable.end_offsets(places)
        records: list[Record] = []
        async with _make_reader(self._settings.kafka.bootstrap_servers, "read_committed") as reader:
            reader.assign(places)
            await reader.seek_to_beginning(*places)
            while any([await reader.position(place) < ends[place] for place in places]):
                for found in (await reader.getmany(timeout_ms=200)).values():
                    records += [to_record(record) for record in found]
        return sorted(records, key=lambda record: (record.partition, record.offset))

    async def outputs(self, *, trends: bool = False) -> Outputs:
        """All outputs of the run, and trends where asked for."""
        names = self._settings.topic_names
        labelled = await self.read(names.labelled)
        progress = await self.read(names.progress)
        return Outputs(
            labelled=tuple(
                Placed(record.partition, record.offset, _parse(LabelledEvent.model_validate_json, record))
                for record in labelled
            ),
            dead=tuple(_parse(DeadLetter.model_validate_json, record) for record in await self.read(names.dead)),
            alerts=tuple(_parse(AlertEvent.model_validate_json, record) for record in await self.read(names.alerts)),
            marks=tuple(Marked(record.partition, _parse(Progress.model_validate_json, record)) for record in progress),
            trends=tuple(
                _parse(TrendEvent.model_validate_json, record)
                for record in (await self.read(names.trends) if trends else ())
            ),
        )

    async def unfinished(self) -> Mapping[str, object]:
        """Every trace of a transaction that has not ended; empty when there is none."""
        names = self._settings.topic_names
        outputs = (names.labelled, names.progress, names.dead, names.alerts, names.trends, names.surge_state)
        unstable = {topic: found for topic in outputs if (found := await self.unstable(topic))}
        listed = await self.open_transactions()
        return unstable | ({"transactions": listed} if listed else {})

    async def _places(self, topic: str) -> list[TopicPartition]:
        (described,) = await self._admin.describe_topics([topic])
        return [TopicPartition(topic, partition) for partition in range(len(described["partitions"]))]


def patient(ask: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """The same question; while a broker is away the answer is no."""

    async def ask_patiently() -> bool:
        try:
            return await ask()
        except (Retriable, *KAFKA_ERRORS):
            return False

    return ask_patiently


def _make_reader(servers: str, isolation_level: str) -> AIOKafkaConsumer:
    """A consumer whose fetches do not wait: a broker answers one request of a connection after the other."""
    return AIOKafkaConsumer(
        bootstrap_servers=servers, isolation_level=isolation_level, enable_auto_commit=False, fetch_max_wait_ms=10
    )


def _parse(parse: Callable[[bytes], Made], record: Record) -> Made:
    assert record.value is not None, f"{record.topic}-{record.partition}@{record.offset} has no value"
    return parse(record.value)
