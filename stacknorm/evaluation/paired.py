"""Is one system better than another on the same rows? Paired intervals and McNemar's exact test."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from stacknorm.bundle import Interval
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import weighted_mean
from stacknorm.evaluation.metrics import row_hits, row_nll

Verdict = Literal["better", "worse", "undecided"]

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Paired:
    """One system, `ours`, less another on the same rows."""

    accuracy: Interval
    """Above zero ours is better."""
    nll: Interval
    """In nats; below zero ours is better."""
    only_ours_right: int
    only_theirs_right: int
    mcnemar_p: float
    """That rows on which just one is right would split so unevenly if both were as good; two-sided, exact."""
    verdict: Verdict
    """Of ours: by McNemar's test where it is significant; where the counts do not tell, by the interval of the NLL."""


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """One system, `ours`, less another on the same texts, where a text has any number of labels or spans."""

    micro_f1: Interval
    """Above zero ours is better."""
    verdict: Verdict
    """Of ours: by the interval, for a text is not right or wrong as a whole, as McNemar's test would have it."""


def compare_answers(ours: Answers, theirs: Answers) -> Paired:
    """Compare two systems row by row.

    Raises:
        DataError: they did not answer the same rows.
    """
    if ours.labels != theirs.labels or (ours.truth != theirs.truth).any():
        raise DataError("two systems can only be compared on the same rows and labels")
    hits = row_hits(ours.probabilities, ours.truth) - row_hits(theirs.probabilities, theirs.truth)
    losses = row_nll(ours.probabilities, ours.truth) - row_nll(theirs.probabilities, theirs.truth)
    draw = ours.bootstrap
    accuracy, nll = draw.intervals(
        lambda samples: np.stack([weighted_mean(hits, samples), weighted_mean(losses, samples)])
    )
    only_ours, only_theirs = int((hits > 0).sum()), int((hits < 0).sum())
    p = mcnemar(only_ours, only_theirs)
    lead = only_ours - only_theirs if p < SIGNIFICANCE else -side_of_zero(nll)
    return Paired(
        accuracy=accuracy,
        nll=nll,
        only_ours_right=only_ours,
        only_theirs_right=only_theirs,
        mcnemar_p=p,
        verdict=judge(lead),
    )


def judge(lead: int) -> Verdict:
    """A lead of ours, if above zero, or of theirs, if below."""
    return "better" if lead > 0 else "worse" if lead < 0 else "undecided"


def side_of_zero(found: Interval) -> int:
    """1 or -1 where the whole interval lies above or below zero, else 0."""
    return int(found.low > 0) - int(found.high < 0)


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """Exact two-sided p-value of McNemar's test (McNemar 1947) on the rows where just one of two systems is right."""
    split = only_ours + only_theirs
    return float(binomtest(only_ours, split).pvalue) if split else 1.0
