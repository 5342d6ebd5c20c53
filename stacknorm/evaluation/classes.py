"""Which labels a system knows, which it takes for others, and when its confidence can be believed."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stacknorm.bundle import Interval
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import LEVELS, RESAMPLES, SEED
from stacknorm.evaluation.metrics import ECE_BINS, bin_of, binned_gap, risk_at

_COVERAGES = tuple(step / 20 for step in range(1, 21))


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One label."""

    label: str
    precision: float
    """0 where the label was never given."""
    recall: float
    f1: float
    rows: int
    """That truly have the label."""
    given: int
    """That were given the label."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose confidence lies between `low` and `high`."""

    low: float
    high: float
    rows: int
    confidence: float
    """Their mean confidence."""
    accuracy: Interval
    """With its Wilson interval."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left when only the most confident rows are answered."""

    coverage: float
    """The share that is answered."""
    confidence: float
    """The least confidence among them."""
    risk: Interval
    """Their error rate."""


def score_classes(answers: Answers) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of every label, in the order of the label space."""
    positions = range(len(answers.labels))
    columns = precision_recall_fscore_support(answers.truth, answers.guess, labels=positions, zero_division=0)
    given = np.bincount(answers.guess, minlength=len(answers.labels))
    return tuple(
        ClassScore(label, float(precision), float(recall), float(f1), int(rows), int(said))
        for label, precision, recall, f1, rows, said in zip(answers.labels, *columns, given, strict=True)
    )


def confuse(answers: Answers) -> tuple[tuple[int, ...], ...]:
    """Rows by true label (down) and given label (across)."""
    matrix = confusion_matrix(answers.truth, answers.guess, labels=range(len(answers.labels)))
    return tuple(tuple(int(count) for count in row) for row in matrix)


def reliability(answers: Answers) -> tuple[Bin, ...]:
    """Accuracy against confidence in 15 bins of equal width; bins without rows are left out."""
    bins, confidence, right = bin_of(answers.confidence), answers.confidence, answers.right
    return tuple(
        Bin(
            low=place / ECE_BINS,
            high=(place + 1) / ECE_BINS,
            rows=int((bins == place).sum()),
            confidence=float(confidence[bins == place].mean()),
            accuracy=_wilson(int(right[bins == place].sum()), int((bins == place).sum())),
        )
        for place in np.unique(bins).tolist()
    )


def _wilson(hits: int, rows: int) -> Interval:
    found = binomtest(hits, rows).proportion_ci(method="wilson")
    return Interval(value=hits / rows, low=max(0.0, float(found.low)), high=min(1.0, float(found.high)))


def ece_if_calibrated(answers: Answers) -> Interval:
    """The ECE that a perfectly calibrated system with these confidences would show on so many rows.

    Finite rows alone give an ECE above zero. Truths are drawn from the confidences themselves (consistency
    resampling, Bröcker & Smith 2007); the value is the mean over draws.
    """
    random = np.random.default_rng(SEED)
    confidence, once = answers.confidence, np.ones((1, len(answers.truth)))
    drawn = [
        float(binned_gap(confidence, (random.uniform(size=len(confidence)) < confidence).astype(np.float64), once)[0])
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, LEVELS)
    return Interval(value=float(np.mean(drawn)), low=float(low), high=float(high))


def risk_coverage(answers: Answers) -> tuple[Kept, ...]:
    """Error rate of the most confident rows at every twentieth of coverage, with bootstrap intervals."""
    risks = answers.bootstrap.intervals(
        lambda samples: np.stack(
            [risk_at(answers.probabilities, answers.truth, coverage, samples) for coverage in _COVERAGES]
        )
    )
    down = np.sort(answers.confidence)[::-1]
    return tuple(
        Kept(coverage, float(down[int(np.ceil(coverage * len(down) - 1e-9)) - 1]), risk)
        for coverage, risk in zip(_COVERAGES, risks, strict=True)
    )
