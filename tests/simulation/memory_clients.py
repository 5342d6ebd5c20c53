"""Clients of a broker in memory that behave as aiokafka's do where that matters, good and bad; and the way to it.

Each client belongs to a process, which may be frozen or killed; each request may be slow, or lost on its way there or
back, by chance.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar, cast

from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, RecordMetadata, TopicPartition
from memory_broker import Bell, Group, MemoryBroker

from worker.kafka_settings import KafkaSettings
from worker.kip447 import Membership
from worker.records import OutRecord

Value = TypeVar("Value")

CALL_SECONDS = 0.0005  # what asks again and again without waiting takes time too
POLL_SECONDS = 0.02
FETCH_SECONDS = 0.1
FETCH_RECORDS = 7  # of a partition at once: small, so that positions move in steps
USUAL_SECONDS = 0.004
SLOW_SECONDS = 1.5
REQUEST_SECONDS = 0.5
"""How long is waited for an answer that does not come."""
NOBODY = -1


@dataclass(slots=True)
class Weather:
    """How requests fare."""

    random: Random
    slow: float = 0.0
    """Share of ways, there and back, that take up to `SLOW_SECONDS`: so long that nobody waits for the answer."""
    lost: float = 0.0
    """Share of ways on which what is sent is lost."""

    def way_seconds(self) -> float | None:
        """How long one way takes; None where nothing arrives."""
        if self.random.random() < self.lost:
            return None
        most = SLOW_SECONDS if self.random.random() < self.slow else USUAL_SECONDS
        return self.random.random() * most


class Process:
    """What clients live in: it may be frozen and thawed, or killed, and then nothing leaves it or reaches it."""

    def __init__(self, broker: MemoryBroker, weather: Weather) -> None:
        self.broker = broker
        self.weather = weather
        self._running = asyncio.Event()
        self._running.set()
        self._dead = False

    def freeze(self) -> None:
        """Stop for a while, as by SIGSTOP."""
        self._running.clear()

    def thaw(self) -> None:
        """Go on, as by SIGCONT."""
        if not self._dead:
            self._running.set()

    def kill(self) -> None:
        """Stop for good, as by SIGKILL; what is under way to the broker still arrives."""
        self._dead = True
        self._running.clear()

    async def ask(self, effect: Callable[[], Value | Awaitable[Value]], wait_seconds: float = REQUEST_SECONDS) -> Value:
        """Send a request; the answer, or the broker's error.

        Raises:
            KafkaConnectionError: the broker is down.
            RequestTimedOutError: no answer came; whether the request took effect is not known.
        """
        await self._running.wait()
        answer: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self.broker.spawn(self._carry(effect, answer))  # nobody can call back what is sent
        await asyncio.wait([answer], timeout=wait_seconds)
        await self._running.wait()
        if not answer.done():
            raise errors.RequestTimedOutError
        return answer.result()

    async def ask_until_answered(self, effect: Callable[[], Value | Awaitable[Value]]) -> Value:
        """Ask as aiokafka does what can be asked again: until an answer comes."""
        while True:
            try:
                return await self.ask(effect)
            except errors.KafkaError as error:
                if not (error.retriable or isinstance(error, errors.ConcurrentTransactions)):
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def _carry(self, effect: Callable[[], Value | Awaitable[Value]], answer: asyncio.Future[Value]) -> None:
        """Bring a request to the broker, and what becomes of it back."""
        there, back = self.weather.way_seconds(), self.weather.way_seconds()
        if there is None:
            return
        await asyncio.sleep(there)
        value: Value | None = None
        error: Exception | None = None
        try:
            if not self.broker.up:
                raise errors.KafkaConnectionError("the broker is down")
            done = effect()
            value = await done if isinstance(done, Awaitable) else done
        except errors.KafkaError as refused:
            error = refused
        if back is None:
            return
        await asyncio.sleep(back)
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
            answer.exception()  # it may be that nobody asks any more
        else:
            answer.set_result(cast("Value", value))


@dataclass(slots=True)
class _Reading:
    """Where a consumer stands in a partition, and what it has fetched ahead."""

    position: int | None = None
    paused: bool = False
    fetched: deque[ConsumerRecord] | None = None
    behind: int = 0
    """The position behind what is fetched."""
    last_stable_offset: int | None = None
    sought: int = 0
    """How often the position was set: what was fetched before is not for it."""


class MemoryConsumer:
    """As `AIOKafkaConsumer`, as far as the worker's edge uses it."""

    def __init__(self, process: Process, settings: KafkaSettings, group: str | None, auto_offset_reset: str) -> None:
        self._process = process
        self._settings = settings
        self._group_name = group
        self._auto_offset_reset = auto_offset_reset
        self._listener: ConsumerRebalanceListener | None = None
        self._readings: dict[TopicPartition, _Reading] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._rejoin = asyncio.Event()
        self._fetched = Bell()
        self._failure: Exception | None = None
        self._topic = ""
        self._joining = False
        self._polled_at = 0.0
        self.member_id = ""
        self.generation = NOBODY

    # Living

    async def start(self) -> None:
        await self._process.ask(lambda: None)
        self._tasks.append(asyncio.create_task(self._fetch_for_ever()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.member_id:
            await self._process.ask(lambda: self._group.leave(self.member_id))

    def subscribe(self, topics: Collection[str], listener: ConsumerRebalanceListener) -> None:
        (self._topic,) = topics
        self._listener = listener
        self._tasks.append(asyncio.create_task(self._live_in_group()))

    @property
    def _group(self) -> Group:
        assert self._group_name is not None
        return self._process.broker.group(self._group_name)

    async def _live_in_group(self) -> None:
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                await self._join()
                await self._rejoin.wait()
        finally:
            beating.cancel()

    async def _join(self) -> None:
        assert self._listener is not None
        await self._listener.on_partitions_revoked(set(self._readings))  # heartbeats are sent meanwhile
        self._joining = True
        session, rebalance = self._settings.session_timeout_ms / 1000, self._settings.rebalance_timeout_ms / 1000
        while True:
            try:
                self.member_id = await self._process.ask(
                    lambda: self._group.join(self.member_id, self._topic, session, rebalance),
                    rebalance + REQUEST_SECONDS,
                )
                given = await self._process.ask(lambda: self._group.assignment_of(self.member_id))
                break
            except errors.UnknownMemberIdError:
                self.member_id, self.generation = "", NOBODY
            except errors.KafkaError:
                await asyncio.sleep(POLL_SECONDS)
        self.generation = self._group.generation
        self._joining = False
        self._rejoin.clear()
        self._readings = {place: _Reading() for place in sorted(given)}
        self._listener.on_partitions_assigned(given)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval_ms / 1000)
            if await self._leave_if_not_polled():
                continue
            member_id, generation = self.member_id, self.generation
            if generation == NOBODY or self._joining:
                continue
            try:
                await self._process.ask(partial(self._group.heartbeat, member_id, generation))
            except errors.KafkaError as error:
                if (member_id, generation) == (self.member_id, self.generation) and not self._joining:
                    self._heed(error)

    async def _leave_if_not_polled(self) -> bool:
        """Whether too long ago records were asked for: then another gets the partitions, until they are again."""
        if _now() - self._polled_at <= self._settings.max_poll_interval_ms / 1000 or self._joining:
            return False
        if self.member_id:
            await self._process.ask(lambda: self._group.leave(self.member_id))
            self.member_id, self.generation = "", NOBODY
        return True

    def _heed(self, error: errors.KafkaError) -> None:
        """What a refused heartbeat says."""
        if isinstance(error, errors.UnknownMemberIdError):
            self.member_id, self.generation = "", NOBODY
        if isinstance(
            error, errors.UnknownMemberIdError | errors.IllegalGenerationError | errors.RebalanceInProgressError
        ):
            self._rejoin.set()

    # Reading

    def assign(self, places: Collection[TopicPartition]) -> None:
        self._readings = {place: _Reading() for place in places}

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._readings)

    def seek(self, place: TopicPartition, offset: int) -> None:
        reading = self._readings[place]
        reading.position, reading.fetched = offset, None
        reading.sought += 1

    def pause(self, *places: TopicPartition) -> None:
        for place in places:
            self._readings[place].paused = True
            self._readings[place].fetched = None  # what is fetched ahead is thrown away
            self._readings[place].sought += 1

    def resume(self, *places: TopicPartition) -> None:
        for place in places:
            self._readings[place].paused = False

    async def position(self, place: TopicPartition) -> int:
        while (position := self._readings[place].position) is None:
            await self._fetched.wait(FETCH_SECONDS)
        return position

    def last_stable_offset(self, place: TopicPartition) -> int | None:
        return self._readings[place].last_stable_offset

    async def beginning_offsets(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._process.ask(lambda: dict.fromkeys(places, 0))

    async def end_offsets(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        logs = self._process.broker.logs
        return await self._process.ask(lambda: {place: logs[place].last_stable_offset for place in places})

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int, max_records: int = 500
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        deadline = _now() + timeout_ms / 1000
        self._polled_at = _now()
        if self._listener is not None and not self.member_id and not self._joining:
            self._rejoin.set()
        await asyncio.sleep(CALL_SECONDS)
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            found = self._take(places or tuple(self._readings), max_records)
            left_seconds = deadline - _now()
            if found or left_seconds <= 0:
                return found
            await self._fetched.wait(left_seconds)

    def _take(self, places: Collection[TopicPartition], most: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: defaultdict[TopicPartition, list[ConsumerRecord]] = defaultdict(list)
        for place in places:
            reading = self._readings.get(place)
            while reading is not None and not reading.paused and reading.fetched and most:
                found[place].append(reading.fetched.popleft())
                most -= 1
                reading.position = found[place][-1].offset + 1 if reading.fetched else reading.behind
        return dict(found)

    async def _fetch_for_ever(self) -> None:
        while True:
            for place, reading in list(self._readings.items()):
                if not reading.paused and not reading.fetched:
                    try:
                        await self._fetch(place, reading)
                    except errors.OffsetOutOfRangeError as error:
                        self._failure = error
                    except errors.KafkaError:
                        continue
            await self._process.broker.changed.wait(FETCH_SECONDS)

    async def _fetch(self, place: TopicPartition, reading: _Reading) -> None:
        sought, position = reading.sought, reading.position
        if position is None:
            position = await self._choose_position(place)
            if reading.sought == sought:
                reading.position = position
            return
        chunk = await self._process.ask(lambda: self._process.broker.logs[place].read(position, FETCH_RECORDS))
        if self._readings.get(place) is not reading or reading.sought != sought:
            return
        reading.last_stable_offset = chunk.last_stable_offset
        reading.fetched, reading.behind = deque(chunk.records), chunk.next_position
        if chunk.records:
            self._fetched.ring()
        else:
            reading.position = chunk.next_position

    async def _choose_position(self, place: TopicPartition) -> int:
        """Where aiokafka reads on by itself, if nobody seeks in time."""
        stored = self._group.committed.get(place) if self._group_name is not None else None
        if stored is not None:
            return stored.offset
        if self._auto_offset_reset == "none":
            raise errors.NoOffsetForPartitionError(place)
        return self._process.broker.logs[place].last_stable_offset

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        membership = Membership(self._group_name or "", self.generation, self.member_id)

        def effect() -> None:
            self._group.refuse_stale(membership)
            self._group.committed.update(offsets)

        await self._process.ask(effect)


class MemoryProducer:
    """As `FencedProducer`, and without a transactional id as `AIOKafkaProducer`."""

    def __init__(self, process: Process, transactional_id: str | None, timeout_seconds: float) -> None:
        self._process = process
        self._transactional_id = transactional_id
        self._timeout_seconds = timeout_seconds
        self._epoch = NOBODY
        self._in_transaction = self._has_written = False
        self._queue: list[tuple[OutRecord, asyncio.Future[RecordMetadata]]] = []
        self._queued = asyncio.Event()
        self._unanswered: set[asyncio.Future[RecordMetadata]] = set()
        self._sending: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    async def start(self) -> None:
        if self._transactional_id is None:
            await self._process.ask(lambda: None)
        else:
            name = self._transactional_id
            self._epoch = await self._process.ask_until_answered(lambda: self._process.broker.init_producer(name))
        self._sending = asyncio.create_task(self._send_for_ever())

    async def stop(self) -> None:
        await self._flush()
        self.abandon()

    def abandon(self) -> None:
        if self._sending is not None:
            self._sending.cancel()

    @property
    def _writer(self) -> tuple[str, int, float] | None:
        if self._transactional_id is None:
            return None
        return self._transactional_id, self._epoch, self._timeout_seconds

    async def send(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        timestamp_ms: int | None,
        headers: list[tuple[str, bytes | None]],
    ) -> asyncio.Future[RecordMetadata]:
        self._refuse_if_failed()
        record = OutRecord(topic, key, value, partition or 0, tuple(headers), timestamp_ms)
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._queue.append((record, future))
        self._queued.set()
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        await asyncio.sleep(0)
        return future

    async def _send_for_ever(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            await asyncio.sleep(CALL_SECONDS)  # others come behind
            waiting, self._queue = self._queue, []
            by_place: defaultdict[TopicPartition, list[tuple[OutRecord, asyncio.Future[RecordMetadata]]]]
            by_place = defaultdict(list)
            for record, future in waiting:
                by_place[TopicPartition(record.topic, record.partition or 0)].append((record, future))
            for place, pairs in by_place.items():
                await self._produce(place, pairs)

    async def _produce(
        self, place: TopicPartition, pairs: list[tuple[OutRecord, asyncio.Future[RecordMetadata]]]
    ) -> None:
        records = [record for record, _ in pairs]
        self._has_written = True
        while True:
            try:
                first = await self._process.ask(lambda: self._process.broker.produce(place, records, self._writer))
            except errors.ConcurrentTransactions:
                await asyncio.sleep(POLL_SECONDS)
                continue
            except errors.KafkaError as error:
                if isinstance(error, errors.InvalidProducerEpoch):
                    self.failure = error
                for _, future in pairs:
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # it may be that nobody asks
                return
            for offset, (record, future) in enumerate(pairs, first):
                if not future.done():
                    future.set_result(RecordMetadata(*place, place, offset, record.timestamp_ms, 0, 0))
            return

    async def _flush(self) -> None:
        if self._unanswered:
            await asyncio.wait(set(self._unanswered))

    async def begin_transaction(self) -> None:
        self._refuse_if_failed()
        assert not self._in_transaction, "a transaction is open"  # aiokafka asserts its states too
        self._in_transaction, self._has_written = True, False

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], membership: Membership
    ) -> None:
        self._refuse_if_failed()
        writer = self._writer
        assert writer is not None
        self._has_written = True
        while True:
            try:
                await self._process.ask(lambda: self._process.broker.add_offsets(writer, membership, offsets))
            except errors.ConcurrentTransactions:
                await asyncio.sleep(POLL_SECONDS)
            except errors.InvalidProducerEpoch as error:
                self.failure = error
                raise
            else:
                return

    async def commit_transaction(self) -> None:
        await self._end(commit=True)

    async def abort_transaction(self) -> None:
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        """Sent once: whether it took effect is not known when no answer comes, and it may do so later."""
        self._refuse_if_failed()
        await self._flush()
        self._in_transaction = False
        if not self._has_written:
            return
        name, epoch = self._transactional_id or "", self._epoch
        try:
            await self._process.ask(lambda: self._process.broker.end_transaction(name, epoch, commit=commit))
        except errors.KafkaError as error:
            self.failure = error
            raise

    def _refuse_if_failed(self) -> None:
        if self.failure is not None:
            raise errors.IllegalOperation(str(self.failure))


class MemoryClients:
    """The clients of one process; see `worker.kafka.clients.Clients`."""

    def __init__(self, process: Process, settings: KafkaSettings) -> None:
        self.process = process
        self.settings = settings

    def make_consumer(self, **settings: Any) -> Any:
        return MemoryConsumer(self.process, self.settings, None, settings["auto_offset_reset"])

    def make_member(self, group: str, **settings: Any) -> Any:
        return MemoryConsumer(self.process, self.settings, group, settings["auto_offset_reset"])

    def make_producer(self, transactional_id: str | None = None) -> Any:
        return MemoryProducer(self.process, transactional_id, self.settings.transaction_timeout_ms / 1000)

    def membership_of(self, member: Any) -> Membership:
        consumer = cast("MemoryConsumer", member)
        return Membership(consumer._group_name or "", consumer.generation, consumer.member_id)

    async def fetch_committed(
        self, member: Any, places: Collection[TopicPartition], *, stable: bool
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        group = cast("MemoryConsumer", member)._group
        return await self.process.ask_until_answered(lambda: group.fetch_committed(places, stable=stable))

    async def require_fencing(self, producer: Any) -> None:
        """It fences, unless the broker was made so as not to."""

    async def abandon(self, producer: Any) -> bool:
        cast("MemoryProducer", producer).abandon()
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
