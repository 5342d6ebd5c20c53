"""Calibration after pooling, and how unsure a prediction is.

Pooling calibrated members gives an underconfident pool, so the temperature is fitted on the pooled probability
(Rahaman & Thiery 2021, section 4).
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stacknorm.frozen import Frozen
from stacknorm.pooling.pool import Probabilities

_TINY = 1e-12
_NEWTON_ROUNDS = 50
_COLDEST, _HOTTEST = 0.05, 20.0


class Temperature(Frozen):
    """Sharpen (below 1) or soften (above 1): p^(1/T), renormalised (Guo et al. 2017)."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(1.0, gt=0)

    @property
    def keeps_order(self) -> bool:
        """Whether the order of a row's labels, and so its likeliest one, is never changed."""
        return True

    def __call__(self, pooled: Probabilities) -> Probabilities:
        """Calibrate [n, c]."""
        return apply_temperature(pooled, self.temperature)


Calibrator = Temperature


def apply_temperature(pooled: Probabilities, temperature: float) -> Probabilities:
    """Sharpen (below 1) or soften (above 1) probabilities: p^(1/T), renormalised; shape [n, c] kept."""
    return _power(pooled, 1 / temperature)


def fit_temperature(pooled: Probabilities, truth: npt.NDArray[np.int64]) -> float:
    """Find the temperature with the least negative log-likelihood, by Newton's method on 1/T, where it is convex.

    Args:
        pooled: held-out probabilities [n, c].
        truth: labels [n].
    """
    logs = np.log(pooled + _TINY)
    given = logs[np.arange(len(truth)), truth]
    inverse = 1.0
    for _ in range(_NEWTON_ROUNDS):
        current = _power(pooled, inverse)
        expected = (current * logs).sum(axis=1)
        slope = float((expected - given).mean())
        curvature = float((current * (logs - expected[:, None]) ** 2).sum(axis=1).mean())
        step = slope / max(curvature, _TINY)
        inverse = float(np.clip(inverse - np.clip(step, -0.5, 0.5), 1 / _HOTTEST, 1 / _COLDEST))
        if abs(step) < 1e-9:
            break
    return 1 / inverse


def entropy(probabilities: Probabilities) -> Probabilities:
    """Shannon entropy over the last axis, in nats."""
    return np.asarray(-(probabilities * np.log(probabilities + _TINY)).sum(axis=-1)).clip(min=0)


def margin(probabilities: Probabilities) -> Probabilities:
    """The largest value of each row less its second largest, [n, c] -> [n]."""
    best = np.partition(probabilities, -2, axis=-1)
    return np.asarray(best[..., -1] - best[..., -2])


def disagreement(members: Probabilities, weights: tuple[float, ...]) -> Probabilities:
    """Mutual information between the label and which member speaks, in nats; [k, n, c] -> [n].

    The entropy of the weighted mean less the weighted mean of the entropies: 0 when all members say the same.
    """
    mixed = np.tensordot(np.asarray(weights), members, axes=1)
    return np.asarray((entropy(mixed) - np.tensordot(np.asarray(weights), entropy(members), axes=1)).clip(min=0))


def _power(probabilities: Probabilities, exponent: float) -> Probabilities:
    logs = exponent * np.log(probabilities + _TINY)
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
