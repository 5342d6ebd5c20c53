"""Fitting a cascade on held-out rows: what each early stage answers with, and how sure it must be to stop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.cascade import fit_stop, is_sure
from stacknorm.pooling.choice import Choice, choose
from stacknorm.pooling.held_out import HeldOut, Indices, Truth
from stacknorm.pooling.pool import Pool, Probabilities

LINEAR_POOLS = ("mean", "weighted", "selection")
"""Names of pools an exact cascade can bound: what the members still to come can add is their weight."""
ORDER_KEEPING = ("identity", "temperature")
"""Names of calibrators that never change which label is likeliest."""

_PARTS = 5


@dataclass(frozen=True, slots=True)
class FittedStage:
    """How an early stage answers one task."""

    pool: Pool
    calibrator: Calibrator
    stop_above: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedCascade:
    """The early stages of one task, and what its rows say they cost if this task alone decides where a text stops."""

    stages: tuple[FittedStage, ...]
    said: tuple[Probabilities, ...]
    """What each stage says of the rows, the whole stack last, each [n, c]; an early one was fitted without the row."""
    ended: Indices
    """Stage at which each row ends by the fitted confidences, counted from 0; [n]."""
    ended_unseen: Indices
    """The same by confidences that were fitted without the row, so that they do not flatter; [n]."""

    def answers(self, ended: Indices) -> Probabilities:
        """What the cascade says of rows that end at these stages, [n, c]."""
        return np.stack(self.said)[ended, np.arange(len(ended))]


def choose_settling(held_out: HeldOut) -> Choice:
    """Choose among the pools and calibrators that an exact cascade can bound, as `choose` does among all.

    Raises:
        DataError: as `choose`.
    """
    return choose(held_out, LINEAR_POOLS, ORDER_KEEPING)


def fit_cascade(
    held_out: HeldOut, stages: Sequence[Sequence[int]], whole: Probabilities, max_loss: float
) -> FittedCascade:
    """Fit pool, calibrator and stopping confidence of each early stage of a task.

    A later stage has what the ones before it left open, and of the loss that is allowed what they did not use.

    Args:
        held_out: rows that no member was trained on.
        stages: of each early stage the positions of the members that have run by then, at least one.
        whole: what the whole stack says of the rows, [n, c].
        max_loss: share of these rows that all stopping together may cost, such as 0.002.
    """
    chosen = [choose(replace(held_out, members=held_out.members[list(run)])) for run in stages]
    said = (*(decision.probabilities for decision in chosen), whole)
    stops = fit_stops(said, held_out.truth, max_loss)
    unseen = np.empty(len(held_out.truth), dtype=np.int64)
    for part, rows in _split(held_out):
        unseen[rows] = end_rows(_take(said, rows), fit_stops(_take(said, part), held_out.truth[part], max_loss))
    return FittedCascade(
        tuple(
            FittedStage(decision.pool, decision.calibrator, stop) for decision, stop in zip(chosen, stops, strict=True)
        ),
        said,
        end_rows(said, stops),
        unseen,
    )


def fit_stops(said: Sequence[Probabilities], truth: Truth, max_loss: float) -> tuple[float, ...]:
    """Fit the confidence at which each early stage stops, one after the other.

    Args:
        said: what each stage says of all rows, the whole stack last, each [n, c].
        truth: [n].
        max_loss: share of the rows that all stopping together may cost.
    """
    *early, whole = said
    left, spare = np.arange(len(truth)), max_loss * len(truth)
    stops = []
    for given in early:
        stop = fit_stop(given[left], whole[left], truth[left], spare / len(left)) if len(left) else 1.0
        stopped = left[is_sure(given[left], stop)]
        right = [(answers[stopped].argmax(axis=1) == truth[stopped]).sum() for answers in (whole, given)]
        spare -= float(right[0] - right[1])
        left = np.setdiff1d(left, stopped)
        stops.append(stop)
    return tuple(stops)


def end_rows(said: Sequence[Probabilities], stops: Sequence[float]) -> Indices:
    """The stage at which each row ends, counted from 0; [n].

    Args:
        said: what each stage says of all rows, the whole stack last, each [n, c].
        stops: of each early stage.
    """
    sure = [is_sure(given, stop) for given, stop in zip(said[:-1], stops, strict=True)]
    return np.asarray(np.argmax([*sure, np.ones(len(said[-1]), dtype=np.bool_)], axis=0))


def _take(said: Sequence[Probabilities], rows: Indices) -> list[Probabilities]:
    return [given[rows] for given in said]


def _split(held_out: HeldOut) -> list[tuple[Indices, Indices]]:
    """Positions to fit on and positions to judge; the parts are other ones than `choose` makes."""
    everything = np.arange(len(held_out.truth))
    return [(np.delete(everything, rows), rows) for _, rows in held_out.split(_PARTS, seed=1)]
