"""How each calibrator is fitted, by name, on held-out rows that are pooled already.

Richer ones are fitted with a prior around changing nothing that weighs as much as one row, so that a label with few
rows, or rows that are told apart perfectly, cannot send a number to infinity.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from stacknorm.errors import DataError
from stacknorm.pooling.calibrate import (
    BetaCalibration,
    BetaCurve,
    Calibrator,
    Identity,
    IsotonicCalibration,
    IsotonicCurve,
    Temperature,
    VectorScaling,
    fit_temperature,
)
from stacknorm.pooling.held_out import HeldOut, Truth
from stacknorm.pooling.pool import Pool, Probabilities, softmax

_TINY = 1e-12
_ROWS_A_NUMBER = 20
_ISOTONIC_ROWS = 1000


@dataclass(frozen=True, slots=True)
class CalibratorMethod:
    """One way to fit a calibrator."""

    fit: Callable[[Probabilities, Truth], Calibrator]
    """From pooled probabilities [n, c] and labels [n]."""
    numbers: Callable[[int], int]
    """How many numbers it fits, given how many labels: what it can overfit with."""
    least_rows: Callable[[int], int]
    """How many rows it must have, given how many labels."""


def fit_calibrator(name: str, held_out: HeldOut, pool: Pool) -> Calibrator:
    """Fit the calibrator of that name on what `pool` gives.

    Raises:
        DataError: there is none of that name, or too few rows for it.
    """
    method = calibrator_method(name)
    _, rows, labels = held_out.members.shape
    if rows < method.least_rows(labels):
        raise DataError(f"{name} calibration of {labels} labels needs {method.least_rows(labels):,} rows, not {rows:,}")
    return method.fit(pool(held_out.members), held_out.truth)


def calibrator_method(name: str) -> CalibratorMethod:
    """The calibrator of that name.

    Raises:
        DataError: there is none; the message lists them.
    """
    if name not in CALIBRATORS:
        raise DataError(f"no calibrator {name!r}: it is one of {', '.join(CALIBRATORS)}")
    return CALIBRATORS[name]


def fit_member_temperatures(held_out: HeldOut) -> tuple[float, ...]:
    """A temperature for each member by itself, to be applied before pooling (`apply_member_temperatures`).

    It puts members of different training on one footing. A calibrator after pooling is still needed: a pool of
    calibrated members is underconfident.
    """
    return tuple(fit_temperature(given, held_out.truth) for given in held_out.members)


def _fit_vector(pooled: Probabilities, truth: Truth) -> VectorScaling:
    rows, labels = pooled.shape
    logs = np.log(pooled + _TINY)
    target = np.eye(labels)[truth]
    nothing = np.append(np.ones(labels), np.zeros(labels))

    def loss(numbers: Probabilities) -> tuple[float, Probabilities]:
        shares = softmax(logs * numbers[:labels] + numbers[labels:])
        slope = shares - target
        likely = -np.log((shares * target).sum(axis=1) + _TINY).sum()
        slopes = np.append((slope * logs).sum(axis=0), slope.sum(axis=0))
        return _with_prior(likely, slopes, numbers - nothing, rows)

    numbers = minimize(loss, nothing, jac=True, method="L-BFGS-B").x
    return VectorScaling(scales=tuple(numbers[:labels].tolist()), biases=tuple(numbers[labels:].tolist()))


def _fit_beta(pooled: Probabilities, truth: Truth) -> BetaCalibration:
    return BetaCalibration(curves=tuple(_fit_beta_curve(given, truth == label) for label, given in enumerate(pooled.T)))


def _fit_beta_curve(shares: Probabilities, is_true: Truth) -> BetaCurve:
    """Logistic regression on log p and -log(1 - p) whose coefficients are not negative (Kull et al. 2017, section 4).

    The bounds give the constrained optimum at once, where the paper drops a negative coefficient and fits again.
    """
    inputs = np.stack([np.log(shares + _TINY), -np.log(1 - shares + _TINY), np.ones(len(shares))], axis=1)
    nothing = np.array([1.0, 1.0, 0.0])
    sign = np.where(is_true, 1.0, -1.0)

    def loss(numbers: Probabilities) -> tuple[float, Probabilities]:
        margins = sign * (inputs @ numbers)
        slopes = inputs.T @ (-sign * np.exp(-np.logaddexp(0, margins)))
        return _with_prior(np.logaddexp(0, -margins).sum(), slopes, numbers - nothing, len(shares))

    bounds = [(0, None), (0, None), (None, None)]
    a, b, c = minimize(loss, nothing, jac=True, method="L-BFGS-B", bounds=bounds).x.tolist()
    return BetaCurve(a=a, b=b, c=c)


def _with_prior(loss: float, slopes: Probabilities, distance: Probabilities, rows: int) -> tuple[float, Probabilities]:
    """A summed loss and its slopes with a standard normal prior on `distance`, a row."""
    return float(loss + distance @ distance / 2) / rows, (slopes + distance) / rows


def _fit_isotonic(pooled: Probabilities, truth: Truth) -> IsotonicCalibration:
    return IsotonicCalibration(
        curves=tuple(_fit_isotonic_curve(given, truth == label) for label, given in enumerate(pooled.T))
    )


def _fit_isotonic_curve(shares: Probabilities, is_true: Truth) -> IsotonicCurve:
    """Isotonic regression that never says never: a level of n rows that all agree stays 1 / (n + 2) off 0 and 1."""
    least = 1 / (len(shares) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least).fit(shares, is_true)
    return IsotonicCurve(shares=tuple(model.X_thresholds_.tolist()), calibrated=tuple(model.y_thresholds_.tolist()))


CALIBRATORS: Mapping[str, CalibratorMethod] = MappingProxyType(
    {
        "identity": CalibratorMethod(lambda _pooled, _truth: Identity(), lambda _c: 0, lambda _c: 0),
        "temperature": CalibratorMethod(
            lambda pooled, truth: Temperature(temperature=fit_temperature(pooled, truth)),
            lambda _c: 1,
            lambda _c: _ROWS_A_NUMBER,
        ),
        "vector": CalibratorMethod(_fit_vector, lambda c: 2 * c, lambda c: _ROWS_A_NUMBER * 2 * c),
        "beta": CalibratorMethod(_fit_beta, lambda c: 3 * c, lambda c: _ROWS_A_NUMBER * 3 * c),
        "isotonic": CalibratorMethod(_fit_isotonic, lambda c: 20 * c, lambda c: max(_ISOTONIC_ROWS, 100 * c)),
    }
)
"""Every calibrator by name, simple ones first. An isotonic curve has as many numbers as the data asks for; it counts
as 20 a label."""
