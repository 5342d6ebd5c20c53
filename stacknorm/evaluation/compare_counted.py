"""Two bundles on the same texts, of any number of labels or spans each: which is better, and where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from stacknorm.evaluation.bootstrap import Bootstrap, Rows
from stacknorm.evaluation.compare_pair import (
    MOST_DISAGREEMENTS,
    Compared,
    Matched,
    Pair,
    both,
    compare_rates,
    load_alike,
)
from stacknorm.evaluation.counted import (
    Found,
    LabelScore,
    compare_counts,
    count_given,
    count_true,
    find_all,
    micro_on,
    read_counted,
    score_counts,
)
from stacknorm.evaluation.paired import PairedCounts
from stacknorm.evaluation.trial import Question, task_of
from stacknorm.spans.score import Counts, count_spans


@dataclass(frozen=True, slots=True)
class Finding:
    """A label of a text, or of a span in it."""

    label: str
    start: int
    end: int
    words: str
    """`text[start:end]`; empty where the label is that of the whole text."""


@dataclass(frozen=True, slots=True)
class CountedDisagreement:
    """One text, what is true of it and what each finds, from left to right."""

    text: str
    apart: int
    """How many labels or spans just one of both finds."""
    truth: tuple[Finding, ...]
    first: tuple[Finding, ...]
    second: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class CountedMatch(Matched):
    """Both on one set of texts."""

    paired: PairedCounts
    first_labels: tuple[LabelScore, ...]
    second_labels: tuple[LabelScore, ...]


@dataclass(frozen=True, slots=True)
class CountedComparison(Compared[CountedMatch, CountedDisagreement]):
    """Two bundles on one file, for a task with any number of labels or spans a text."""

    mended: int
    """Texts of the file whose annotations had to be mended to be read."""


def compare_counted(first: str, second: str, question: Question, now: datetime) -> CountedComparison:
    """Ask two bundles the same question, each in the form it would run in; strict on both ends of a span.

    Raises:
        BundleError: a bundle cannot be loaded.
        DataError: the file cannot be used, a bundle lacks the task, or their labels for it differ.
    """
    bundles = load_alike(first, second, question.task)
    spec = task_of(bundles[0], question.task)
    sheet = read_counted(spec, question)
    pair = Pair.start(question, bundles)
    found = both(lambda engine: find_all(engine, question.task, sheet), pair.engines)
    ours, theirs = both(lambda one: count_spans(one, sheet.truth, spec.labels), found)
    leaks, clean = pair.audit(sheet.texts, np.arange(len(sheet.texts)), sheet.truth, (ours, theirs), micro_on)
    apart = count_apart(*found)
    return CountedComparison(
        names=pair.names,
        protocol=pair.write_protocol(len(sheet.texts), now),
        official=match_counts(ours, theirs, apart, spec.labels),
        clean=None if clean is None else match_counts(ours[clean], theirs[clean], apart[clean], spec.labels),
        leaks=leaks,
        disagreements=furthest_apart(sheet.texts, sheet.truth, *found, MOST_DISAGREEMENTS),
        costs=pair.measure_costs(sheet.texts, sheet.mentions),
        mended=sheet.mended,
    )


def match_counts(first: Counts, second: Counts, apart: Rows, labels: Sequence[str]) -> CountedMatch:
    """Score two systems on the same texts, of which each holds so many findings of just one of them, [n]."""
    ours, theirs = both(lambda counts: score_counts(counts, labels, (first, second)), (first, second))
    given = both(count_given, (first, second))
    return CountedMatch(
        rows=len(first),
        first=ours.averages,
        second=theirs.averages,
        paired=compare_counts(second, first),
        disagreeing=int((apart > 0).sum()),
        rates=compare_rates(labels, count_true(first), *given, Bootstrap.of_rows(len(first))),
        first_labels=ours.labels,
        second_labels=theirs.labels,
    )


def count_apart(first: Sequence[Found], second: Sequence[Found]) -> Rows:
    """How many labels or spans of each text just one of both finds, [n]."""
    return np.array([len(ours ^ theirs) for ours, theirs in zip(first, second, strict=True)], dtype=np.int64)


def furthest_apart(
    texts: Sequence[str], truth: Sequence[Found], first: Sequence[Found], second: Sequence[Found], most: int
) -> tuple[CountedDisagreement, ...]:
    """Texts of which the two do not say the same, those first on which most is found by just one."""
    apart = count_apart(first, second)
    order = [row for row in np.argsort(-apart, kind="stable").tolist() if apart[row]]
    return tuple(
        CountedDisagreement(
            texts[row], int(apart[row]), *(_in_order(texts[row], found[row]) for found in (truth, first, second))
        )
        for row in order[:most]
    )


def _in_order(text: str, found: Found) -> tuple[Finding, ...]:
    return tuple(Finding(label, start, end, text[start:end]) for start, end, label in sorted(found))
