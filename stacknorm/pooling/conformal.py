"""Conformal sets: the labels that cannot be ruled out for a text, at a coverage promised for every label by itself.

Split conformal prediction with a threshold for each label (Mondrian; Vovk et al. 2005, section 4.5; Sadinle et al.
2019): where calibration and new rows are exchangeable, the set holds the true label with probability at least
1 - alpha, given that label. A promise over all rows together would let a common label pay for a rare one.

A label with fewer than 1 / alpha - 1 calibration rows allows no such promise. To rule it out nowhere would be safe and
useless: one such label among twenty is in every set, and no text is ever labelled with one label alone. It shares its
promise with the next rarest labels instead (Ding et al. 2023, section 3.2, do so with all rare ones).
"""

from dataclasses import dataclass
from math import ceil
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stacknorm.frozen import Frozen
from stacknorm.pooling.held_out import Truth
from stacknorm.pooling.pool import Probabilities

Sets = npt.NDArray[np.bool_]
"""Which labels are in each row's set, [n, c]."""

_ROUNDING = 1e-9


class ClassConditional(Frozen):
    """Thresholds of the score 1 - p, one for each label."""

    alpha: float = Field(gt=0, lt=1)
    """The share of rows of each label whose set may lack it."""
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=2)
    """1 rules a label out nowhere."""
    shared: tuple[int, ...] = ()
    """Positions of the labels that had too few rows: the promise holds for each and the next rarest together."""

    def __call__(self, probabilities: Probabilities) -> Sets:
        """Find the labels that cannot be ruled out, [n, c] -> [n, c]; none at all is possible."""
        return np.asarray(1 - probabilities <= np.asarray(self.thresholds))


def fit_class_conditional(probabilities: Probabilities, truth: Truth, alpha: float) -> ClassConditional:
    """Find the thresholds: of each label's n scores the ceil((n + 1)(1 - alpha))-th smallest.

    A label with fewer than 1 / alpha - 1 rows counts those of the rarest labels as its own until there are enough;
    where all rows are too few, no label is ever ruled out.

    Args:
        probabilities: calibrated, on rows that neither members nor pool nor calibrator were fitted on, [n, c]
            (`Choice.probabilities`).
        truth: labels [n].
        alpha: the share of rows of each label that may be missed, such as 0.1.
    """
    scores = 1 - probabilities[np.arange(len(truth)), truth]
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    least = ceil(1 / alpha - 1 - _ROUNDING)
    rarest = np.argsort(counts, kind="stable")
    thresholds = []
    for label in range(len(counts)):
        counted = truth == label
        for other in rarest:
            if counted.sum() < least:
                counted = counted | (truth == other)
        thresholds.append(_quantile(scores[counted], alpha))
    return ClassConditional(
        alpha=alpha, thresholds=tuple(thresholds), shared=tuple(np.flatnonzero(counts < least).tolist())
    )


@dataclass(frozen=True, slots=True)
class SetMeasures:
    """How conformal sets do on some rows."""

    rows: int
    coverage: float
    """Share of rows whose set holds the true label."""
    mean_size: float
    abstention_rate: float
    """Share of rows whose set is not one label."""
    accuracy_kept: float | None
    """Share of the other rows whose one label is the true one; None where there are none."""


def measure_sets(sets: Sets, truth: Truth) -> SetMeasures:
    """Measure sets [n, c] against labels [n], n at least 1."""
    covered = sets[np.arange(len(truth)), truth]
    sizes = sets.sum(axis=1)
    kept = sizes == 1
    return SetMeasures(
        rows=len(truth),
        coverage=float(covered.mean()),
        mean_size=float(sizes.mean()),
        abstention_rate=float((~kept).mean()),
        accuracy_kept=float(covered[kept].mean()) if kept.any() else None,
    )


def measure_sets_by_label(sets: Sets, truth: Truth) -> dict[int, SetMeasures]:
    """Measure the rows of each true label by themselves; labels without rows are missing."""
    return {int(label): measure_sets(sets[truth == label], truth[truth == label]) for label in np.unique(truth)}


def _quantile(scores: Probabilities, alpha: float) -> float:
    # (n + 1)(1 - alpha) that is whole must not be rounded up past itself by its last bit.
    rank = ceil((len(scores) + 1) * (1 - alpha) - _ROUNDING)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0
