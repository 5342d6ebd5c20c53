"""Strict span scores: a span counts as found where type and both boundaries are exact (as seqeval's strict mode)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
"""Texts x types x (found, wrongly found, missed), [n, k, 3]: sums of rows give the counts of any sample of texts."""

Exact = tuple[int, int, str]
"""First character, one past the last, and type."""


@dataclass(frozen=True, slots=True)
class SpanScore:
    """Precision, recall and their harmonic mean; 0 where nothing could be found or was."""

    precision: float
    recall: float
    f1: float
    support: int
    """Spans in the truth."""


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Over all spans, averaged over types, and of each type."""

    micro: SpanScore
    macro: SpanScore
    """Over the types that stand in the truth or in the predictions."""
    types: dict[str, SpanScore]


def count_spans(
    predicted: Sequence[Collection[Exact]], truth: Sequence[Collection[Exact]], labels: Sequence[str]
) -> Counts:
    """Count for each text and type what was found, wrongly found and missed."""
    counts = np.zeros((len(truth), len(labels), 3), dtype=np.int64)
    kinds = {label: place for place, label in enumerate(labels)}
    for row, (said, true) in enumerate(zip(predicted, truth, strict=True)):
        for span in set(said) | set(true):
            outcome = 0 if span in said and span in true else 1 if span in said else 2
            counts[row, kinds[span[2]], outcome] += 1
    return counts


def micro_f1(counts: Counts) -> npt.NDArray[np.float64]:
    """F1 over all types, from counts [..., k, 3] to [...]; 0 where there is nothing."""
    found, wrong, missed = np.moveaxis(counts.sum(axis=-2), -1, 0)
    return np.asarray(2 * found / np.maximum(2 * found + wrong + missed, 1))


def score_spans(counts: Counts, labels: Sequence[str]) -> SpanScores:
    """Scores of a set of texts."""
    total = counts.sum(axis=0)
    types = {label: _score(total[place]) for place, label in enumerate(labels)}
    seen = [types[label] for place, label in enumerate(labels) if total[place].any()]
    micro = _score(total.sum(axis=0))
    macro = SpanScore(
        precision=_mean([score.precision for score in seen]),
        recall=_mean([score.recall for score in seen]),
        f1=_mean([score.f1 for score in seen]),
        support=micro.support,
    )
    return SpanScores(micro, macro, types)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def _score(counts: Counts) -> SpanScore:
    found, wrong, missed = (int(count) for count in counts)
    return SpanScore(
        precision=found / max(found + wrong, 1),
        recall=found / max(found + missed, 1),
        f1=2 * found / max(2 * found + wrong + missed, 1),
        support=found + missed,
    )
