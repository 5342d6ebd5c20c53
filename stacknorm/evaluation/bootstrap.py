"""Bootstrap intervals: what a score might have been, had other rows been drawn.

A resample is a vector of counts, how often each row is in it, so a score that is a function of counts of rows is
computed for all resamples by one matrix product. Samples are [b, n]: resamples x rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import Interval

Samples = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Statistic = Callable[[Samples], Values]
"""From samples [b, n] to values [..., b]."""

RESAMPLES = 1000
SEED = 0
LEVELS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The same resamples for everything that is scored on the same rows, so that differences are paired."""

    documents: Rows
    """The document each row belongs to, [n]; rows of one document are drawn together."""
    resamples: int = RESAMPLES
    seed: int = SEED
    block_counts: int = 8_000_000
    """Counts held at a time, 64 MB of them; draws do not depend on it."""

    @classmethod
    def of_rows(cls, rows: int) -> "Bootstrap":
        """For rows that are documents of their own."""
        return cls(np.arange(rows))

    def blocks(self) -> Iterator[Samples]:
        """All samples, a bounded number at a time; the same at every call."""
        random = np.random.default_rng(self.seed)
        _, places = np.unique(self.documents, return_inverse=True)
        documents = int(places.max()) + 1
        height = max(1, self.block_counts // max(documents, len(places)))
        for start in range(0, self.resamples, height):
            size = min(height, self.resamples - start)
            drawn = random.integers(documents, size=(size, documents)) + documents * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * documents).reshape(size, documents)
            yield counts[:, places].astype(np.float64)

    def resample(self, statistic: Statistic) -> Values:
        """A statistic on every sample, [..., resamples]."""
        return np.concatenate([np.asarray(statistic(block)) for block in self.blocks()], axis=-1)

    def interval(self, statistic: Statistic) -> Interval:
        """A statistic [b] on the rows as they are, with its 95 % percentile interval."""
        (found,) = self.intervals(lambda samples: np.asarray(statistic(samples))[None])
        return found

    def intervals(self, statistic: Statistic) -> tuple[Interval, ...]:
        """Several statistics at once, [m, b] -> m intervals."""
        values = np.asarray(statistic(np.ones((1, len(self.documents)))))[:, 0]
        low, high = np.percentile(self.resample(statistic), LEVELS, axis=-1)
        return tuple(
            Interval(value=round(float(v), 5), low=round(float(lo), 5), high=round(float(hi), 5))
            for v, lo, hi in zip(values, low, high, strict=True)
        )


def weighted_mean(values: Values, samples: Samples) -> Values:
    """Mean over rows of values [n] or [n, m] in each sample, [b] or [b, m]; 0 in a sample that holds no row."""
    totals = samples @ values
    return np.asarray((totals.T / samples.sum(axis=1).clip(min=1)).T)
