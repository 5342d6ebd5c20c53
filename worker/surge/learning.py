"""When the detector may fire: after enough exposure under one stack.

A new stack moves every baseline, so it starts an epoch: baselines of earlier epochs are dropped as their keys are met.
While workers are replaced one by one two stacks speak at once; only a digest not heard for a day is new.
"""

from dataclasses import dataclass, field

from schemas.events import StackRef
from worker.labelled import Speaker

KNOWN_MS = 24 * 3_600_000


@dataclass(slots=True)
class Learning:
    """The newest stack, the epoch it began, and when each known digest was last heard, in exposure milliseconds."""

    needed_ms: int
    stack: StackRef | None = None
    epoch: int = 0
    since_ms: int = 0
    heard_ms: dict[str, int] = field(default_factory=dict)

    def hear(self, stack: StackRef | Speaker, exposure_ms: int) -> None:
        """Note the stack of an item; an unknown one starts learning again."""
        heard_ms = self.heard_ms.get(stack.digest)
        if heard_ms is None or exposure_ms - heard_ms > KNOWN_MS:
            self.heard_ms = {known: ms for known, ms in self.heard_ms.items() if exposure_ms - ms <= KNOWN_MS}
            self.stack = StackRef(name=stack.name, digest=stack.digest)
            self.epoch += 1
            self.since_ms = exposure_ms
        self.heard_ms[stack.digest] = exposure_ms

    def at(self, exposure_ms: int) -> bool:
        """Whether nothing may fire yet."""
        return exposure_ms - self.since_ms < self.needed_ms
