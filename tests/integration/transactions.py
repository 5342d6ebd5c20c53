"""Which transactions are open on a broker: Kafka's ListTransactions, which aiokafka lacks (KIP-664)."""
# mypy: allow-subclassing-any

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

OPEN_STATES = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")

TEXT = CompactString("utf-8")
TAGS = ("tags", TaggedFields)


class ListTransactionsResponse_v0(Response):  # noqa: N801 -- aiokafka's way to name a version
    """ListTransactions 0, the answer."""

    API_KEY, API_VERSION = 66, 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_state_filters", CompactArray(TEXT)),
        (
            "transaction_states",
            CompactArray(("transactional_id", TEXT), ("producer_id", Int64), ("transaction_state", TEXT), TAGS),
        ),
        TAGS,
    )


class ListTransactionsRequest_v0(RequestStruct):  # noqa: N801 -- aiokafka's way to name a version
    """ListTransactions 0."""

    FLEXIBLE_VERSION, API_KEY, API_VERSION, RESPONSE_TYPE = True, 66, 0, ListTransactionsResponse_v0
    SCHEMA = Schema(
        ("state_filters", CompactArray(TEXT)),
        ("producer_id_filters", CompactArray(Int64)),
        TAGS,
    )


class ListTransactions(Request[ListTransactionsRequest_v0]):
    """All transactions that the asked broker coordinates and that are in one of these states."""

    API_KEY = 66

    def __init__(self, states: Sequence[str]) -> None:
        self._states = list(states)

    def build(self, request_struct_class: type[ListTransactionsRequest_v0]) -> ListTransactionsRequest_v0:
        """The request as it is sent."""
        return request_struct_class(self._states, [], {})


async def open_transactions(admin: AIOKafkaAdminClient, prefix: str) -> list[str]:
    """Transactional ids that begin with ``prefix`` and whose transaction has not ended, on every broker."""
    found = []
    for broker in admin._client.cluster.brokers():
        answer = await admin._send_request(ListTransactions(OPEN_STATES), broker.nodeId)
        if answer.error_code:
            raise for_code(answer.error_code)
        found += [name for name, _, _, _ in answer.transaction_states if name.startswith(prefix)]
    return sorted(found)
