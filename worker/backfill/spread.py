"""What is to be believed of a key nobody has seen: the spread of rates between the keys of its type."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import gamma

from worker.surge.rules import Prior

MIN_KEYS = 10
"""Fewer tell a mean alone."""
A0_FLOOR, A0_CEILING = 0.5, 5.0
BUSY = 0.99
"""Where rates spread wider than the floor allows, the prior is right about keys as busy as this share of all."""

Array = npt.NDArray[np.float64]


def fit_prior(stories: npt.ArrayLike, days: npt.ArrayLike, usual: Prior) -> Prior:
    """The Gamma spread of the rates of keys, by maximum likelihood of their negative binomial counts.

    Args:
        stories: negative ones of each key, without the one that made it known.
        days: of exposure since then.
        usual: what stands where there is nothing to go by.
    """
    n, t = np.asarray(stories, dtype=np.float64), np.asarray(days, dtype=np.float64)
    n, t = n[t > 0], t[t > 0]
    if not n.sum():
        return usual
    mean = float(n.sum() / t.sum())
    if len(n) < MIN_KEYS:
        return _round(Prior(float((n / t).mean()) if t.min() > 1 else mean, A0_FLOOR))
    found = minimize(_surprise, np.log([mean, 1.0]), args=(n, t), method="L-BFGS-B", bounds=[(-20, 20), (-7, 7)])
    mean, a0 = (float(value) for value in np.exp(found.x))
    if a0 < A0_FLOOR:
        mean = float(mean * gamma.ppf(BUSY, a0) / a0 / gamma.ppf(BUSY, A0_FLOOR) * A0_FLOOR)
    return _round(Prior(mean, min(max(a0, A0_FLOOR), A0_CEILING)))


def _surprise(parameters: Array, n: Array, t: Array) -> float:
    mean, a = np.exp(parameters)
    b = a / mean
    return -float((gammaln(a + n) - gammaln(a) + a * np.log(b / (b + t)) + n * np.log(t / (b + t))).mean())


def _round(prior: Prior) -> Prior:
    """To three digits: the last ones of a search differ between machines."""
    return Prior(float(f"{prior.mean_a_day:.3g}"), float(f"{prior.a0:.3g}"))
