"""When a stack declines to answer: conformal sets of more than one label, and texts in another language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stacknorm.bundle import Manifest
from stacknorm.evaluation.answers import Answers
from stacknorm.language import LanguageGuard
from stacknorm.pooling.conformal import ClassConditional, SetMeasures, measure_sets, measure_sets_by_label

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class SetScores:
    """How a bundle's conformal sets do."""

    promised: float
    """The coverage they were fitted for, of every label by itself."""
    all_labels: SetMeasures
    by_label: Mapping[str, SetMeasures]
    """Of the labels that have rows."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Rows that would get no label in service, for they are certainly in a language the stack does not know."""

    rows: int
    right: int
    """Of those, how many the stack would have labelled right; they are among the rows scored."""
    examples: tuple[str, ...]


def score_sets(answers: Answers, conformal: ClassConditional | None) -> SetScores | None:
    """Measure conformal sets; None where a bundle has no thresholds."""
    if conformal is None:
        return None
    sets = conformal(answers.probabilities)
    by_label = measure_sets_by_label(sets, answers.truth)
    return SetScores(
        promised=1 - conformal.alpha,
        all_labels=measure_sets(sets, answers.truth),
        by_label={answers.labels[place]: found for place, found in by_label.items()},
    )


def find_withheld(manifest: Manifest, texts: Sequence[str], answers: Answers) -> Withheld:
    """Ask the language guard about every text; [n] texts and answers."""
    foreign = np.array([verdict.foreign for verdict in LanguageGuard(manifest.languages).judge(texts)], dtype=bool)
    examples = tuple(texts[row] for row in np.flatnonzero(foreign)[:_EXAMPLES])
    return Withheld(int(foreign.sum()), int((foreign & answers.right).sum()), examples)
