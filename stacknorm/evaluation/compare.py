"""Two bundles on the same rows, of one label each: which is better, where they disagree, and how labels shift."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.compare_pair import (
    MOST_DISAGREEMENTS,
    Compared,
    Matched,
    Pair,
    RateShift,
    both,
    compare_rates,
    load_alike,
)
from stacknorm.evaluation.metrics import score
from stacknorm.evaluation.paired import Paired, compare_answers
from stacknorm.evaluation.part import accuracy_on
from stacknorm.evaluation.trial import Question, ask_engine, read_sheet, task_of


@dataclass(frozen=True, slots=True)
class LabelPair:
    """Rows that the two give different labels."""

    first: str
    second: str
    rows: int
    first_right: int
    second_right: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One row, and what each says of it."""

    text: str
    truth: str
    first: str
    first_confidence: float
    second: str
    second_confidence: float


@dataclass(frozen=True, slots=True)
class Match(Matched):
    """Both on one set of rows, each of which has one label."""

    paired: Paired
    pairs: tuple[LabelPair, ...]
    """The commonest first."""


@dataclass(frozen=True, slots=True)
class Comparison(Compared[Match, Disagreement]):
    """Two bundles on one file, for a task with one label a row; probabilities tell how far apart the two are."""


def compare_bundles(first: str, second: str, question: Question, now: datetime) -> Comparison:
    """Ask two bundles the same question, each in the form it would run in: as a cascade where it has one.

    Raises:
        BundleError: a bundle cannot be loaded.
        DataError: the file cannot be used, a bundle lacks the task, or their labels for it differ.
    """
    bundles = load_alike(first, second, question.task)
    spec = task_of(bundles[0], question.task)
    sheet = read_sheet(spec, question)
    pair = Pair.start(question, bundles)
    ours, theirs = both(lambda engine: ask_engine(engine, question.task, sheet, spec.labels)[0], pair.engines)
    leaks, clean = pair.audit(sheet.row_texts, sheet.documents, sheet.truth.tolist(), (ours, theirs), accuracy_on)
    return Comparison(
        names=pair.names,
        protocol=pair.write_protocol(len(sheet.truth), now),
        official=match(ours, theirs),
        clean=None if clean is None else match(ours.only(clean), theirs.only(clean)),
        leaks=leaks,
        disagreements=widest_disagreements(ours, theirs, sheet.shown, MOST_DISAGREEMENTS),
        costs=pair.measure_costs(sheet.texts, sheet.mentions),
    )


def match(first: Answers, second: Answers) -> Match:
    """Score two systems on the same rows, and count where they part."""
    return Match(
        rows=len(first.truth),
        first=score(first.probabilities, first.truth, first.bootstrap),
        second=score(second.probabilities, second.truth, second.bootstrap),
        paired=compare_answers(second, first),
        disagreeing=int((first.guess != second.guess).sum()),
        pairs=count_pairs(first, second),
        rates=shift_rates(first, second),
    )


def count_pairs(first: Answers, second: Answers) -> tuple[LabelPair, ...]:
    """How often one label of the first stands against another of the second."""
    apart = first.guess != second.guess
    found, counts = np.unique(np.stack([first.guess, second.guess])[:, apart], axis=1, return_counts=True)
    pairs = []
    for (ours, theirs), rows in zip(found.T.tolist(), counts.tolist(), strict=True):
        there = (first.guess == ours) & (second.guess == theirs)
        right = int((there & first.right).sum()), int((there & second.right).sum())
        pairs.append(LabelPair(first.labels[ours], first.labels[theirs], rows, *right))
    return tuple(sorted(pairs, key=lambda pair: -pair.rows))


def shift_rates(first: Answers, second: Answers) -> tuple[RateShift, ...]:
    """How often each label is given by one and by the other."""
    places = np.arange(len(first.labels))
    true, ours, theirs = (given[:, None] == places for given in (first.truth, first.guess, second.guess))
    return compare_rates(first.labels, true, ours, theirs, first.bootstrap)


def widest_disagreements(first: Answers, second: Answers, texts: Sequence[str], most: int) -> tuple[Disagreement, ...]:
    """Rows with different labels, those first whose distributions lie furthest apart (in total variation)."""
    apart = np.flatnonzero(first.guess != second.guess)
    distance = np.abs(first.probabilities - second.probabilities).sum(axis=1) / 2
    order = apart[np.argsort(-distance[apart], kind="stable")][:most]
    labels = first.labels
    return tuple(
        Disagreement(
            text=texts[row],
            truth=labels[first.truth[row]],
            first=labels[first.guess[row]],
            first_confidence=float(first.confidence[row]),
            second=labels[second.guess[row]],
            second_confidence=float(second.confidence[row]),
        )
        for row in order.tolist()
    )
