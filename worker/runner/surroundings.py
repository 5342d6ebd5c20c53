"""What the loops take from outside, so that a test can give them another: Kafka's clients, wall time and a thread."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.kafka.clients import AiokafkaClients, MakeClients
from worker.runner.compute import Compute, ComputeThread


def read_wall_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world around a loop. Seconds that only pass are those of its event loop.

    ``idle_now`` is the clock that is promised for a partition without records, ``now`` where it is None.
    """

    make_clients: MakeClients = AiokafkaClients
    now: Callable[[], datetime] = read_wall_clock
    idle_now: Callable[[], datetime] | None = None
    make_compute: Callable[[str], Compute] = ComputeThread


REAL = Surroundings()
