"""Scores of probabilistic labels, and bootstrap intervals for them.

Every score here is a function of counts of rows, so a bootstrap sample is a vector of counts and all samples are
scored by one matrix product. Shapes: probabilities [n, c], truth [n], samples [b, n] (how often each row counts).
"""

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import Interval
from stacknorm.pooling.pool import Probabilities

Truth = npt.NDArray[np.int64]
Samples = npt.NDArray[np.float64]

ECE_BINS = 15
_RESAMPLES = 1000
_LEVELS = (2.5, 97.5)
_TINY = 1e-12


def row_nll(probabilities: Probabilities, truth: Truth) -> Probabilities:
    """Negative log-likelihood of each row in nats, [n]."""
    return np.asarray(-np.log(probabilities[np.arange(len(truth)), truth] + _TINY))


def nll(probabilities: Probabilities, truth: Truth) -> float:
    """Mean negative log-likelihood in nats."""
    return float(row_nll(probabilities, truth).mean())


def draw_samples(rows: int, seed: int) -> Samples:
    """How often each of `rows` rows is drawn in each bootstrap sample; [b, rows], each row of it summing to `rows`."""
    random = np.random.default_rng(seed)
    return random.multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES).astype(np.float64)


def accuracy(probabilities: Probabilities, truth: Truth, samples: Samples) -> Probabilities:
    """Share of rows whose likeliest label is the true one, [b]."""
    return _mean((probabilities.argmax(axis=1) == truth).astype(np.float64), samples)


def macro_f1(probabilities: Probabilities, truth: Truth, samples: Samples) -> Probabilities:
    """F1 averaged over the labels that occur in `truth`, [b]."""
    guess = probabilities.argmax(axis=1)
    classes = np.unique(truth)
    said, was = guess[:, None] == classes, truth[:, None] == classes  # [n, classes]
    hit, claims = samples @ (said & was), samples @ said.astype(float) + samples @ was.astype(float)
    return np.asarray((2 * hit / claims.clip(min=1)).mean(axis=1))


def mean_nll(probabilities: Probabilities, truth: Truth, samples: Samples) -> Probabilities:
    """Negative log-likelihood in nats, [b]."""
    return _mean(row_nll(probabilities, truth), samples)


def brier(probabilities: Probabilities, truth: Truth, samples: Samples) -> Probabilities:
    """Squared distance to the true label's corner of the simplex, between 0 and 2, [b]."""
    target = np.eye(probabilities.shape[1])[truth]
    return _mean(((probabilities - target) ** 2).sum(axis=1), samples)


def ece(probabilities: Probabilities, truth: Truth, samples: Samples) -> Probabilities:
    """Expected calibration error of the likeliest label over 15 bins of equal width (Guo et al. 2017), [b]."""
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == truth) - confidence
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    inside = (bins[:, None] == np.arange(ECE_BINS)) * gap[:, None]  # [n, bins]
    return np.asarray(np.abs(samples @ inside).sum(axis=1) / samples.sum(axis=1))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1, "nll": mean_nll, "brier": brier, "ece": ece}


def _mean(values: Probabilities, samples: Samples) -> Probabilities:
    return np.asarray(samples @ values / samples.sum(axis=1))


def score(probabilities: Probabilities, truth: Truth, seed: int = 0) -> dict[str, Interval]:
    """Every metric with its 95 % percentile bootstrap interval."""
    samples, once = draw_samples(len(truth), seed), np.ones((1, len(truth)))
    return {
        name: interval(float(metric(probabilities, truth, once)[0]), metric(probabilities, truth, samples))
        for name, metric in METRICS.items()
    }


def interval(value: float, resampled: Probabilities) -> Interval:
    """A value with the interval that its bootstrap values [b] span."""
    low, high = np.percentile(resampled, _LEVELS)
    return Interval(value=round(value, 5), low=round(float(low), 5), high=round(float(high), 5))


def paired_nll(ours: Probabilities, theirs: Probabilities, truth: Truth, seed: int = 0) -> Interval:
    """NLL of `ours` less NLL of `theirs`, rows drawn together; below zero means ours is better."""
    differences = row_nll(ours, truth) - row_nll(theirs, truth)
    return interval(float(differences.mean()), _mean(differences, draw_samples(len(truth), seed)))
