"""Fitting the head of a channel: multinomial logistic regression on what members read of held-out rows."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from stacknorm.pooling.held_out import Prints, Truth, nll
from stacknorm.pooling.pool import Probabilities, softmax

_STRENGTHS = (0.3, 3.0, 30.0, 300.0)
"""Inverse penalties tried; features are of unit length, so a head needs large weights to say anything."""
_PARTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head, and what heads fitted without a row say of it."""

    weights: Probabilities
    """[labels, features]."""
    biases: Probabilities
    """[labels]."""
    probabilities: Probabilities
    """Of each row by a head that was fitted without its text, [n, labels]: what a pool may be fitted on."""


def fit_head(features: Probabilities, truth: Truth, prints: Prints, labels: int, seed: int = 0) -> FittedHead:
    """Fit a head with as strong an L2 penalty as helps; the strength is chosen by cross-validated NLL.

    Args:
        features: of rows that no member was trained on, [n, features]; a member's features of rows it was trained on
            promise more than they hold.
        truth: the label of each row, [n].
        prints: the fingerprint of each row's text, [n]; copies of a text stay on one side.
        labels: of the task.
        seed: of the split.
    """
    texts, text_of = np.unique(prints, return_inverse=True)
    part_of = (np.random.default_rng(seed).permutation(len(texts)) % _PARTS)[text_of]
    across = {strength: np.empty((len(truth), labels)) for strength in _STRENGTHS}
    for part in range(_PARTS):
        rest, rows = part_of != part, part_of == part
        for strength, said in across.items():
            weights, biases = _regress(features[rest], truth[rest], labels, strength)
            said[rows] = softmax(features[rows] @ weights.T + biases)
    best = min(across, key=lambda strength: nll(across[strength], truth))
    return FittedHead(*_regress(features, truth, labels, best), across[best])


def _regress(
    features: Probabilities, truth: Truth, labels: int, strength: float
) -> tuple[Probabilities, Probabilities]:
    """A label that no row bears is unlikely, not impossible: one row in all, without features, is spread over all."""
    model = LogisticRegression(C=strength, max_iter=2000).fit(
        np.vstack([features, np.zeros((labels, features.shape[1]))]),
        np.append(truth, np.arange(labels)),
        sample_weight=np.append(np.ones(len(truth)), np.full(labels, 1 / labels)),
    )
    if labels == 2:  # scikit-learn keeps the second label's alone
        return np.vstack([0 * model.coef_, model.coef_]), np.append(0, model.intercept_)
    return model.coef_, model.intercept_
