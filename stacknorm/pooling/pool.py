"""Pools: from the probabilities of several members to one distribution. Applying them needs numpy alone.

Shapes throughout: members x rows x labels, [k, n, c], each [k, n] a point of the simplex. A task with any number of
labels a text is pooled as one binary task for each label: `to_pairs` before, `from_pairs` after.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, model_validator

from stacknorm.frozen import Frozen

Probabilities = npt.NDArray[np.float64]

_TINY = 1e-12  # keeps logarithms finite; far below what a softmax in single precision tells apart
_TIE = 1e-6  # shares of the vote closer than this are a tie
_DOUBT = 1e-6  # the least probability a stacked regression sees, so that one sure member cannot drown the others


def _check_simplex(weights: tuple[float, ...]) -> tuple[float, ...]:
    if abs(sum(weights) - 1) > 1e-6:
        raise ValueError(f"the weights of a pool sum to {sum(weights)}, not 1")
    return weights


Weights = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1), AfterValidator(_check_simplex)
]
"""One for each member, summing to 1."""


class PowerPool(Frozen):
    """The weighted power mean of the members' probabilities, renormalised.

    Exponent 1 is the linear pool (the mean, the weighted mean, the soft vote), 0 the log pool (weighted products of
    powers). Between them alone is the pool sure to be likelier than its members are on average.
    """

    kind: Literal["power"] = "power"
    weights: Weights
    exponent: float = Field(1.0, ge=0, le=1)

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into [n, c]."""
        mixed = np.tensordot(np.asarray(self.weights), box_cox(members, self.exponent), axes=1)
        return softmax(undo_box_cox(mixed, self.exponent))

    def only(self, present: Sequence[int]) -> "PowerPool":
        """The pool of some of its members."""
        return self.model_copy(update={"weights": _shares_of(self.weights, present)})


class VotePool(Frozen):
    """The hard vote: each label's share is the weight of the members that find it likeliest.

    A tie goes to the label that is likelier in the weighted mean, which counts for a millionth of the shares.
    """

    kind: Literal["vote"] = "vote"
    weights: Weights

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into shares of the vote, [n, c]."""
        weights = np.asarray(self.weights)
        votes = np.eye(members.shape[2])[members.argmax(axis=2)]
        return np.tensordot(weights, votes + _TIE * members, axes=1) / (1 + _TIE)

    def only(self, present: Sequence[int]) -> "VotePool":
        """The pool of some of its members."""
        return self.model_copy(update={"weights": _shares_of(self.weights, present)})


class TrimmedPool(Frozen):
    """The mean of each label's probabilities without the `cut` lowest and highest, renormalised.

    It bears `cut` members that are wrong in any way. The largest `cut` that leaves one or two is the median.
    """

    kind: Literal["trimmed"] = "trimmed"
    members: int = Field(ge=1)
    cut: int = Field(ge=0)

    @model_validator(mode="after")
    def _leaves_members(self) -> Self:
        if self.cut > most_cut(self.members):
            raise ValueError(f"a trimmed pool of {self.members} cannot lose {self.cut} at each end")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """Equal ones."""
        return (1 / self.members,) * self.members

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into [n, c]."""
        kept = np.sort(members, axis=0)[self.cut : len(members) - self.cut]
        # Certain members that all differ trim each other away; what is left then is their mean.
        shares = kept.mean(axis=0) + _TINY * members.mean(axis=0)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def only(self, present: Sequence[int]) -> "TrimmedPool":
        """The pool of some of its members; of a median, their median."""
        return TrimmedPool(members=len(present), cut=min(self.cut, most_cut(len(present))))


