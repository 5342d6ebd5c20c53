"""Stops a worker most of whose input is unreadable, before it floods the dead-letter topic. Pure."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.events import DeadLetter
from worker.codec import event_id
from worker.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When it is not the records that are wrong, but what they are read with."""

    window_records: int = 1000
    max_share: float = 0.5
    min_letters: int = 100


class Breaker:
    """Looks at what became of the last records that held an item; heartbeats do not count.

    Owned by the labeller's loop. It trips at the same record however the records are cut into units. What is labelled
    anew after a lost transaction counts again, which leaves the share as it is.
    """

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._kinds: deque[str | None] = deque(maxlen=rules.window_records)
        self._letters = 0
        self._examples: dict[str, str] = {}

    def watch(self, outcomes: Iterable[DeadLetter | None]) -> None:
        """Take note of a unit, which must not be committed before.

        Args:
            outcomes: in the order of the records, a dead letter, or None where an event was made.

        Raises:
            Misconfigured: too many of the last records became dead letters; names share, commonest kind and an example.
        """
        if not self._rules.max_share:
            return
        for letter in outcomes:
            self._add(letter)
            if self._letters >= self._rules.min_letters and self.share > self._rules.max_share:
                raise Misconfigured(self._explain())

    @property
    def share(self) -> float:
        """Of the last records, how many became dead letters; 0 before the first."""
        return self._letters / len(self._kinds) if self._kinds else 0.0

    def _add(self, letter: DeadLetter | None) -> None:
        if len(self._kinds) == self._rules.window_records:
            self._letters -= self._kinds[0] is not None
        self._kinds.append(letter.kind if letter else None)
        if letter:
            self._letters += 1
            self._examples[letter.kind] = f"{event_id(letter.input)}: {letter.reason}"

    def _explain(self) -> str:
        ((kind, count),) = Counter(kind for kind in self._kinds if kind is not None).most_common(1)
        return (
            f"{self._letters} of the last {len(self._kinds)} records became dead letters ({self.share:.0%}, above "
            f"dead_letters.max_share = {self._rules.max_share:g}), {count} of them of the kind {kind!r}, such as "
            f"{self._examples[kind]}. The unit with the last of them is not committed. Is input.format what producers "
            "send? `stacknorm-worker dlq list` shows what was committed before; dead_letters.max_share = 0 lets all "
            "pass"
        )
