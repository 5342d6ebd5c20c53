"""KIP-447 for aiokafka 0.14: the transactional requests as exactly-once needs them, and nothing else.

aiokafka speaks only the oldest transactional requests, which a broker accepts from any member of any generation. Here
are the first versions that carry the membership (TxnOffsetCommit 3) and that wait for pending transactions (OffsetFetch
7), as subclasses: aiokafka's own classes stay as they are. A broker that does not speak these versions is never served
by older ones. Message formats: Apache Kafka, ``clients/src/main/resources/common/message``.
"""
# mypy: allow-subclassing-any

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Self

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    NodeNotReadyError,
    NotCoordinatorForGroupError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.producer.sender import EndTxnHandler, Sender, TxnOffsetCommitHandler
from aiokafka.producer.transaction_manager import TransactionResult
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from worker.errors import Misconfigured

SUPPORTED_AIOKAFKA = "0.14."
UNSTABLE_OFFSET_COMMIT = 88
FENCED_INSTANCE_ID = 82
NO_OFFSET = -1
TEXT = CompactString("utf-8")
TAGS = ("tags", TaggedFields)


class TxnOffsetCommitResponse_v3(Response):  # noqa: N801 -- aiokafka's way to name a version
    """TxnOffsetCommit 3, the answer."""

    API_KEY, API_VERSION = 28, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "errors",
            CompactArray(
                ("topic", TEXT),
                ("partition_errors", CompactArray(("partition", Int32), ("error_code", Int16), TAGS)),
                TAGS,
            ),
        ),
        TAGS,
    )


class TxnOffsetCommitRequest_v3(RequestStruct):  # noqa: N801 -- aiokafka's way to name a version
    """TxnOffsetCommit 3: the first with generation and member."""

    FLEXIBLE_VERSION, API_KEY, API_VERSION, RESPONSE_TYPE = True, 28, 3, TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", TEXT),
        ("group_id", TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", TEXT),
        ("group_instance_id", TEXT),
        (
            "topics",
            CompactArray(
                ("topic", TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", TEXT), TAGS
                    ),
                ),
                TAGS,
            ),
        ),
        TAGS,
    )


class OffsetFetchResponse_v7(Response):  # noqa: N801 -- aiokafka's way to name a version
    """OffsetFetch 7, the answer."""

    API_KEY, API_VERSION = 9, 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", TEXT),
                        ("error_code", Int16),
                        TAGS,
                    ),
                ),
                TAGS,
            ),
        ),
        ("error_code", Int16),
        TAGS,
    )


class OffsetFetchRequest_v7(RequestStruct):  # noqa: N801 -- aiokafka's way to name a version
    """OffsetFetch 7: the first with ``require_stable``."""

    FLEXIBLE_VERSION, API_KEY, API_VERSION, RESPONSE_TYPE = True, 9, 7, OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("consumer_group", TEXT),
        ("topics", CompactArray(("topic", TEXT), ("partitions", CompactArray(Int32)), TAGS)),
        ("require_stable", Boolean),
        TAGS,
    )


class Membership(str):
    """A group id, with the generation and the member in whose name offsets are committed.

    It is a ``str`` so that it travels through aiokafka's queue to the request as the group id does: with its own call,
    not as a setting beside it.
    """

    __slots__ = ("generation", "member_id")
    generation: int
    member_id: str

    def __new__(cls, group_id: str, generation: int, member_id: str) -> Self:
        """A group id that knows who commits."""
        membership = super().__new__(cls, group_id)
        membership.generation = generation
        membership.member_id = member_id
        return membership


def membership_of(consumer: AIOKafkaConsumer) -> Membership:
    """Who the consumer is in its group at this moment; generation -1 while it is in none."""
    coordinator: GroupCoordinator = consumer._coordinator  # noqa: SLF001 -- aiokafka has no public way
    return Membership(coordinator.group_id, coordinator.generation, coordinator.member_id)


