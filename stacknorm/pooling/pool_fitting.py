"""How each pool is fitted, by name; each takes held-out rows and nothing else.

scipy and scikit-learn do the optimisation; only ensemble selection, which neither has, is written out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression

from stacknorm.errors import DataError
from stacknorm.pooling.held_out import HeldOut, nll
from stacknorm.pooling.pool import (
    LogisticPool,
    Pool,
    PowerPool,
    Probabilities,
    TrimmedPool,
    VotePool,
    box_cox,
    log_odds_input,
    log_odds_weights,
    mean_pool,
    most_cut,
    softmax,
    undo_box_cox,
)

_TINY = 1e-12
_TRIMMED_SHARE = 0.2
_BAGS, _ROUNDS = 10, 25
_STRENGTHS = (1e-3, 1e-2, 1e-1)
_STACKING_PARTS = 3


@dataclass(frozen=True, slots=True)
class PoolMethod:
    """One way to fit a pool."""

    fit: Callable[[HeldOut], Pool]
    numbers: Callable[[int, int], int]
    """How many numbers it fits, given how many members and labels: what it can overfit with."""


def fit_pool(name: str, held_out: HeldOut) -> Pool:
    """Fit the pool of that name.

    Raises:
        DataError: there is none; the message lists them.
    """
    if name not in POOLS:
        raise DataError(f"no pool {name!r}: it is one of {', '.join(POOLS)}")
    return POOLS[name].fit(held_out)


def fit_mean(held_out: HeldOut) -> PowerPool:
    """Equal weights: the soft vote."""
    return mean_pool(len(held_out.members))


def fit_weighted_pool(held_out: HeldOut) -> PowerPool:
    """The weights of the linear pool with the greatest likelihood: stacking of distributions (Yao et al. 2018)."""
    return _fit_weights(held_out, 1)


def fit_log_pool(held_out: HeldOut) -> PowerPool:
    """The weights of the log pool with the greatest likelihood, which is concave in them (Heskes 1998)."""
    return _fit_weights(held_out, 0)


def fit_power_pool(held_out: HeldOut) -> PowerPool:
    """The exponent in [0, 1] and the weights with the greatest likelihood."""

    def loss(pool: PowerPool) -> float:
        return nll(pool(held_out.members), held_out.truth)

    between = minimize_scalar(
        lambda exponent: loss(_fit_weights(held_out, exponent)),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 0.02},
    )
    return min((_fit_weights(held_out, exponent) for exponent in (1, 0, float(between.x))), key=loss)


def fit_vote(held_out: HeldOut) -> VotePool:
    """The hard vote, each member weighing the log-odds of being right.

    That is the best rule for independent voters (Nitzan & Paroush 1982), here against chance among c labels; a
    member no better than chance weighs nothing.
    """
    _, rows, labels = held_out.members.shape
    right = (held_out.members.argmax(axis=2) == held_out.truth).sum(axis=1)
    accuracies = (right + 1) / (rows + 2)  # one row more on each side keeps their odds finite
    return VotePool(weights=log_odds_weights(accuracies.tolist(), labels))


def fit_median(held_out: HeldOut) -> TrimmedPool:
    """The median of each label's probabilities."""
    members = len(held_out.members)
    return TrimmedPool(members=members, cut=most_cut(members))


def fit_trimmed_mean(held_out: HeldOut) -> TrimmedPool:
    """The mean without a fifth of the members at each end, and without one at least where there are three."""
    members = len(held_out.members)
    return TrimmedPool(members=members, cut=min(max(1, int(_TRIMMED_SHARE * members)), most_cut(members)))


def fit_selection(held_out: HeldOut) -> PowerPool:
    """Ensemble selection with replacement (Caruana et al. 2004): add, again and again, the member that helps most.

    Done on bootstrap samples of the rows, whose counts are added up (their section 2.3 draws members, of which there
    are too few here); from each the best ensemble on the way is kept.
    """
    given = held_out.members[:, np.arange(len(held_out.truth)), held_out.truth]  # [k, n]
    random = np.random.default_rng(0)
    rows = given.shape[1]
    bags = random.multinomial(rows, np.full(rows, 1 / rows), size=_BAGS)
    return PowerPool(weights=_normalise(np.sum([select_members(given, bag, _ROUNDS) for bag in bags], axis=0)))


def select_members(given: Probabilities, counts: npt.NDArray[np.int64], rounds: int) -> Probabilities:
    """Greedily select members with replacement by the likelihood of their mean.

    Args:
        given: the probability each member gives to the truth, [k, n].
        counts: how often each row counts, [n].
        rounds: how many to add; the best ensemble on the way is kept, the smallest of equals.

    Returns:
        The share of each member in it, [k].
    """
    taken = np.zeros(len(given))
    best, best_loss = taken, np.inf
    total = np.zeros(given.shape[1])
    for size in range(1, rounds + 1):
        losses = -np.log((total + given) / size + _TINY) @ counts
        added = int(losses.argmin())
        taken, total = taken + np.eye(len(given))[added], total + given[added]
        if losses[added] < best_loss - _TINY:
            best, best_loss = taken / size, losses[added]
    return best


