"""When a cascade may stop: members run in stages, cheap ones first, and most texts need no later stage.

Shapes: members x rows x labels, [k, n, c]. A member that has not run on a row is NaN there.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stacknorm.pooling.pool import Probabilities

Rows = npt.NDArray[np.bool_]


def is_settled(members: Probabilities, weights: tuple[float, ...]) -> Rows:
    """Rows whose label the members still to come cannot change, whatever they say; [k, n, c] -> [n].

    In a linear pool the rest can give a label at most the weight not yet spent, so a lead above it is final.

    Args:
        members: NaN where a member has not run yet; the probabilities of each sum to at most 1.
        weights: of the linear pool, one for each member, summing to 1.
    """
    shares = np.asarray(weights)[:, None, None]
    missing = np.isnan(members).any(axis=2)  # [k, n]
    unspent = (shares[:, :, 0] * missing).sum(axis=0)
    best = np.partition(np.nansum(shares * members, axis=0), -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2] > unspent)


def is_sure(pooled: Probabilities, stop_above: float) -> Rows:
    """Rows whose likeliest label has at least the probability `stop_above`; [n, c] -> [n]."""
    return np.asarray(pooled.max(axis=1) >= stop_above)


@dataclass(frozen=True, slots=True)
class Savings:
    """What stopping early costs and keeps on some rows."""

    stopped: float
    """Share of rows that end at the early stage."""
    accuracy: float
    """Of the cascade."""
    accuracy_kept: float
    """Accuracy of the cascade less that of the whole stack; negative is a loss."""
    changed: float
    """Share of rows whose label differs from the whole stack's."""


def weigh_stopping(early: Probabilities, whole: Probabilities, truth: npt.NDArray[np.int64], stopped: Rows) -> Savings:
    """Compare a cascade that answers `stopped` rows early with the whole stack; probabilities are [n, c]."""
    guess = np.where(stopped, early.argmax(axis=1), whole.argmax(axis=1))
    accuracy = float((guess == truth).mean())
    return Savings(
        stopped=float(stopped.mean()),
        accuracy=accuracy,
        accuracy_kept=accuracy - float((whole.argmax(axis=1) == truth).mean()),
        changed=float((guess != whole.argmax(axis=1)).mean()),
    )


def fit_stop(early: Probabilities, whole: Probabilities, truth: npt.NDArray[np.int64], max_loss: float) -> float:
    """Find the lowest confidence to stop at that loses at most `max_loss` of accuracy, there and at any higher one.

    Args:
        early: calibrated probabilities of the early stage on held-out rows, [n, c].
        whole: of the whole stack, [n, c].
        truth: labels, [n].
        max_loss: share of rows, such as 0.002.

    Returns:
        A threshold in (0, 1]; 1 where no lower one is safe.
    """
    confidence = early.max(axis=1)
    lost = (whole.argmax(axis=1) == truth).astype(np.int64) - (early.argmax(axis=1) == truth)
    order = np.argsort(-confidence, kind="stable")
    losses = np.cumsum(lost[order]) / len(truth)
    # Rows of one confidence stop together, so only the last of them is a threshold.
    last = np.append(np.diff(confidence[order]) != 0, True)
    too_much = np.flatnonzero(last & (losses > max_loss))
    safe = order[last & (np.arange(len(order)) < (too_much[0] if len(too_much) else len(order)))]
    return float(confidence[safe].min()) if len(safe) else 1.0
