"""Contenders that do the same work in turn, and what their times say. Knows nothing of models or Kafka."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: documents (or messages) done, the seconds it took, and the processor seconds of the process."""

    docs: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def docs_per_second(self) -> float:
        """The rate."""
        return self.docs / self.wall_seconds


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to do the work. ``warm_up`` is called once before the first round, and not timed."""

    name: str
    run: Callable[[], Sample]
    warm_up: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and their bounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of at least one value."""
        found = list(values)
        return cls(median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Row:
    """What the rounds say of a contender. ``ratio`` is its rate over the reference's, the median of the rounds'."""

    name: str
    docs_per_second: Spread
    ratio: float
    cpu_ms_per_doc: float


def time_work(docs: int, work: Callable[[], object]) -> Sample:
    """Do work in this process and time it; processor seconds are those of all its threads."""
    cpu_started, started = time.process_time(), time.perf_counter()
    work()
    return Sample(docs, time.perf_counter() - started, time.process_time() - cpu_started)


def run_rounds(contenders: Sequence[Contender], rounds: int, say: Say) -> dict[str, list[Sample]]:
    """Let all run once, then all again, and so on: what disturbs the machine for a while then hits all of them.

    Returns:
        Name -> one sample for each round.
    """
    for contender in contenders:
        contender.warm_up()
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            sample = contender.run()
            samples[contender.name].append(sample)
            say(f"  round {number} of {rounds}: {contender.name}, {sample.docs_per_second:,.0f} a second")
    return samples


def rank(samples: Mapping[str, Sequence[Sample]], reference: str) -> list[Row]:
    """A row for each contender, in their order."""
    by_round = [sample.docs_per_second for sample in samples[reference]]
    return [
        Row(
            name,
            Spread.of(run.docs_per_second for run in runs),
            median(run.docs_per_second / other for run, other in zip(runs, by_round, strict=True)),
            median(1000 * run.cpu_seconds / run.docs for run in runs),
        )
        for name, runs in samples.items()
    ]
