"""What a running role says of itself to the health endpoints."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Vitals:
    """What can be seen of a role in its process.

    ``waiting_for`` is why no work can be done now, in a few words, which may come right by itself; None while it can.
    ``stuck`` is what does not move although it could, so that only a restart may help. ``settled`` is by shard of a
    detector the clock up to which it has committed all that will ever follow from its input; -1 until it is known.
    """

    role: str
    waiting_for: str | None = "the start"
    stuck: str | None = None
    settled: dict[int, int] = field(default_factory=dict)

    @property
    def settled_ms(self) -> int:
        """The clock up to which all shards are settled; -1 until it is known of each."""
        return min(self.settled.values(), default=-1)

    def ready(self) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        return None if self.waiting_for is None else f"{self.role} waits for {self.waiting_for}"

    def live(self) -> str | None:
        """Why it should be restarted, in a sentence; None while it should not."""
        return None if self.stuck is None else f"{self.role} is stuck: {self.stuck}"
