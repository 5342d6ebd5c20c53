"""Calibrators, applied after pooling with numpy alone, and how unsure a prediction is.

Pooling calibrated members gives an underconfident pool, so a calibrator is fitted on the pooled probability
(Rahaman & Thiery 2021, section 4). Shapes: pooled probabilities [n, c].
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from stacknorm.frozen import Frozen
from stacknorm.pooling.pool import Probabilities, softmax

_TINY = 1e-12
_NEWTON_ROUNDS = 50
_COLDEST, _HOTTEST = 0.05, 20.0


class Identity(Frozen):
    """Leave probabilities as they are."""

    kind: Literal["identity"] = "identity"

    @property
    def keeps_order(self) -> bool:
        """Whether the order of a row's labels, and so its likeliest one, is never changed."""
        return True

    def __call__(self, pooled: Probabilities) -> Probabilities:
        """Calibrate [n, c]."""
        return pooled


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


class VectorScaling(Frozen):
    """A scale and a bias for the log-probability of each label (Guo et al. 2017, section 4.2)."""

    kind: Literal["vector"] = "vector"
    scales: tuple[float, ...] = Field(min_length=2)
    biases: tuple[float, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.scales) != len(self.biases):
            raise ValueError(f"vector scaling has {len(self.scales)} scales and {len(self.biases)} biases")
        return self

    @property
    def keeps_order(self) -> bool:
        """Labels are moved apart, so their order may change."""
        return False

    def __call__(self, pooled: Probabilities) -> Probabilities:
        """Calibrate [n, c]."""
        return softmax(np.log(pooled + _TINY) * self.scales + self.biases)


class BetaCurve(Frozen):
    """The calibration map of one label: logit of the truth = a log p - b log(1 - p) + c (Kull et al. 2017)."""

    a: float = Field(ge=0)
    b: float = Field(ge=0)
    c: float

    def __call__(self, shares: Probabilities) -> Probabilities:
        """Calibrate one label's probabilities, [n]."""
        logits = self.a * np.log(shares + _TINY) - self.b * np.log(1 - shares + _TINY) + self.c
        return np.asarray(1 / (1 + np.exp(-logits.clip(-500, 500))))


class BetaCalibration(Frozen):
    """A beta curve for each label against the rest, renormalised."""

    kind: Literal["beta"] = "beta"
    curves: tuple[BetaCurve, ...] = Field(min_length=2)

    @property
    def keeps_order(self) -> bool:
        """Each label has its own curve, so their order may change."""
        return False

    def __call__(self, pooled: Probabilities) -> Probabilities:
        """Calibrate [n, c]."""
        return _one_vs_rest(pooled, [curve(given) for curve, given in zip(self.curves, pooled.T, strict=True)])


class IsotonicCurve(Frozen):
    """The calibration map of one label: straight between knots, level beyond them."""

    shares: tuple[float, ...] = Field(min_length=1)
    """Rising."""
    calibrated: tuple[float, ...] = Field(min_length=1)
    """Never falling, between 0 and 1."""

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        if len(self.shares) != len(self.calibrated):
            raise ValueError(f"an isotonic curve has {len(self.shares)} and {len(self.calibrated)} coordinates")
        if (np.diff(self.shares) <= 0).any() or (np.diff(self.calibrated) < 0).any():
            raise ValueError("an isotonic curve falls")
        return self

    def __call__(self, shares: Probabilities) -> Probabilities:
        """Calibrate one label's probabilities, [n]."""
        return np.interp(shares, self.shares, self.calibrated)


class IsotonicCalibration(Frozen):
    """An isotonic curve for each label against the rest, renormalised (Zadrozny & Elkan 2002)."""

    kind: Literal["isotonic"] = "isotonic"
    curves: tuple[IsotonicCurve, ...] = Field(min_length=2)

    @property
    def keeps_order(self) -> bool:
        """Each label has its own curve, so their order may change."""
        return False

    def __call__(self, pooled: Probabilities) -> Probabilities:
        """Calibrate [n, c]."""
        return _one_vs_rest(pooled, [curve(given) for curve, given in zip(self.curves, pooled.T, strict=True)])


Calibrator = Annotated[
    Identity | Temperature | VectorScaling | BetaCalibration | IsotonicCalibration, Field(discriminator="kind")
]
"""Each has `keeps_order`: whether the order of a row's labels, and so its likeliest one, is never changed."""


def apply_temperature(pooled: Probabilities, temperature: float) -> Probabilities:
    """Sharpen (below 1) or soften (above 1) probabilities: p^(1/T), renormalised; shape [..., c] kept."""
    return softmax(np.log(pooled + _TINY) / temperature)


def apply_member_temperatures(members: Probabilities, temperatures: Sequence[float]) -> Probabilities:
    """Give each member its own temperature before pooling; shape [k, n, c] kept. None of them: as they are.

    Raises:
        ValueError: there are neither none nor k temperatures.
    """
    if not temperatures:
        return members
    return np.stack([apply_temperature(given, t) for given, t in zip(members, temperatures, strict=True)])


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
        current = softmax(inverse * logs)
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


def _one_vs_rest(pooled: Probabilities, calibrated: Sequence[Probabilities]) -> Probabilities:
    """Renormalise what each label's curve gives, [n] for each; a row to which all give nothing stays as it is."""
    shares = np.stack(calibrated, axis=1) + _TINY * pooled
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
