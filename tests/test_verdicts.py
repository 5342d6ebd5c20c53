"""A broker's denial names the resource and the mend, however aiokafka tells it."""

import pytest
from aiokafka import errors
from aiokafka.structs import TopicPartition

from worker.errors import Misconfigured
from worker.kafka.refusal import find_refusal
from worker.kafka.verdicts import translate


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (errors.TopicAuthorizationFailedError("news.raw"), "topic news.raw"),
        (errors.TopicAuthorizationFailedError({"news.b", "news.a"}), "topic news.a, news.b"),
        (errors.TopicAuthorizationFailedError(TopicPartition("news.raw", 3)), "topic news.raw"),
        (errors.TopicAuthorizationFailedError(), "topic that it does not name"),
        (errors.GroupAuthorizationFailedError("desk"), "group desk"),
        (errors.TransactionalIdAuthorizationFailed("desk-1"), "transactional id desk-1"),
    ],
)
def test_a_denial_names_what_is_denied_and_the_mend(error: errors.KafkaError, named: str) -> None:
    wrapped = errors.KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        verdict = translate(raised)
        assert isinstance(verdict, Misconfigured)
        assert str(verdict).startswith(
            f"not authorised on {named}; grant the user the ACLs that `stacknorm-worker acls`"
        )


async def test_a_client_that_is_not_aiokafkas_is_not_asked_why_it_failed() -> None:
    assert await find_refusal(object()) is None
