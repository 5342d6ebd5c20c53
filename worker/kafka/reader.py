"""Reading partitions by number, without a group."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from worker.kafka.clients import AiokafkaClients, MakeClients
from worker.kafka.connection import Place, close_client, connect, to_record
from worker.kafka.verdicts import KAFKA_ERRORS, translate
from worker.kafka_settings import KafkaSettings
from worker.records import Record

FETCH_WAIT_MS = 100  # after a new assignment the broker first ends the wait of the old one
LAST_WINDOW = 100
READ_RECORDS = 2000
READ_SECONDS = 0.1  # a fetch that finds only markers moves the position and waits on


class LogReader:
    """Reads partitions by number, read_committed, without a group. Owned by one event loop; one task fetches."""

    def __init__(self, kafka: KafkaSettings, role: str, make_clients: MakeClients = AiokafkaClients) -> None:
        self._clients = make_clients(kafka)
        self._role = role
        self._client: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect; waits for the broker as long as it takes."""
        self._client = await connect(
            lambda: self._clients.make_consumer(auto_offset_reset="none", fetch_max_wait_ms=FETCH_WAIT_MS), self._role
        )

    async def stop(self) -> bool:
        """Disconnect, if it was connected; False when that hung."""
        return self._client is None or await close_client(self._client)

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        assert self._client is not None, "start it first"
        return self._client

    async def first_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """Where each log begins now.

        Raises:
            WorkerError: as `translate` says.
        """
        return await self._ask(self._consumer.beginning_offsets, places)

    async def stable_ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The last stable offset of each log."""
        return await self._ask(self._consumer.end_offsets, places)

    async def _ask(
        self, question: Callable[[list[TopicPartition]], Awaitable[dict[TopicPartition, int]]], places: Iterable[Place]
    ) -> dict[Place, int]:
        try:
            answer = await question([TopicPartition(*place) for place in places])
        except KAFKA_ERRORS as error:
            raise translate(error) from error
        return {Place(*place): offset for place, offset in answer.items()}

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions from these offsets, and no others."""
        self._consumer.assign([TopicPartition(*place) for place in positions])
        for place, offset in positions.items():
            self._consumer.seek(TopicPartition(*place), offset)

    async def position(self, place: Place) -> int:
        """The next offset to be read of an assigned partition."""
        position: int = await self._consumer.position(TopicPartition(*place))
        return position

    async def fetch(self, max_records: int, timeout_seconds: float, places: Collection[Place] = ()) -> list[Record]:
        """Records that have come, of ``places`` if given.

        Raises:
            WorkerError: as `translate` says; Misconfigured when a position lies outside its log.
        """
        wanted = [TopicPartition(*place) for place in places]
        try:
            found = await self._consumer.getmany(
                *wanted, timeout_ms=int(timeout_seconds * 1000), max_records=max_records
            )
        except KAFKA_ERRORS as error:
            raise translate(error) from error
        return [to_record(record) for records in found.values() for record in records]

    async def read_newest(self, place: Place) -> dict[bytes, bytes | None]:
        """The newest value of each key up to the last stable offset, tombstones included; assigns this place alone."""
        newest: dict[bytes, bytes | None] = {}
        first = (await self.first_offsets([place]))[place]
        end = (await self.stable_ends([place]))[place]
        if first == end:
            return newest
        self.assign({place: first})
        while await self.position(place) < end:
            for record in await self.fetch(READ_RECORDS, READ_SECONDS):
                if record.key is not None and record.offset < end:  # what came since may be half a transaction
                    newest[record.key] = record.value
        return newest

    async def read_last(self, places: Iterable[Place]) -> dict[Place, Record]:
        """The last committed record of each log that holds one; assigns these places and no others."""
        wanted = list(places)
        first = await self.first_offsets(wanted)
        end = await self.stable_ends(wanted)
        last: dict[Place, Record] = {}
        unread = {place for place in wanted if first[place] < end[place]}
        window = LAST_WINDOW
        while unread:
            starts = {place: max(first[place], end[place] - window) for place in unread}
            self.assign(starts)
            while await self._is_before(end, unread):
                for record in await self.fetch(READ_RECORDS, READ_SECONDS):
                    last[Place(record.topic, record.partition)] = record
            unread = {place for place in unread if place not in last and starts[place] > first[place]}
            window *= 10  # markers and aborted records only
        return last

    async def _is_before(self, end: Mapping[Place, int], places: Iterable[Place]) -> bool:
        return any([await self.position(place) < end[place] for place in places])
