"""Tasks that give a text any number of labels, or labelled spans: scored by what was found, wrongly found and missed.

Counts are texts x labels x (found, wrongly found, missed), [n, k, 3], as `stacknorm.spans.score` has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from stacknorm.bundle import Interval, TaskSpec, load_bundle
from stacknorm.dataset import read_multi, read_spans
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Chosen
from stacknorm.evaluation.bootstrap import Bootstrap, Rows, Samples, Values
from stacknorm.evaluation.cost import Costs, load_members, measure_costs
from stacknorm.evaluation.leaks import Leaks, audit, find_leaked, seen_prints, split_off
from stacknorm.evaluation.paired import PairedCounts, judge, side_of_zero
from stacknorm.evaluation.protocol import Protocol, write_protocol
from stacknorm.evaluation.trial import Question, task_of
from stacknorm.prediction import Prediction
from stacknorm.spans.score import Counts, Exact, count_spans
from stacknorm.text import fingerprints

STACK = "stack"
COUNTED_KINDS = ("multi", "spans")
MULTI_THRESHOLD = 0.5
"""Probability from which a label of a `multi` task counts as given."""

Found = frozenset[Exact]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label, or type of span."""

    label: str
    precision: float
    """0 where it was never given."""
    recall: float
    """0 where there was nothing to find."""
    f1: Interval
    true: int
    """How often it was there to be found."""
    given: int


@dataclass(frozen=True, slots=True)
class CountScores:
    """One system on some texts."""

    precision: Interval
    recall: Interval
    micro_f1: Interval
    macro_f1: Interval
    """Over the labels that are true somewhere, or given by any system it is compared with."""
    labels: tuple[LabelScore, ...]

    @property
    def averages(self) -> dict[str, Interval]:
        """Metric -> value with interval, of all labels together."""
        return {
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "precision": self.precision,
            "recall": self.recall,
        }


@dataclass(frozen=True, slots=True)
class CountPart:
    """A stack and its members on one set of texts."""

    rows: int
    systems: Mapping[str, CountScores]
    """`stack`, then each member alone."""
    best_member: str
    difference: Interval | None
    """Micro F1 of the stack less that of its best member, texts drawn together; None where that is no member but a
    channel, which cannot be asked alone."""


@dataclass(frozen=True, slots=True)
class CountedEvaluation:
    """Scores of a bundle on one file, for a task with any number of labels or spans a text."""

    protocol: Protocol
    official: CountPart
    """On all texts of the file."""
    clean: CountPart | None
    """On texts that were not trained on; none where that is not known, or every text was."""
    leaks: Leaks
    mended: int
    """Texts of the file whose annotations had to be mended to be read."""
    costs: Costs | None


@dataclass(frozen=True, slots=True)
class CountedSheet:
    """The texts of a file, and what is true of each; a label of a whole text is a span from 0 to 0."""

    texts: tuple[str, ...]
    truth: tuple[Found, ...]
    mended: int

    @property
    def mentions(self) -> tuple[tuple[()], ...]:
        """None: no entity is asked about."""
        return ((),) * len(self.texts)


def evaluate_counted(name: str, question: Question, now: datetime, *, with_costs: bool = True) -> CountedEvaluation:
    """Evaluate a bundle on a file for a task of the kinds `multi` and `spans`; strict on both ends of a span.

    Raises:
        BundleError: the bundle cannot be loaded.
        DataError: the file cannot be used, or the bundle has no such task.
    """
    bundle = load_bundle(name)
    spec = task_of(bundle, question.task)
    sheet = read_counted(spec, question)
    stack = Engine.load(bundle.root, form="width", language_guard=False)
    engines = {STACK: stack, **load_members(bundle, bundle.manifest.members_of(question.task), stack)}
    counts = {
        system: count_spans(find_all(engine, question.task, sheet), sheet.truth, spec.labels)
        for system, engine in engines.items()
    }
    prints = fingerprints(list(sheet.texts))
    leaked = find_leaked(prints, seen_prints(bundle, question.training_files))
    clean = split_off(leaked)
    return CountedEvaluation(
        protocol=write_protocol(question, [(bundle, stack)], len(sheet.texts), now),
        official=score_count_part(counts, spec.labels, spec.best_member),
        clean=None if clean is None else score_count_part(_only(counts, clean), spec.labels, spec.best_member),
        leaks=audit(prints, np.arange(len(prints)), sheet.truth, leaked, micro_on(counts[STACK], leaked)),
        mended=sheet.mended,
        costs=measure_costs(engines, sheet.texts, sheet.mentions) if with_costs else None,
    )


def score_count_part(counts: Mapping[str, Counts], labels: Sequence[str], best_member: str) -> CountPart:
    """Score all systems on the same texts."""
    ours, all_counts = counts[STACK], tuple(counts.values())
    return CountPart(
        rows=len(ours),
        systems={name: score_counts(given, labels, all_counts) for name, given in counts.items()},
        best_member=best_member,
        difference=compare_counts(ours, counts[best_member]).micro_f1 if best_member in counts else None,
    )


