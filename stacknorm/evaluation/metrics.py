"""Scores of probabilistic labels, each a function of counts of rows, so that it can be resampled.

Shapes: probabilities [n, c], truth [n], samples [b, n] (how often each row counts); every metric gives [b].
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import Interval
from stacknorm.evaluation.bootstrap import Bootstrap, Samples, Values, weighted_mean
from stacknorm.pooling.pool import Probabilities

Truth = npt.NDArray[np.int64]
Metric = Callable[[Probabilities, Truth, Samples], Values]

ECE_BINS = 15
_TINY = 1e-12


def row_nll(probabilities: Probabilities, truth: Truth) -> Probabilities:
    """Negative log-likelihood of each row in nats, [n]."""
    return np.asarray(-np.log(probabilities[np.arange(len(truth)), truth] + _TINY))


def row_hits(probabilities: Probabilities, truth: Truth) -> Probabilities:
    """1 for each row whose likeliest label is the true one, else 0; [n]."""
    return np.asarray(probabilities.argmax(axis=1) == truth, dtype=np.float64)


def nll(probabilities: Probabilities, truth: Truth) -> float:
    """Mean negative log-likelihood in nats."""
    return float(row_nll(probabilities, truth).mean())


def accuracy(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Share of rows whose likeliest label is the true one."""
    return weighted_mean(row_hits(probabilities, truth), samples)


def macro_f1(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """F1 averaged over the labels that occur in `truth`."""
    guess = probabilities.argmax(axis=1)
    classes = np.unique(truth)
    said, was = guess[:, None] == classes, truth[:, None] == classes  # [n, classes]
    hit, claims = samples @ (said & was), samples @ said.astype(float) + samples @ was.astype(float)
    return np.asarray((2 * hit / claims.clip(min=1)).mean(axis=1))


def mean_nll(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Negative log-likelihood in nats."""
    return weighted_mean(row_nll(probabilities, truth), samples)


def brier(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Squared distance to the true label's corner of the simplex, between 0 and 2."""
    target = np.eye(probabilities.shape[1])[truth]
    return weighted_mean(((probabilities - target) ** 2).sum(axis=1), samples)


def ece(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Expected calibration error of the likeliest label over 15 bins of equal width (Guo et al. 2017)."""
    return binned_gap(probabilities.max(axis=1), row_hits(probabilities, truth), samples)


def classwise_ece(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Calibration error of every label's probability, averaged over the labels (Kull et al. 2019, section 2)."""
    classes = range(probabilities.shape[1])
    gaps = [binned_gap(probabilities[:, c], (truth == c).astype(np.float64), samples) for c in classes]
    return np.asarray(np.mean(gaps, axis=0))


def aurc(probabilities: Probabilities, truth: Truth, samples: Samples) -> Values:
    """Area under the risk-coverage curve: the mean error rate over all shares of most confident rows kept.

    Geifman & El-Yaniv 2017; rows of equal confidence are kept or left together.
    """
    kept, wrong, weights = _by_confidence(probabilities, truth, samples)
    risk = np.divide(wrong, kept, out=np.zeros_like(wrong), where=kept > 0)
    return np.asarray((risk * weights).sum(axis=1) / kept[:, -1].clip(min=1))


def risk_at(probabilities: Probabilities, truth: Truth, coverage: float, samples: Samples) -> Values:
    """Error rate of the most confident rows when at least a share of `coverage` is kept."""
    kept, wrong, _ = _by_confidence(probabilities, truth, samples)
    enough = (kept < coverage * kept[:, -1:] - _TINY).sum(axis=1)
    at = np.arange(len(kept)), enough
    return np.asarray(wrong[at] / kept[at].clip(min=1))


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "nll": mean_nll,
    "brier": brier,
    "ece": ece,
    "classwise_ece": classwise_ece,
    "aurc": aurc,
}


SPAN_METRICS = ("span_f1", "span_precision", "span_recall")
"""Strict scores of a `spans` task, whose other metrics are about tags of words."""

_SHOWN = {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
_SHOWN_OF_SPANS = dict(zip(SPAN_METRICS, ("span F1", "precision", "recall"), strict=True)) | {
    "accuracy": "accuracy of tags",
    "nll": "NLL of tags",
}


def shown_metrics(scores: Mapping[str, Mapping[str, Interval]]) -> Mapping[str, str]:
    """Metric -> how it is called, for what tables show of a task's scores (system -> metric -> value)."""
    return _SHOWN_OF_SPANS if all(SPAN_METRICS[0] in metrics for metrics in scores.values()) else _SHOWN


def score(probabilities: Probabilities, truth: Truth, bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
    """Every metric with its 95 % percentile bootstrap interval.

    Args:
        probabilities: [n, c].
        truth: [n].
        bootstrap: how rows are drawn; by themselves unless given.
    """

    def all_metrics(samples: Samples) -> Values:
        return np.stack([metric(probabilities, truth, samples) for metric in METRICS.values()])

    found = (bootstrap or Bootstrap.of_rows(len(truth))).intervals(all_metrics)
    return dict(zip(METRICS, found, strict=True))


def bin_of(probability: Probabilities) -> Truth:
    """The bin, of 15 of equal width, that each probability falls into."""
    return np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def binned_gap(said: Probabilities, was: Probabilities, samples: Samples) -> Values:
    """The distance between the means of `said` and `was` in each of 15 bins of `said`, averaged over rows.

    Args:
        said: probabilities, [n].
        was: 1 where what they are of came true, else 0; [n].
        samples: [b, n].
    """
    inside = (bin_of(said)[:, None] == np.arange(ECE_BINS)) * (was - said)[:, None]  # [n, bins]
    return np.asarray(np.abs(samples @ inside).sum(axis=1) / samples.sum(axis=1).clip(min=1))


def _by_confidence(probabilities: Probabilities, truth: Truth, samples: Samples) -> tuple[Values, Values, Values]:
    """Rows kept and wrong among them, counted down from the most confident, and rows at each step; each [b, steps]."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.diff(confidence[order], prepend=np.inf))
    wrong = 1 - row_hits(probabilities, truth)
    weights = np.add.reduceat(samples[:, order], starts, axis=1)
    errors = np.add.reduceat((samples * wrong)[:, order], starts, axis=1)
    return weights.cumsum(axis=1), errors.cumsum(axis=1), weights
