"""Choosing a pool and a calibrator together, by cross-validation inside the held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stacknorm.errors import DataError
from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.calibrator_fitting import CALIBRATORS, calibrator_method
from stacknorm.pooling.held_out import HeldOut, Indices, Prints, Truth, row_nll
from stacknorm.pooling.pool import Pool, Probabilities
from stacknorm.pooling.pool_fitting import POOLS, fit_pool

_POOLS = tuple(name for name in POOLS if name != "soft_vote")  # the mean by another name
_NEGLIGIBLE_NATS = 0.001


class Candidate(NamedTuple):
    """A pool and a calibrator, by name."""

    pool: str
    calibrator: str


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The chosen pool and calibrator, fitted on all held-out rows, and why they were chosen."""

    pool: Pool
    calibrator: Calibrator
    chosen: Candidate
    nll: Mapping[Candidate, float]
    """Cross-validated, in nats; a calibrator for which there were too few rows is missing."""
    probabilities: Probabilities
    """What the chosen candidate says of each held-out row when fitted on the others, [n, c]: for scores, conformal
    thresholds and stopping thresholds, which the same rows would flatter if pool and calibrator knew them."""


def choose(
    held_out: HeldOut,
    pools: Sequence[str] = _POOLS,
    calibrators: Sequence[str] = tuple(CALIBRATORS),
    parts: int = 5,
    seed: int = 0,
) -> Choice:
    """Choose the simplest pool and calibrator whose likelihood cannot be told from the best one's.

    Every row is pooled by a pool that was fitted without it; on these pooled rows the calibrators are fitted and
    scored across the same parts, so that a pool which flatters its own rows does not mislead its calibrator, and
    richer ones win by predicting, not by fitting.

    The best of dozens of candidates on a few thousand rows is partly luck. So the one that fits the fewest numbers
    wins, and among those the first as listed, out of all whose NLL is within one standard error of the least
    (Breiman et al. 1984, section 3.4.3, here the error of the *difference*, by text). Candidates may differ by next
    to nothing on every row, and that error is next to nothing then: a difference below 0.001 nats is none.

    Args:
        held_out: rows that no member was trained on.
        pools: names from `POOLS`, simple ones first.
        calibrators: names from `CALIBRATORS`, simple ones first.
        parts: of the cross-validation.
        seed: of its split.

    Raises:
        DataError: an unknown name, fewer than two different texts, or too few rows for any of `calibrators`.
    """
    splits = list(held_out.split(parts, seed))
    enough = [name for name in calibrators if _has_enough(name, splits)]
    if not enough:
        raise DataError(f"{len(held_out.truth):,} rows are too few for {' or '.join(calibrators)} calibration")
    given = {pool: _pool_across(held_out, pool, splits) for pool in pools}
    across = {
        Candidate(pool, calibrator): _calibrate_across(pooled, held_out.truth, calibrator, [rows for _, rows in splits])
        for pool, pooled in given.items()
        for calibrator in enough
    }
    losses = {candidate: row_nll(probabilities, held_out.truth) for candidate, probabilities in across.items()}
    chosen = _simplest(losses, held_out)
    return Choice(
        fit_pool(chosen.pool, held_out),
        CALIBRATORS[chosen.calibrator].fit(given[chosen.pool], held_out.truth),
        chosen,
        {candidate: float(loss.mean()) for candidate, loss in losses.items()},
        across[chosen],
    )


def _pool_across(held_out: HeldOut, pool: str, splits: Sequence[tuple[HeldOut, Indices]]) -> Probabilities:
    """Pool every row by a pool that was fitted without it, [n, c]."""
    pooled = np.empty(held_out.members.shape[1:])
    for part, rows in splits:
        pooled[rows] = fit_pool(pool, part)(held_out.members[:, rows])
    return pooled


def _calibrate_across(pooled: Probabilities, truth: Truth, calibrator: str, parts: Sequence[Indices]) -> Probabilities:
    """Calibrate every row by a calibrator that was fitted without it, [n, c]."""
    calibrated = np.empty_like(pooled)
    for rows in parts:
        rest = np.delete(np.arange(len(truth)), rows)
        calibrated[rows] = CALIBRATORS[calibrator].fit(pooled[rest], truth[rest])(pooled[rows])
    return calibrated


def _has_enough(calibrator: str, splits: Sequence[tuple[HeldOut, Indices]]) -> bool:
    """Whether every part that is fitted on has the rows it needs."""
    labels = splits[0][0].members.shape[2]
    return min(len(part.truth) for part, _ in splits) >= calibrator_method(calibrator).least_rows(labels)


def _simplest(losses: Mapping[Candidate, Probabilities], held_out: HeldOut) -> Candidate:
    """The candidate with the fewest numbers, then the first, that cannot be told from the best one."""
    members, _, labels = held_out.members.shape
    best = min(losses.values(), key=lambda loss: float(loss.mean()))

    def numbers(candidate: Candidate) -> int:
        pool, calibrator = POOLS[candidate.pool], CALIBRATORS[candidate.calibrator]
        return pool.numbers(members, labels) + calibrator.numbers(labels)

    behind = {candidate: loss - best for candidate, loss in losses.items()}
    near = [who for who, gap in behind.items() if gap.mean() <= max(_NEGLIGIBLE_NATS, _error(gap, held_out.prints))]
    return min(near, key=numbers)


def _error(differences: Probabilities, prints: Prints) -> float:
    """The standard error of a mean over rows that come in texts: rows of one text are not independent."""
    _, text_of = np.unique(prints, return_inverse=True)
    sums = np.bincount(text_of, weights=differences - differences.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(differences))
