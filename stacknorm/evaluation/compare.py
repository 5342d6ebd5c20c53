"""Two bundles on the same rows: which is better, where they disagree, what each costs, and how labels shift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from stacknorm.bundle import Bundle, Interval, load_bundle
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import weighted_mean
from stacknorm.evaluation.cost import Costs, measure_costs
from stacknorm.evaluation.leaks import Leaks, audit, find_leaked, seen_prints
from stacknorm.evaluation.metrics import score
from stacknorm.evaluation.paired import Paired, compare_answers
from stacknorm.evaluation.part import accuracy_on
from stacknorm.evaluation.protocol import Protocol, write_protocol
from stacknorm.evaluation.trial import Question, ask_engine, read_sheet, task_of
from stacknorm.text import fingerprints

_DISAGREEMENTS = 20


@dataclass(frozen=True, slots=True)
class LabelPair:
    """Rows that the two give different labels."""

    first: str
    second: str
    rows: int
    first_right: int
    second_right: int


@dataclass(frozen=True, slots=True)
class RateShift:
    """How often one label is given."""

    label: str
    true: float
    """Share of rows that have it."""
    first: float
    second: float
    difference: Interval
    """Second less first."""


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
class Match:
    """Both on one set of rows."""

    rows: int
    first: Mapping[str, Interval]
    """Metric -> value with interval."""
    second: Mapping[str, Interval]
    paired: Paired
    """The second less the first."""
    disagreeing: int
    pairs: tuple[LabelPair, ...]
    """The commonest first."""
    rates: tuple[RateShift, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two bundles on one file."""

    names: tuple[str, str]
    """What the two are called here; `A` and `B` are put before equal names."""
    protocol: Protocol
    official: Match
    """On all rows of the file."""
    clean: Match | None
    """On rows that neither was trained on; none where that is not known of both, or no row is left."""
    leaks: tuple[Leaks, Leaks]
    disagreements: tuple[Disagreement, ...]
    """The rows on which their probabilities lie furthest apart, of those they label differently."""
    costs: Costs

    @property
    def decisive(self) -> Match:
        """The match that decides: on clean rows where these are known."""
        return self.clean or self.official


def compare_bundles(first: str, second: str, question: Question, now: datetime) -> Comparison:
    """Ask two bundles the same question, each in the form it would run in: as a cascade where it has one.

    Raises:
        BundleError: a bundle cannot be loaded.
        DataError: the file cannot be used, a bundle lacks the task, or their labels for it differ.
    """
    bundles = load_bundle(first), load_bundle(second)
    spec = task_of(bundles[0], question.task)
    _check_alike(bundles, question.task)
    sheet = read_sheet(spec, question)
    engines = tuple(Engine.load(bundle.root, language_guard=False) for bundle in bundles)
    ours, theirs = (ask_engine(engine, question.task, sheet, spec.labels)[0] for engine in engines)
    names = _name_apart(*(engine.identity.name for engine in engines))
    prints = fingerprints(sheet.row_texts)
    leaked = [find_leaked(prints, seen_prints(bundle, question.training_files)) for bundle in bundles]
    clean = None if leaked[0] is None or leaked[1] is None else ~(leaked[0] | leaked[1])
    audits = [
        audit(prints, sheet.documents, sheet.truth.tolist(), seen, accuracy_on(answers, seen))
        for answers, seen in zip((ours, theirs), leaked, strict=True)
    ]
    return Comparison(
        names=names,
        protocol=write_protocol(question, list(zip(bundles, engines, strict=True)), len(sheet.truth), now),
        official=match(ours, theirs),
        clean=match(ours.only(clean), theirs.only(clean)) if clean is not None and clean.any() else None,
        leaks=(audits[0], audits[1]),
        disagreements=widest_disagreements(ours, theirs, sheet.shown, _DISAGREEMENTS),
        costs=measure_costs(dict(zip(names, engines, strict=True)), sheet.texts, sheet.mentions),
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
    ours, theirs = first.guess[:, None] == places, second.guess[:, None] == places  # [n, labels]
    moved = theirs.astype(np.float64) - ours
    shifts = first.bootstrap.intervals(lambda samples: weighted_mean(moved, samples).T)
    return tuple(
        RateShift(label, float(truth), float(one), float(other), shift)
        for label, truth, one, other, shift in zip(
            first.labels,
            (first.truth[:, None] == places).mean(axis=0),
            ours.mean(axis=0),
            theirs.mean(axis=0),
            shifts,
            strict=True,
        )
    )


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


def _check_alike(bundles: tuple[Bundle, Bundle], task: str) -> None:
    first, second = (task_of(bundle, task) for bundle in bundles)
    if set(first.labels) != set(second.labels) or first.kind != second.kind:
        raise DataError(
            f"the two cannot be compared on {task}: {bundles[0].manifest.name} labels {first.kind} rows "
            f"{', '.join(first.labels)}, {bundles[1].manifest.name} {second.kind} rows {', '.join(second.labels)}"
        )


def _name_apart(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first != second else (f"A {first}", f"B {second}")
