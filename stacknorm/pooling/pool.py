"""Pools: from the probabilities of several members to one distribution.

Shapes throughout: members x rows x labels, [k, n, c], each [k, n] a point of the simplex.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
PoolKind = Literal["mean", "weighted", "log"]

_TINY = 1e-12  # keeps logarithms finite; far below what a softmax in single precision tells apart
_EM_ROUNDS = 200
_ASCENT_ROUNDS = 300


@dataclass(frozen=True, slots=True)
class Pool:
    """How members are joined: `mean` and `weighted` add probabilities, `log` multiplies powers of them."""

    kind: PoolKind
    weights: tuple[float, ...]
    """One for each member, non-negative, summing to 1."""

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into [n, c]."""
        weights = np.asarray(self.weights)
        if self.kind == "log":
            return _softmax(np.tensordot(weights, np.log(members + _TINY), axes=1))
        pooled = np.tensordot(weights, members, axes=1)
        return np.asarray(pooled / pooled.sum(axis=1, keepdims=True))


def mean_pool(members: int) -> Pool:
    """Equal weights."""
    return Pool("mean", (1 / members,) * members)


def fit_weighted_pool(members: Probabilities, truth: npt.NDArray[np.int64]) -> Pool:
    """Weights of the linear pool that maximise the likelihood of `truth`.

    Expectation maximisation on the weights of a mixture whose parts are fixed: it never leaves the simplex and
    never lowers the likelihood. This is stacking of distributions (Yao et al. 2018, equation 4).

    Args:
        members: probabilities on held-out rows, [k, n, c].
        truth: label of each row, [n].
    """
    given = members[:, np.arange(len(truth)), truth] + _TINY  # [k, n]
    weights = np.full(len(members), 1 / len(members))
    for _ in range(_EM_ROUNDS):
        share = weights[:, None] * given
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return Pool("weighted", tuple(weights.tolist()))


def fit_log_pool(members: Probabilities, truth: npt.NDArray[np.int64]) -> Pool:
    """Weights of the log pool that maximise the likelihood of `truth`, by exponentiated gradient ascent.

    The likelihood is concave in the weights (a log-linear model), and the multiplicative step stays on the simplex.

    Args:
        members: probabilities on held-out rows, [k, n, c].
        truth: label of each row, [n].
    """
    logs = np.log(members + _TINY)
    given = logs[:, np.arange(len(truth)), truth].mean(axis=1)  # [k]
    weights = np.full(len(members), 1 / len(members))
    for _ in range(_ASCENT_ROUNDS):
        pooled = _softmax(np.tensordot(weights, logs, axes=1))
        gradient = given - (logs * pooled).sum(axis=2).mean(axis=1)
        weights = weights * np.exp(gradient - gradient.max())
        weights = weights / weights.sum()
    return Pool("log", tuple(weights.tolist()))


def _softmax(logits: Probabilities) -> Probabilities:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
