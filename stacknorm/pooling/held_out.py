"""Predictions on rows that their models were not trained on: the one thing pools and calibrators are fitted on.

Weights fitted on rows a member was trained on reward the member that has memorised them. So every fitter takes a
`HeldOut`, and a `HeldOut` cannot be made without saying what the models were trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from stacknorm.errors import DataError
from stacknorm.pooling.pool import Probabilities, to_pairs

Prints = npt.NDArray[np.int64]
"""Fingerprints of texts (`stacknorm.text.fingerprints`)."""
Truth = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

UNLISTED: Prints = np.empty(0, dtype=np.int64)
"""What a checkpoint was trained on, where nobody can list it. Nothing can be checked then; say so on its card."""

_TINY = 1e-12
_ROUNDING = 1e-3  # softmax in half precision


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What every member says about rows that the models which say it were not trained on.

    One split: `HeldOut(members, truth, prints, trained_on=(prints_of_training_rows,))`. Out of fold, where model f
    predicts the rows of fold f: the same with `folds`, and in `trained_on` one array for each fold.

    Raises:
        DataError: rows were trained on by the model that predicts them (as many as the message says).
        ValueError: shapes or values do not fit together.
    """

    members: Probabilities
    """Of each member, on each row, for each label: [k, n, c], not yet pooled."""
    truth: Truth
    """The label of each row, [n]."""
    prints: Prints
    """The fingerprint of each row's text, [n]."""
    trained_on: tuple[Prints, ...]
    """The fingerprints of all rows, of whatever task, that the models of each fold were trained on."""
    folds: Indices | None = None
    """Which entry of `trained_on` belongs to the models that predicted a row, [n]; None: the only one."""

    def __post_init__(self) -> None:
        self._check_shapes()
        seen = np.zeros(len(self.truth), dtype=np.bool_)
        for fold, prints in enumerate(self.trained_on):
            seen |= (self._fold_of_rows() == fold) & np.isin(self.prints, prints)
        if seen.any():
            raise DataError(
                f"{int(seen.sum())} of {len(seen)} rows to fit on were trained on (same text, URLs and punctuation "
                "aside): leave them out, or predict them out of fold"
            )

    @classmethod
    def of_labels(
        cls,
        members: Probabilities,
        applies: npt.NDArray[np.bool_],
        prints: Prints,
        trained_on: tuple[Prints, ...],
        folds: Indices | None = None,
    ) -> Self:
        """Rows of a task with any number of labels a text, as binary tasks that share one pool.

        Args:
            members: the probability that each label applies, each for itself, [k, n, c].
            applies: which labels do, [n, c].
            prints: as above.
            trained_on: as above.
            folds: as above.

        Returns:
            Members [k, n * c, 2], truth [n * c]: row i * c + j is about label j of text i (see `to_pairs`).
        """
        labels = members.shape[2]
        return cls(
            to_pairs(members),
            applies.reshape(-1).astype(np.int64),
            prints.repeat(labels),
            trained_on,
            None if folds is None else folds.repeat(labels),
        )

    def take(self, rows: Indices | npt.NDArray[np.bool_]) -> Self:
        """Some of the rows."""
        folds = None if self.folds is None else self.folds[rows]
        return replace(
            self, members=self.members[:, rows], truth=self.truth[rows], prints=self.prints[rows], folds=folds
        )

    def split(self, parts: int, seed: int) -> Iterator[tuple[Self, Indices]]:
        """Cross-validate inside the held-out rows: (the rows to fit on, the positions of those to score).

        Copies of a text, and the labels of one text, stay together. The parts depend on the texts and the seed, not
        on the order of rows; there are fewer of them than asked for where there are fewer texts.

        Raises:
            DataError: there are fewer than two different texts.
        """
        for scored in split_texts(self.prints, parts, seed):
            yield self.take(~scored), np.flatnonzero(scored)

    def _fold_of_rows(self) -> Indices:
        return np.zeros(len(self.truth), dtype=np.int64) if self.folds is None else self.folds

    def _check_shapes(self) -> None:
        if self.members.ndim != 3 or self.members.size == 0 or self.members.shape[2] < 2:
            raise ValueError(f"members must be [k, n, c] with two labels or more, not {list(self.members.shape)}")
        _, rows, labels = self.members.shape
        if any(len(values) != rows for values in (self.truth, self.prints, self._fold_of_rows())):
            raise ValueError(f"{rows} rows, but {len(self.truth)} labels and {len(self.prints)} fingerprints")
        if not 0 <= self.truth.min() <= self.truth.max() < labels:
            raise ValueError(f"labels from {self.truth.min()} to {self.truth.max()}, but there are {labels}")
        if not 0 <= self._fold_of_rows().min() <= self._fold_of_rows().max() < len(self.trained_on):
            raise ValueError(f"{len(self.trained_on)} folds were trained, but rows name others")
        if not (np.abs(self.members.sum(axis=2) - 1) <= _ROUNDING).all() or self.members.min() < 0:
            raise ValueError("members do not give probabilities")


def split_texts(prints: Prints, parts: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Part rows by their texts' fingerprints, [n]; each part says which rows are in it, [n].

    Raises:
        DataError: there are fewer than two different texts.
    """
    texts, text_of = np.unique(prints, return_inverse=True)
    if len(texts) < 2:
        raise DataError(f"cannot fit and score on {len(texts)} text: at least two different ones are needed")
    parts = min(parts, len(texts))
    part_of = (np.random.default_rng(seed).permutation(len(texts)) % parts)[text_of]
    for part in range(parts):
        yield part_of == part


def row_nll(probabilities: Probabilities, truth: Truth) -> Probabilities:
    """Negative log-likelihood of each row in nats, [n, c] -> [n]."""
    return np.asarray(-np.log(probabilities[np.arange(len(truth)), truth] + _TINY))


def nll(probabilities: Probabilities, truth: Truth) -> float:
    """Mean negative log-likelihood in nats."""
    return float(row_nll(probabilities, truth).mean())
