"""When the detector may fire: after enough exposure under one stack.

A new stack moves every baseline, so it starts an epoch: baselines of earlier epochs are dropped as their keys are met.
While workers are replaced one by one two stacks speak at once; only a digest not heard for a day is new. Under the
stack that a primer is of there is nothing to learn.
"""

from dataclasses import dataclass, field
from typing import Final

from schemas.events import StackRef
from worker.labelled import Speaker

KNOWN_MS: Final = 24 * 3_600_000


@dataclass
class Learning:
    """The newest stack, the epoch it began, and when each known digest was last heard, in exposure milliseconds."""

    needed_ms: int
    stack: StackRef | None = None
    epoch: int = 0
    since_ms: int = 0
    heard_ms: dict[str, int] = field(default_factory=dict)
    primed_digest: str | None = None

    def hear(self, stack: StackRef | Speaker, exposure_ms: int) -> None:
        """Note the stack of an item; an unknown one starts learning again."""
        heard_ms = self.heard_ms.get(stack.digest)
        if heard_ms is None or exposure_ms - heard_ms > KNOWN_MS:
            self.heard_ms = {known: ms for known, ms in self.heard_ms.items() if exposure_ms - ms <= KNOWN_MS}
            self.stack = StackRef(name=stack.name, digest=stack.digest)
            self.epoch += 1
            self.since_ms = exposure_ms
        self.heard_ms[stack.digest] = exposure_ms

    def changed_within(self, exposure_ms: int, lately_ms: float) -> bool:
        """Whether another stack spoke lately; the first of all changed nothing, nor did one that a primer knows."""
        return self.epoch > 1 and not self.primed and exposure_ms - self.since_ms < lately_ms

    @property
    def primed(self) -> bool:
        """Whether the newest stack is the primer's."""
        return self.stack is not None and self.stack.digest == self.primed_digest

    def at(self, exposure_ms: int) -> bool:
        """Whether nothing may fire yet."""
        return not self.primed and exposure_ms - self.since_ms < self.needed_ms
