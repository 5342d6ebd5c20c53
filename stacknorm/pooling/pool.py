"""Pools: from the probabilities of several members to one distribution.

Shapes throughout: members x rows x labels, [k, n, c], each [k, n] a point of the simplex.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from stacknorm.frozen import Frozen

Probabilities = npt.NDArray[np.float64]

_TINY = 1e-12  # keeps logarithms finite; far below what a softmax in single precision tells apart
_EM_ROUNDS = 200
_ASCENT_ROUNDS = 300


class PowerPool(Frozen):
    """The weighted power mean of the members' probabilities: exponent 1 adds them, 0 multiplies powers of them."""

    kind: Literal["power"] = "power"
    weights: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    """One for each member, summing to 1."""
    exponent: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _is_on_the_simplex(self) -> Self:
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"the weights of a pool sum to {sum(self.weights)}, not 1")
        return self

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into [n, c]."""
        weights = np.asarray(self.weights)
        if self.exponent == 0:
            return _softmax(np.tensordot(weights, np.log(members + _TINY), axes=1))
        pooled = np.tensordot(weights, members**self.exponent, axes=1) ** (1 / self.exponent)
        return np.asarray(pooled / pooled.sum(axis=1, keepdims=True))

    def only(self, present: Sequence[int]) -> "PowerPool":
        """The pool of some of its members: their weights renormalised, equal where they had none."""
        weights = np.asarray(self.weights)[list(present)]
        shares = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
        return self.model_copy(update={"weights": tuple(shares.tolist())})


Pool = PowerPool


def mean_pool(members: int) -> Pool:
    """Equal weights."""
    return PowerPool(weights=(1 / members,) * members)


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
    return PowerPool(weights=tuple((weights / weights.sum()).tolist()))


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
    return PowerPool(weights=tuple(weights.tolist()), exponent=0)


def _softmax(logits: Probabilities) -> Probabilities:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
