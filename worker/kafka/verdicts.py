"""What aiokafka's errors mean for us: one table, and a test that it misses none."""

from aiokafka import errors
from aiokafka.structs import TopicPartition

from worker import kip447
from worker.errors import Fatal, Fenced, Misconfigured, Retriable, WorkerError

_VERDICTS: dict[type[Exception], type[WorkerError]] = {
    # Another owns the work, or nobody knows how it ended. Also where aiokafka hides what happened.
    **dict.fromkeys(
        (
            errors.KafkaError,
            errors.BrokerResponseError,
            errors.UnknownError,  # all codes above 79, among them 90, PRODUCER_FENCED
            errors.CommitFailedError,
            errors.ProducerClosed,
            errors.ProducerFenced,  # aiokafka's word for a timed-out transaction too
            errors.IllegalGenerationError,
            errors.UnknownMemberIdError,
            errors.RebalanceInProgressError,
            errors.OutOfOrderSequenceNumber,
            errors.DuplicateSequenceNumber,
            errors.InvalidProducerEpoch,
            errors.InvalidProducerIdMapping,
            errors.InvalidTxnState,
            errors.TransactionCoordinatorFenced,
            errors.UnknownProducerId,
            errors.MemberIdRequired,
        ),
        Fenced,
    ),
    # The broker, or the way to it, is not there now.
    **dict.fromkeys(
        (
            TimeoutError,
            errors.NoBrokersAvailable,
            errors.NodeNotReadyError,
            errors.KafkaProtocolError,
            errors.CorrelationIdError,
            errors.Cancelled,
            errors.TooManyInFlightRequests,
            errors.StaleMetadata,
            errors.MetadataEmptyBrokerList,
            errors.KafkaUnavailableError,
            errors.KafkaTimeoutError,
            errors.KafkaConnectionError,
            errors.QuotaViolationError,
            errors.CorruptRecordException,
            errors.UnknownTopicOrPartitionError,
            errors.LeaderNotAvailableError,
            errors.NotLeaderForPartitionError,
            errors.RequestTimedOutError,
            errors.BrokerNotAvailableError,
            errors.ReplicaNotAvailableError,
            errors.StaleControllerEpochError,
            errors.StaleLeaderEpochCodeError,
            errors.GroupLoadInProgressError,
            errors.GroupCoordinatorNotAvailableError,
            errors.NotCoordinatorForGroupError,
            errors.NotEnoughReplicasError,
            errors.NotEnoughReplicasAfterAppendError,
            errors.NotControllerError,
            errors.ConcurrentTransactions,
            errors.OperationNotAttempted,
            errors.KafkaStorageError,
            errors.ReassignmentInProgress,
            errors.FetchSessionIdNotFound,
            errors.InvalidFetchSessionEpoch,
            errors.ListenerNotFound,
            kip447.UnstableOffsetCommit,
        ),
        Retriable,
    ),
    # It fails until a person changes something.
    **dict.fromkeys(
        (
            errors.UnrecognizedBrokerVersion,
            errors.IncompatibleBrokerVersion,
            errors.AuthenticationMethodNotSupported,
            errors.AuthenticationFailedError,
            errors.UnsupportedCodecError,
            errors.KafkaConfigurationError,
            errors.NoOffsetForPartitionError,
            errors.OffsetOutOfRangeError,
            errors.RecordTooLargeError,
            errors.MessageSizeTooLargeError,
            errors.OffsetMetadataTooLargeError,
            errors.InvalidTopicError,
            errors.RecordListTooLargeError,
            errors.InvalidRequiredAcksError,
            errors.InconsistentGroupProtocolError,
            errors.InvalidGroupIdError,
            errors.InvalidSessionTimeoutError,
            errors.InvalidCommitOffsetSizeError,
            errors.TopicAuthorizationFailedError,
            errors.GroupAuthorizationFailedError,
            errors.ClusterAuthorizationFailedError,
            errors.InvalidTimestampError,
            errors.UnsupportedSaslMechanismError,
            errors.IllegalSaslStateError,
            errors.UnsupportedVersionError,
            errors.TopicAlreadyExistsError,
            errors.InvalidPartitionsError,
            errors.InvalidReplicationFactorError,
            errors.InvalidReplicationAssignmentError,
            errors.InvalidConfigurationError,
            errors.UnsupportedForMessageFormatError,
            errors.PolicyViolationError,
            errors.InvalidTransactionTimeout,
            errors.TransactionalIdAuthorizationFailed,
            errors.SecurityDisabled,
            errors.LogDirNotFound,
            errors.SaslAuthenticationFailed,
            errors.DelegationTokenAuthDisabled,
            errors.DelegationTokenNotFound,
            errors.DelegationTokenOwnerMismatch,
            errors.DelegationTokenRequestNotAllowed,
            errors.DelegationTokenAuthorizationFailed,
            errors.DelegationTokenExpired,
            errors.InvalidPrincipalType,
            errors.NonEmptyGroup,
            errors.GroupIdNotFound,
        ),
        Misconfigured,
    ),
    # A mistake in this program.
    **dict.fromkeys(
        (
            errors.IllegalStateError,
            errors.IllegalArgumentError,
            errors.ConsumerStoppedError,
            errors.IllegalOperation,
            errors.NoError,
            errors.InvalidFetchRequestError,
            errors.InvalidRequestError,
        ),
        Fatal,
    ),
}

KAFKA_ERRORS = (TimeoutError, errors.KafkaError, errors.ConsumerStoppedError, errors.IllegalOperation)


DENIALS: dict[type[Exception], str] = {
    errors.TopicAuthorizationFailedError: "topic",
    errors.GroupAuthorizationFailedError: "group",
    errors.TransactionalIdAuthorizationFailed: "transactional id",
    errors.ClusterAuthorizationFailedError: "the cluster",
}
"""Errors that say that the user lacks an ACL, and on what kind of resource."""

MEND_OF_DENIAL = "grant the user the ACLs that `stacknorm-worker acls` lists for what it does"


def translate(error: Exception) -> WorkerError:
    """What an error of aiokafka, or a time-out of ours, means; to be raised ``from`` it.

    aiokafka wraps what ends its background tasks in a plain KafkaError: then the cause decides.
    """
    if type(error) is errors.KafkaError and isinstance(error.__cause__, Exception):
        return translate(error.__cause__)
    if type(error) in DENIALS:
        return Misconfigured(f"not authorised on {DENIALS[type(error)]} {_name(error)}; {MEND_OF_DENIAL}")
    verdict = next((_VERDICTS[each] for each in type(error).__mro__ if each in _VERDICTS), Fenced)
    return verdict(str(error) or type(error).__name__)


def _name(error: Exception) -> str:
    """The resource that an error names: aiokafka gives a name, a place, a set of names, or none."""
    named = error.args[0] if error.args else "that it does not name"
    if isinstance(named, TopicPartition):
        named = named.topic
    return ", ".join(sorted(map(str, named))) if isinstance(named, set | frozenset) else str(named)