def compare_counts(ours: Counts, theirs: Counts) -> PairedCounts:
    """Compare two systems on the same texts, drawn together.

    Raises:
        DataError: they did not answer the same texts.
    """
    if not np.array_equal(count_true(ours), count_true(theirs)):
        raise DataError("two systems can only be compared on the same texts and labels")
    found = Bootstrap.of_rows(len(ours)).interval(lambda samples: _micro(ours, samples) - _micro(theirs, samples))
    return PairedCounts(found, judge(side_of_zero(found)))


def count_true(counts: Counts) -> Rows:
    """What there was to find, [..., 3] -> [...]."""
    return np.asarray(counts[..., 0] + counts[..., 2])


def count_given(counts: Counts) -> Rows:
    """What was given, rightly or wrongly, [..., 3] -> [...]."""
    return np.asarray(counts[..., 0] + counts[..., 1])


def score_counts(counts: Counts, labels: Sequence[str], beside: Sequence[Counts] = ()) -> CountScores:
    """Micro, macro and each label, with intervals over the texts.

    Args:
        counts: of the system.
        labels: of the task, [k].
        beside: of those it is compared with, on the same texts: the macro average of all is over the same labels.
    """
    whole = counts.sum(axis=0)  # [k, 3]
    used = np.any([given.any(axis=(0, 2)) for given in (counts, *beside)], axis=0)

    def all_scores(samples: Samples) -> Values:
        totals = _totals(counts, samples)
        micro, each = totals.sum(axis=1), _f1(totals)  # [b, 3], [b, k]
        macro = each[:, used].mean(axis=1) if used.any() else np.zeros(len(samples))
        return np.stack([_precision(micro), _recall(micro), _f1(micro), macro, *each.T])

    precision, recall, micro, macro, *each = Bootstrap.of_rows(len(counts)).intervals(all_scores)
    return CountScores(
        precision=precision,
        recall=recall,
        micro_f1=micro,
        macro_f1=macro,
        labels=tuple(
            LabelScore(
                label,
                float(_precision(whole[place])),
                float(_recall(whole[place])),
                each[place],
                true=int(count_true(whole[place])),
                given=int(count_given(whole[place])),
            )
            for place, label in enumerate(labels)
        ),
    )


def _totals(counts: Counts, samples: Samples) -> Values:
    """Counts of each sample, [n, k, 3] -> [b, k, 3]."""
    return np.asarray((samples @ counts.reshape(len(counts), -1)).reshape(len(samples), *counts.shape[1:]))


def _micro(counts: Counts, samples: Samples) -> Values:
    """F1 over all labels in each sample, [b]."""
    return _f1(_totals(counts, samples).sum(axis=1))


def _precision(counts: Values) -> Values:
    """Found of all given, [..., 3] -> [...]; 0 where nothing was given."""
    return np.asarray(counts[..., 0] / np.maximum(counts[..., 0] + counts[..., 1], 1))


def _recall(counts: Values) -> Values:
    return np.asarray(counts[..., 0] / np.maximum(counts[..., 0] + counts[..., 2], 1))


def _f1(counts: Values) -> Values:
    return np.asarray(2 * counts[..., 0] / np.maximum(2 * counts[..., 0] + counts[..., 1] + counts[..., 2], 1))


def _only(counts: Mapping[str, Counts], chosen: Chosen) -> dict[str, Counts]:
    return {name: given[chosen] for name, given in counts.items()}


def micro_on(counts: Counts, chosen: Chosen | None) -> Interval | None:
    """Micro F1 on the chosen texts, [n]; None where there are none."""
    if chosen is None or not chosen.any():
        return None
    some = counts[chosen]
    return Bootstrap.of_rows(len(some)).interval(lambda samples: _micro(some, samples))


def read_counted(spec: TaskSpec, question: Question) -> CountedSheet:
    """Read the rows of a file for a task of the kinds `multi` and `spans`.

    Raises:
        DataError: the file cannot be used; names file, line and problem.
    """
    space = spec.space(question.task)
    if spec.kind == "multi":
        rows = read_multi(question.data, space)
        labels = tuple(frozenset((0, 0, space.labels[place]) for place in row.labels) for row in rows)
        return CountedSheet(tuple(row.text for row in rows), labels, 0)
    annotated = read_spans(question.data, space)
    spans = tuple(
        frozenset((span.start, span.end, space.labels[span.label_index]) for span in row.spans) for row in annotated
    )
    return CountedSheet(tuple(row.text for row in annotated), spans, sum(bool(row.mended) for row in annotated))


def find_all(engine: Engine, task: str, sheet: CountedSheet) -> tuple[Found, ...]:
    """What an engine finds in every text."""
    return tuple(_found(prediction, task) for prediction in engine.predict(sheet.texts, sheet.mentions))


def _found(prediction: Prediction, task: str) -> Found:
    if task in prediction.spans:
        return frozenset((span.start, span.end, span.label) for span in prediction.spans[task])
    shares = prediction.tasks[task].probabilities
    return frozenset((0, 0, label) for label, share in shares.items() if share >= MULTI_THRESHOLD)
