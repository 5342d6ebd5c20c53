"""Which faults hit whom, and at which point of the work: made from a seed. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from random import Random

MIN_PORTION = 100
"""Records, so that work remains in every partition when a fault hits."""
EARLIEST, LATEST = 0.1, 0.5
"""Where in its portion a step is taken."""


class Kind(StrEnum):
    """What goes wrong; each is a strike, and a mend while the work goes on.

    - sigkill: a worker is killed; a successor joins.
    - rebalance: a labeller joins; SIGTERM takes it away.
    - broker: a node is killed; it is started again.
    - zombie: a worker is frozen until others have its work; it goes on, by turns with what it had labelled but not
      yet begun to write, which only its old membership gives away, and with what it had half written.
    """

    sigkill = "sigkill"
    rebalance = "rebalance"
    broker = "broker"
    zombie = "zombie"


TARGETS = {
    Kind.sigkill: ("labeller", "detector", "labeller"),
    Kind.rebalance: ("labeller",),
    Kind.broker: (
        "coordinator of labellers",
        "leader of labelled",
        "coordinator of transactions",
        "leader of surge-state",
        "leader of raw",
        "coordinator of detectors",
    ),
    Kind.zombie: ("labeller", "detector", "labeller"),
}
"""Whom faults of a kind hit, in turn."""


@dataclass(frozen=True, slots=True)
class Step:
    """Taken when ``fed`` records are on the topic and at least ``at`` of them are committed."""

    fed: int
    at: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A strike and its mend.

    Attributes:
        kind: what goes wrong.
        target: one of `TARGETS`.
        in_transaction: whether a worker is to be met with a transaction open, or between two.
        share: in [0, 1), picks among several victims.
        strike: when it hits.
        mend: when it is mended.
    """

    kind: Kind
    target: str
    in_transaction: bool
    share: float
    strike: Step
    mend: Step


def plan_faults(seed: int, counts: Mapping[Kind, int], records: int) -> tuple[Fault, ...]:
    """Faults in the order in which they hit, over all the records but a last portion.

    Raises:
        ValueError: there are too few records for so many faults.
    """
    random = Random(seed)
    hits = [
        (kind, target, kind is Kind.sigkill or number % 2 == 1)
        for kind, count in counts.items()
        for number, target in enumerate(_take_targets(random, kind, count))
    ]
    random.shuffle(hits)
    portions = 2 * len(hits) + 1
    size = records // portions
    if size < MIN_PORTION:
        raise ValueError(f"{records} records are too few for {len(hits)} faults: {portions * MIN_PORTION} are needed")
    return tuple(
        Fault(*hit, random.random(), _step(random, 2 * number, size), _step(random, 2 * number + 1, size))
        for number, hit in enumerate(hits)
    )


def _take_targets(random: Random, kind: Kind, count: int) -> Iterator[str]:
    """Each in turn, from one left to chance on; a single worker is a labeller."""
    targets = TARGETS[kind]
    first = random.randrange(len(targets)) if kind is Kind.broker else 0
    return islice(cycle(targets), first, first + count)


def _step(random: Random, portion: int, size: int) -> Step:
    return Step(fed=(portion + 1) * size, at=portion * size + int(random.uniform(EARLIEST, LATEST) * size))