class FencedOffsetCommit(Request[TxnOffsetCommitRequest_v3]):
    """Offsets of a transaction, in the name of a member."""

    API_KEY = 28

    def __init__(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        membership: Membership,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        self._transaction = (transactional_id, str(membership), producer_id, producer_epoch)
        self._member = (membership.generation, membership.member_id, None)
        self._offsets = offsets

    def build(self, request_struct_class: type[TxnOffsetCommitRequest_v3]) -> TxnOffsetCommitRequest_v3:
        """The request as it is sent."""
        topics: defaultdict[str, list[tuple[object, ...]]] = defaultdict(list)
        for (topic, partition), (offset, metadata) in sorted(self._offsets.items()):
            topics[topic].append((partition, offset, -1, metadata, {}))
        listed: list[tuple[object, ...]] = [(topic, partitions, {}) for topic, partitions in topics.items()]
        return request_struct_class(*self._transaction, *self._member, listed, {})


class StableOffsetFetch(Request[OffsetFetchRequest_v7]):
    """Committed offsets, or the error UNSTABLE_OFFSET_COMMIT where a transaction on them is pending."""

    API_KEY = 9

    def __init__(self, group_id: str, partitions: Iterable[TopicPartition]) -> None:
        self._group_id = group_id
        self._partitions = partitions

    def build(self, request_struct_class: type[OffsetFetchRequest_v7]) -> OffsetFetchRequest_v7:
        """The request as it is sent."""
        topics: defaultdict[str, list[int]] = defaultdict(list)
        for topic, partition in sorted(self._partitions):
            topics[topic].append(partition)
        return request_struct_class(
            self._group_id, [(topic, partitions, {}) for topic, partitions in topics.items()], True, {}
        )


class FencedProducer(AIOKafkaProducer):
    """A transactional producer whose offset commits are refused unless their member is current.

    ``send_offsets_to_transaction`` takes a `Membership` as its group id. A refused commit raises CommitFailedError and
    leaves the transaction to be aborted. The request that ends a transaction is sent once: an unknown outcome is fatal
    for the producer, since a delayed first request could end its next transaction (KIP-890).
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        sender = vars(self)["_sender"]
        self._sender: Sender = _FencedSender(
            sender.client,
            acks=sender._acks,  # noqa: SLF001 -- the sender that aiokafka made is copied
            txn_manager=sender._txn_manager,  # noqa: SLF001
            message_accumulator=sender._message_accumulator,  # noqa: SLF001
            retry_backoff_ms=sender._retry_backoff * 1000,  # noqa: SLF001
            request_timeout_ms=sender._request_timeout_ms,  # noqa: SLF001
        )

    @property
    def failure(self) -> Exception | None:
        """What ended this producer or its transaction; what aiokafka raises may only say that none is open."""
        waiter = self._txn_manager.wait_for_transaction_end()
        error: Exception | None = waiter.exception() if waiter is not None and waiter.done() else None
        return error or (KafkaError("the producer failed") if self._txn_manager.is_fatal_error() else None)

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str
    ) -> None:
        """Commit offsets in the open transaction.

        Raises:
            TypeError: ``group_id`` does not say which member commits.
            CommitFailedError: the member is not current; abort.
        """
        if not isinstance(group_id, Membership):
            raise TypeError(f"offsets of group {group_id!r} need a Membership")
        await super().send_offsets_to_transaction(dict(offsets), group_id)


class _FencedSender(Sender):
    async def _do_txn_offset_commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], membership: Membership
    ) -> None:
        node_id = await self._find_coordinator(CoordinationType.GROUP, membership)
        await _FencedCommitHandler(self, offsets, membership).do(node_id)

    async def _do_txn_commit(self, commit_result: TransactionResult) -> None:
        await self._message_accumulator.flush_for_commit()
        if self._txn_manager.is_empty_transaction():
            self._txn_manager.complete_transaction()
            return
        node_id = await self._find_coordinator(CoordinationType.TRANSACTION, self._txn_manager.transactional_id)
        await _EndOnceHandler(self, commit_result).do(node_id)


class _FencedCommitHandler(TxnOffsetCommitHandler):
    def create_request(self) -> FencedOffsetCommit:
        transaction = self._sender._txn_manager  # noqa: SLF001 -- as aiokafka's own handlers do
        return FencedOffsetCommit(
            transaction.transactional_id,
            transaction.producer_id,
            transaction.producer_epoch,
            self._group_id,
            self._offsets,
        )

    def handle_response(self, response: TxnOffsetCommitResponse_v3) -> float | None:
        codes = {code for _, partitions, _ in response.errors for _, code, _ in partitions}
        if codes & {IllegalGenerationError.errno, UnknownMemberIdError.errno, FENCED_INSTANCE_ID}:
            self._refuse(codes)
            return None
        response.errors = [(topic, [pair[:2] for pair in partitions]) for topic, partitions, _ in response.errors]
        backoff: float | None = super().handle_response(response)
        return backoff

    def _refuse(self, codes: set[int]) -> None:
        """Fail the call and leave the transaction as it is.

        Not by ``error_transaction``: aiokafka then takes the transaction for empty, never tells the broker of the
        abort, and the next commit would make the refused records visible.
        """
        _, _, waiting = self._sender._txn_manager._pending_txn_offsets.popleft()  # noqa: SLF001
        reason = f"member {self._group_id.member_id} of generation {self._group_id.generation} is not current"
        waiting.set_exception(CommitFailedError(f"{reason}: {sorted(codes)}"))


class _EndOnceHandler(EndTxnHandler):
    async def do(self, node_id: int) -> bool:
        try:
            response = await self._sender.client.send(node_id, self.create_request(), group=self.group)
        except NodeNotReadyError:  # it was not sent
            await asyncio.sleep(self.handle_error())
            return False
        backoff = self.handle_response(response)
        if backoff is not None:
            await asyncio.sleep(backoff)
        return backoff is None


async def fetch_committed(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Committed offsets with their metadata; waits while a transaction on them is pending.

    A partition without a committed offset is missing from the answer. The caller bounds the time.
    """
    coordinator: GroupCoordinator = consumer._coordinator  # noqa: SLF001 -- aiokafka has no public way
    wanted = list(partitions)
    if not wanted:
        return {}
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            response = await coordinator._send_req(StableOffsetFetch(coordinator.group_id, wanted))  # noqa: SLF001
            return _read_offsets(response)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            coordinator.coordinator_dead()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(coordinator._retry_backoff_ms / 1000)  # noqa: SLF001


def _read_offsets(response: OffsetFetchResponse_v7) -> dict[TopicPartition, OffsetAndMetadata]:
    offsets = {}
    entries = [(topic, entry) for topic, partitions, _ in response.topics for entry in partitions]
    for code in (response.error_code, *(entry[4] for _, entry in entries)):
        if code == UNSTABLE_OFFSET_COMMIT:
            raise UnstableOffsetCommit
        if code:
            raise for_code(code)
    for topic, (partition, offset, _, metadata, _, _) in entries:
        if offset != NO_OFFSET:
            offsets[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata)
    return offsets


class UnstableOffsetCommit(KafkaError):  # noqa: N818 -- Kafka's name
    """Another's transaction on these offsets is pending."""

    retriable = True


async def require_fencing(client: AIOKafkaClient) -> None:
    """Refuse a client library or a broker on which a stale member would not be fenced.

    Raises:
        Misconfigured: says which, and what to do.
    """
    if not aiokafka.__version__.startswith(SUPPORTED_AIOKAFKA):
        raise Misconfigured(f"aiokafka {aiokafka.__version__} is installed; exactly-once needs {SUPPORTED_AIOKAFKA}*")
    for broker in client.cluster.brokers():
        connection = await client._get_conn(broker.nodeId)  # noqa: SLF001 -- aiokafka has no public way
        if connection is not None:
            refuse_old_broker(f"{broker.host}:{broker.port}", connection._versions)  # noqa: SLF001


def refuse_old_broker(name: str, versions: Mapping[int, tuple[int, int]]) -> None:
    """Refuse a broker by the request versions it offers, ``{api key: (lowest, highest)}``.

    Raises:
        Misconfigured: it does not offer the versions that fence.
    """
    for request in (TxnOffsetCommitRequest_v3, OffsetFetchRequest_v7):
        lowest, highest = versions.get(request.API_KEY, (0, -1))
        if not lowest <= request.API_VERSION <= highest:
            title = request.__name__.partition("Request")[0]
            raise Misconfigured(
                f"broker {name} speaks {title} {lowest} to {highest}, not {request.API_VERSION}: a stale worker would "
                "not be fenced. Use Apache Kafka 2.5 or newer, or processing_guarantee = at_least_once"
            )
