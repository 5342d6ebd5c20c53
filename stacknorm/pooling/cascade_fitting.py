"""Fitting a cascade on held-out rows: what each early stage answers with, and how sure it must be to stop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.cascade import Savings, fit_stop, is_sure, weigh_stopping
from stacknorm.pooling.choice import choose
from stacknorm.pooling.held_out import HeldOut
from stacknorm.pooling.pool import Pool, Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class FittedStage:
    """An early stage of one task."""

    pool: Pool
    calibrator: Calibrator
    stop_above: float
    savings: Savings
    """On the rows it was fitted on, if only this stage stopped any: what it answers is cross-validated, but where it
    stops was chosen on them."""


def fit_stage(held_out: HeldOut, members: Sequence[int], whole: Probabilities, max_loss: float) -> FittedStage:
    """Fit the pool and calibrator of the members that have run by a stage, and the confidence at which it stops.

    Args:
        held_out: rows that no member was trained on.
        members: positions of those that have run, at least one.
        whole: what the whole stack says of the rows, fitted without each (`Choice.probabilities`), [n, c].
        max_loss: accuracy that stopping may cost on these rows, such as 0.002.
    """
    decision = choose(replace(held_out, members=held_out.members[list(members)]))
    stop_above = fit_stop(decision.probabilities, whole, held_out.truth, max_loss)
    stopped = is_sure(decision.probabilities, stop_above)
    return FittedStage(
        decision.pool,
        decision.calibrator,
        stop_above,
        weigh_stopping(decision.probabilities, whole, held_out.truth, np.asarray(stopped)),
    )
