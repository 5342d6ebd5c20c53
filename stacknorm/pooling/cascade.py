"""When a cascade may stop: members run in stages, cheap ones first, and most texts need no later stage.

Shapes: members x rows x labels, [k, n, c]. A member that has not run on a row is NaN there.
"""

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