def fit_stacking(held_out: HeldOut) -> LogisticPool:
    """Multinomial logistic regression on the members' log-probabilities, as strongly penalised as helps.

    The strength of the L2 penalty is chosen by cross-validation inside the held-out rows.
    """
    losses = np.zeros(len(_STRENGTHS))
    for part, rows in held_out.split(_STACKING_PARTS, seed=0):
        for which, strength in enumerate(_STRENGTHS):
            coefficients, intercepts = _regress(part, strength)
            logits = np.einsum("knc,kcd->nd", log_odds_input(held_out.members[:, rows]), coefficients) + intercepts
            losses[which] += nll(softmax(logits), held_out.truth[rows]) * len(rows)
    coefficients, intercepts = _regress(held_out, _STRENGTHS[int(losses.argmin())])
    return LogisticPool(
        coefficients=coefficients.tolist(), intercepts=intercepts.tolist(), fallback=fit_log_pool(held_out)
    )


POOLS: Mapping[str, PoolMethod] = MappingProxyType(
    {
        "mean": PoolMethod(fit_mean, lambda _k, _c: 0),
        "soft_vote": PoolMethod(fit_mean, lambda _k, _c: 0),
        "median": PoolMethod(fit_median, lambda _k, _c: 0),
        "trimmed_mean": PoolMethod(fit_trimmed_mean, lambda _k, _c: 0),
        "hard_vote": PoolMethod(fit_vote, lambda k, _c: k - 1),
        "weighted": PoolMethod(fit_weighted_pool, lambda k, _c: k - 1),
        "log": PoolMethod(fit_log_pool, lambda k, _c: k - 1),
        "selection": PoolMethod(fit_selection, lambda k, _c: k - 1),
        "power": PoolMethod(fit_power_pool, lambda k, _c: k),
        "stacking": PoolMethod(fit_stacking, lambda k, c: (k * c + 1) * (c - 1)),
    }
)
"""Every pool by name, simple ones first."""


def _fit_weights(held_out: HeldOut, exponent: float) -> PowerPool:
    """The weights of a power pool with the greatest likelihood, by sequential quadratic programming on the simplex."""
    members, rows, labels = held_out.members.shape
    values = box_cox(held_out.members, exponent)
    target = np.eye(labels)[held_out.truth]

    def loss(weights: Probabilities) -> tuple[float, Probabilities]:
        mixed = np.tensordot(weights, values, axes=1)
        pooled = softmax(undo_box_cox(mixed, exponent))
        slope = (pooled - target) / (1 + exponent * mixed) / rows  # of the loss along `mixed`, [n, c]
        return nll(pooled, held_out.truth), np.tensordot(values, slope, axes=2)

    equal = np.full(members, 1 / members)
    found = minimize(
        loss,
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    pools = [PowerPool(weights=_normalise(weights), exponent=exponent) for weights in (equal, found.x.clip(min=0))]
    return min(pools, key=lambda pool: nll(pool(held_out.members), held_out.truth))


def _regress(held_out: HeldOut, strength: float) -> tuple[Probabilities, Probabilities]:
    """Coefficients [k, c, c] and intercepts [c]; a label that no row bears is unlikely, not impossible.

    For that, one row in all is spread over the labels, on which every member says nothing.
    """
    members, rows, labels = held_out.members.shape
    nothing = np.full((members, labels, labels), 1 / labels)
    logs = log_odds_input(np.concatenate([held_out.members, nothing], axis=1))  # [k, n + c, c]
    inputs = logs.transpose(1, 0, 2).reshape(rows + labels, -1)
    centre = inputs.mean(axis=0)  # which the intercept makes good: five times fewer steps to the same optimum
    model = LogisticRegression(C=strength, max_iter=5000).fit(
        inputs - centre,
        np.append(held_out.truth, np.arange(labels)),
        sample_weight=np.append(np.ones(rows), np.full(labels, 1 / labels)),
    )
    slopes, intercepts = model.coef_, model.intercept_ - model.coef_ @ centre
    if labels == 2:  # scikit-learn keeps the second label's alone
        slopes, intercepts = np.vstack([0 * slopes, slopes]), np.append(0, intercepts)
    return slopes.reshape(labels, members, labels).transpose(1, 2, 0), intercepts


def _normalise(weights: Probabilities) -> tuple[float, ...]:
    """On the simplex; equal where all are zero."""
    total = weights.sum()
    return tuple((weights / total if total > 0 else np.full(len(weights), 1 / len(weights))).tolist())