class LogisticPool(Frozen):
    """Stacking (Wolpert 1992) by multinomial logistic regression on the members' log-probabilities."""

    kind: Literal["logistic"] = "logistic"
    coefficients: tuple[tuple[tuple[float, ...], ...], ...] = Field(min_length=1)
    """Member x its label x the label it speaks for, [k, c, c]."""
    intercepts: tuple[float, ...] = Field(min_length=2)
    fallback: PowerPool
    """Of the same members, for when one is missing: a regression without some of its inputs means nothing."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        labels = len(self.intercepts)
        square = all(len(one) == labels and all(len(row) == labels for row in one) for one in self.coefficients)
        if not square or len(self.coefficients) != len(self.fallback.weights):
            raise ValueError(f"the coefficients of a stacked pool are not members x {labels} x {labels}")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """Those of the fallback."""
        return self.fallback.weights

    def __call__(self, members: Probabilities) -> Probabilities:
        """Pool [k, n, c] into [n, c]."""
        return softmax(
            np.einsum("knc,kcd->nd", log_odds_input(members), np.asarray(self.coefficients)) + self.intercepts
        )

    def only(self, present: Sequence[int]) -> "LogisticPool | PowerPool":
        """The fallback of those that are left; itself where all are."""
        return self if list(present) == list(range(len(self.coefficients))) else self.fallback.only(present)


Pool = Annotated[PowerPool | VotePool | TrimmedPool | LogisticPool, Field(discriminator="kind")]
"""Each has `weights` (equal where it has none of its own) and `only(present)`, the pool of the members at those
positions, with their weights renormalised."""


def mean_pool(members: int) -> PowerPool:
    """Equal weights."""
    return PowerPool(weights=(1 / members,) * members)


def log_odds_weights(accuracies: Sequence[float], labels: int) -> tuple[float, ...]:
    """Weights that follow from how often each member is known to be right: log(a / (1 - a) * (labels - 1)), normalised.

    With them the hard vote of independent members is the best one (Nitzan & Paroush 1982), here against chance among
    the labels. A member no better than chance weighs nothing; all weigh the same where none is better.

    Args:
        accuracies: of each member, between 0 and 1, neither included.
        labels: of the task.
    """
    given = np.asarray(accuracies)
    odds = np.log(given / (1 - given) * (labels - 1)).clip(min=0)
    return _shares_of(tuple(odds.tolist()), range(len(odds)))


def most_cut(members: int) -> int:
    """How many of `members` values can be cut at each end so that one or two are left."""
    return (members - 1) // 2


def box_cox(probabilities: Probabilities, exponent: float) -> Probabilities:
    """The values whose weighted sums a power pool takes: (p^r - 1) / r, and log p at r = 0 (Box & Cox 1964)."""
    logs = np.log(probabilities + _TINY)
    return np.asarray(np.expm1(exponent * logs) / exponent) if exponent > _TINY else logs


def undo_box_cox(mixed: Probabilities, exponent: float) -> Probabilities:
    """The logarithm of the power mean, from the weighted sum of `box_cox`."""
    return np.asarray(np.log1p(exponent * mixed) / exponent) if exponent > _TINY else mixed


def log_odds_input(members: Probabilities) -> Probabilities:
    """What a stacked regression reads: bounded log-probabilities, shape kept."""
    return np.asarray(np.log(members.clip(min=_DOUBT)))


def softmax(logits: Probabilities) -> Probabilities:
    """Probabilities over the last axis, shape kept."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def to_pairs(probabilities: Probabilities) -> Probabilities:
    """Take labels that apply or not, each for itself, as binary rows: [..., n, c] -> [..., n * c, 2].

    Row i * c + j says (no, yes) to label j of text i.
    """
    pairs = np.stack([1 - probabilities, probabilities], axis=-1)
    return pairs.reshape(*probabilities.shape[:-2], -1, 2)


def from_pairs(pairs: Probabilities, labels: int) -> Probabilities:
    """Undo `to_pairs`: [..., n * c, 2] -> [..., n, c], the probability that each label applies."""
    return np.asarray(pairs[..., 1].reshape(*pairs.shape[:-2], -1, labels))


def _shares_of(weights: tuple[float, ...], present: Sequence[int]) -> tuple[float, ...]:
    """The weights of those present, renormalised; equal where they had none."""
    kept = np.asarray(weights)[list(present)]
    return tuple((kept / kept.sum() if kept.sum() > 0 else np.full(len(kept), 1 / len(kept))).tolist())
