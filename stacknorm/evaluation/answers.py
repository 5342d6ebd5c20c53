"""What is scored: probabilities over the labels of one task, beside the truth.

A row is whatever gets a label: a text, or one mention of an entity in it. Everything that scores, draws or compares
takes answers, so it is the same for both.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stacknorm.errors import DataError
from stacknorm.evaluation.bootstrap import Bootstrap, Rows
from stacknorm.evaluation.metrics import Truth
from stacknorm.pooling.pool import Probabilities

Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one system says about some rows, and what is true."""

    labels: tuple[str, ...]
    probabilities: Probabilities
    """[n, labels]."""
    truth: Truth
    """Position in `labels` of each row's label, [n]."""
    documents: Rows
    """The text each row stands in, [n]: rows of one text are not independent, and are drawn together."""

    def __post_init__(self) -> None:
        expected = (len(self.truth), len(self.labels))
        if self.probabilities.shape != expected or self.documents.shape != self.truth.shape:
            shapes = self.probabilities.shape, self.truth.shape, self.documents.shape
            raise DataError(f"answers of shapes {shapes} for {len(self.labels)} labels do not belong together")

    def only(self, chosen: Chosen) -> "Answers":
        """The chosen rows, [n]."""
        return replace(
            self,
            probabilities=self.probabilities[chosen],
            truth=self.truth[chosen],
            documents=self.documents[chosen],
        )

    def by(self, probabilities: Probabilities) -> "Answers":
        """The same rows answered by another system."""
        return replace(self, probabilities=probabilities)

    @property
    def guess(self) -> Truth:
        """Position of the likeliest label of each row, [n]."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Probabilities:
        """Probability of the likeliest label of each row, [n]."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def right(self) -> Chosen:
        """Whether the likeliest label of each row is the true one, [n]."""
        return np.asarray(self.guess == self.truth)

    @property
    def bootstrap(self) -> Bootstrap:
        """Resamples of these rows; the same for every system that answers them."""
        return Bootstrap(self.documents)
