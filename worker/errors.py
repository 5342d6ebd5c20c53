"""The exception tree of the worker; each class says what its catcher does.

WorkerError
├── Rejected        this record will never work: to the dead-letter topic, never retried
├── Retriable       try the same again, later
│   └── Abortable   the transaction is lost, the producer is not: abort, send the same unit again
├── Fenced          another owns the work, or the outcome is unknown: drop everything, read what is committed
└── Fatal           stop the process with a clear message; the orchestrator restarts it
    └── Misconfigured   it will fail again until a person changes a setting
"""


class WorkerError(Exception):
    """Anything the worker raises on purpose."""


class Rejected(WorkerError):  # noqa: N818 -- a verdict on a record, not a failure of ours
    """This record will never work.

    Attributes:
        kind: a short stable word for metrics and filters, such as ``json``.
        reason: a sentence that names the thing and the value.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason


class Retriable(WorkerError):  # noqa: N818 -- names what to do
    """Try the same again, later."""


class Abortable(Retriable):
    """The transaction is lost, the producer is not: abort and send the same unit again."""


class Fenced(WorkerError):  # noqa: N818 -- Kafka's own word
    """Another owns the work, or the outcome of a commit is unknown: drop everything, go on from what is committed."""


class Fatal(WorkerError):  # noqa: N818 -- names what to do
    """Stop the process with this message."""


class Misconfigured(Fatal):
    """A setting, a topic or a bundle is wrong; the message names it, its value and the mend."""
