"""Two bundles side by side: what a comparison of them knows, and how it comes by it, whatever their task counts."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import Bundle, Interval, load_bundle
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Chosen
from stacknorm.evaluation.bootstrap import Bootstrap, Rows, weighted_mean
from stacknorm.evaluation.cost import Costs, measure_costs
from stacknorm.evaluation.leaks import Leaks, audit, find_leaked, seen_prints, split_off
from stacknorm.evaluation.paired import Paired, PairedCounts
from stacknorm.evaluation.protocol import Protocol, write_protocol
from stacknorm.evaluation.trial import Question, task_of
from stacknorm.text import fingerprints

MOST_DISAGREEMENTS = 20
"""Shown of a comparison."""

_X = TypeVar("_X")
_Y = TypeVar("_Y")
_MatchT = TypeVar("_MatchT", bound="Matched")
_DisagreementT = TypeVar("_DisagreementT")

Times = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
"""How often each label stands in each row, [n, labels]."""


@dataclass(frozen=True, slots=True)
class RateShift:
    """How often one label is given, in times a row: a share of rows, unless a row can have it more than once."""

    label: str
    true: float
    first: float
    second: float
    difference: Interval
    """Second less first."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Both on one set of rows."""

    rows: int
    first: Mapping[str, Interval]
    """Metric -> value with interval."""
    second: Mapping[str, Interval]
    paired: Paired | PairedCounts
    """The second less the first."""
    disagreeing: int
    """Rows of which they do not say the same."""
    rates: tuple[RateShift, ...]


@dataclass(frozen=True, slots=True)
class Compared(Generic[_MatchT, _DisagreementT]):
    """Two bundles on one file."""

    names: tuple[str, str]
    """What the two are called here."""
    protocol: Protocol
    official: _MatchT
    """On all rows of the file."""
    clean: _MatchT | None
    """On rows that neither was trained on; none where that is not known of both, or no row is left."""
    leaks: tuple[Leaks, Leaks]
    disagreements: tuple[_DisagreementT, ...]
    """The rows on which they lie furthest apart."""
    costs: Costs

    @property
    def decisive(self) -> _MatchT:
        """The match that decides: on clean rows where these are known."""
        return self.clean or self.official


@dataclass(frozen=True, slots=True)
class Pair:
    """Two bundles that are asked the same question, each in the form it would run in: as a cascade where it has one."""

    question: Question
    bundles: tuple[Bundle, Bundle]
    engines: tuple[Engine, Engine]

    @classmethod
    def start(cls, question: Question, bundles: tuple[Bundle, Bundle]) -> "Pair":
        """Load two bundles.

        Raises:
            BundleError: one cannot be loaded.
        """
        return cls(question, bundles, both(lambda bundle: Engine.load(bundle.root, language_guard=False), bundles))

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called; `A` and `B` are put before equal names."""
        first, second = (engine.identity.name for engine in self.engines)
        return (first, second) if first != second else (f"A {first}", f"B {second}")

    def audit(
        self,
        texts: Sequence[str],
        documents: Rows,
        truths: Sequence[Hashable],
        answers: tuple[_X, _X],
        score_on: Callable[[_X, Chosen | None], Interval | None],
    ) -> tuple[tuple[Leaks, Leaks], Chosen | None]:
        """What each has seen of the rows, and which are clean of both, [n]; None where none is, or that is not known.

        Args:
            texts: the text of each row, [n].
            documents: the document of each row, [n].
            truths: what is true of each row, [n].
            answers: what the two say.
            score_on: scores answers on chosen rows.

        Raises:
            DataError: a training file cannot be read.
        """
        prints = fingerprints(list(texts))
        ours, theirs = both(
            lambda bundle: find_leaked(prints, seen_prints(bundle, self.question.training_files)), self.bundles
        )
        first, second = answers
        leaks = (
            audit(prints, documents, truths, ours, score_on(first, ours)),
            audit(prints, documents, truths, theirs, score_on(second, theirs)),
        )
        return leaks, None if ours is None or theirs is None else split_off(ours | theirs)

    def measure_costs(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> Costs:
        """Texts a second of both, under their names."""
        return measure_costs(dict(zip(self.names, self.engines, strict=True)), texts, mentions)

    def write_protocol(self, rows: int, now: datetime) -> Protocol:
        """How it was asked."""
        return write_protocol(self.question, list(zip(self.bundles, self.engines, strict=True)), rows, now)


def load_alike(first: str, second: str, task: str) -> tuple[Bundle, Bundle]:
    """Read two bundles that answer a task with the same labels.

    Raises:
        BundleError: one cannot be read.
        DataError: one lacks the task, or their labels or kinds of it differ.
    """
    bundles = both(load_bundle, (first, second))
    ours, theirs = both(lambda bundle: task_of(bundle, task), bundles)
    if set(ours.labels) != set(theirs.labels) or ours.kind != theirs.kind:
        raise DataError(
            f"the two cannot be compared on {task}: {bundles[0].manifest.name} labels {ours.kind} rows "
            f"{', '.join(ours.labels)}, {bundles[1].manifest.name} {theirs.kind} rows {', '.join(theirs.labels)}"
        )
    return bundles


def both(do: Callable[[_X], _Y], pair: tuple[_X, _X]) -> tuple[_Y, _Y]:
    """The same done to each of two."""
    return do(pair[0]), do(pair[1])


def compare_rates(
    labels: Sequence[str], true: Times, first: Times, second: Times, bootstrap: Bootstrap
) -> tuple[RateShift, ...]:
    """How often each label is true, and is given by one and by the other."""
    moved = second.astype(np.float64) - first
    shifts = bootstrap.intervals(lambda samples: weighted_mean(moved, samples).T)
    means = (times.mean(axis=0).tolist() for times in (true, first, second))
    return tuple(RateShift(*found) for found in zip(labels, *means, shifts, strict=True))
