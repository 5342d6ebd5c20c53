"""What the labels of a head mean where its checkpoint does not say (`LABEL_0`): inferred from labelled rows.

Only fits; what it finds is written into a manifest as an explicit map, for people to check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from stacknorm.errors import LabelError
from stacknorm.labels import LabelSpace
from stacknorm.pooling.pool import Probabilities

LEAST_ROWS = 10
"""Of each label; fewer do not tell a wrong order from bad luck."""
LEAST_CONFIDENCE = 0.998
LEAST_SKILL = 0.15
"""Of the way from chance to perfect; a head below it says too little about these labels to be read."""

_FLOOR = 1e-3  # one sure and wrong row must not decide
_RESAMPLES = 500

Meanings = npt.NDArray[np.int64]
"""For each label of the head the position of the label it means, [m]."""


@dataclass(frozen=True, slots=True)
class InferredMap:
    """The most likely meaning of a head's labels, and how sure that is."""

    map: Mapping[str, str]
    """Head label -> label of the space."""
    confidence: float
    """Share of bootstrap samples of the rows that give the same map."""
    accuracy: float
    """Mean over labels of the share of their rows that the head gets right under `map`."""
    runner_up: Mapping[str, str]
    """The second most likely meaning."""
    runner_up_accuracy: float
    rows: int

    @property
    def warning(self) -> str:
        """What to tell whoever uses the map."""
        return (
            f"inferred from {self.rows} labelled rows, not declared by the model: {_describe(self.map)} "
            f"(balanced accuracy {self.accuracy:.2f}, the same in {self.confidence:.0%} of bootstrap samples); "
            f"second best: {_describe(self.runner_up)} ({self.runner_up_accuracy:.2f}). "
            "Check it against the model's card"
        )


def infer_map(
    probabilities: Probabilities, truth: npt.NDArray[np.int64], order: Sequence[str], space: LabelSpace, seed: int = 0
) -> InferredMap:
    """Find what each label of a head means: the assignment under which labelled rows are likeliest.

    Every label of the space counts alike, however many rows it has. A head with fewer labels than the space gets one
    label for each of its own; of one with more, labels are left over, and go where they are given most probability.

    Args:
        probabilities: what the head says of each row, in its own order, [n, m].
        truth: the label of each row as a position in the space, [n].
        order: the head's labels, [m].
        space: the label space, k labels.
        seed: of the bootstrap.

    Raises:
        LabelError: too few rows of a label, or the rows do not tell one meaning from another.
    """
    counts = np.bincount(truth, minlength=len(space.labels))
    if counts.min() < LEAST_ROWS:
        rare = space.labels[int(counts.argmin())]
        raise LabelError(
            f"the labels {', '.join(order)} cannot be inferred: {counts.min()} rows are {rare}, {LEAST_ROWS} are needed"
        )
    rows = [probabilities[truth == label] for label in range(len(space.labels))]
    best, second = _two_best(*_evidence(rows))
    found = InferredMap(
        map=_named(best, order, space),
        confidence=_bootstrap_share(rows, best, seed),
        accuracy=_balanced_accuracy(rows, best),
        runner_up=_named(second, order, space),
        runner_up_accuracy=_balanced_accuracy(rows, second),
        rows=len(truth),
    )
    chance = 1 / len(set(best.tolist()))
    if found.confidence < LEAST_CONFIDENCE or found.accuracy < chance + LEAST_SKILL * (1 - chance):
        raise LabelError(f"the labels {', '.join(order)} cannot be told apart. {found.warning}")
    return found


def _evidence(rows: Sequence[Probabilities]) -> tuple[Probabilities, Probabilities]:
    """Mean log-probability and mean probability of each head label on the rows of each label, both [m, k]."""
    logs = [np.log(part.clip(min=_FLOOR)).mean(axis=0) for part in rows]
    return np.stack(logs, axis=1), np.stack([part.mean(axis=0) for part in rows], axis=1)


def _assign(likelihood: Probabilities, share: Probabilities) -> Meanings:
    meanings = share.argmax(axis=1)
    own, meant = linear_sum_assignment(likelihood, maximize=True)
    meanings[own] = meant
    return np.asarray(meanings)


def _two_best(likelihood: Probabilities, share: Probabilities) -> tuple[Meanings, Meanings]:
    """The best assignment, and the best of those that differ from it (Murty 1968, first step)."""
    own, meant = linear_sum_assignment(likelihood, maximize=True)
    others = []
    for pair in zip(own, meant, strict=True):
        without = likelihood.copy()
        without[pair] = likelihood.min() * len(own) - 1
        others.append((without[linear_sum_assignment(without, maximize=True)].sum(), _assign(without, share)))
    return _assign(likelihood, share), max(others, key=lambda other: float(other[0]))[1]


def _bootstrap_share(rows: Sequence[Probabilities], best: Meanings, seed: int) -> float:
    random = np.random.default_rng(seed)
    drawn = [random.multinomial(len(part), np.full(len(part), 1 / len(part)), size=_RESAMPLES) for part in rows]
    weights = [counts / len(part) for counts, part in zip(drawn, rows, strict=True)]  # each [b, n of the label]
    logs = np.stack([w @ np.log(part.clip(min=_FLOOR)) for w, part in zip(weights, rows, strict=True)], axis=2)
    shares = np.stack([w @ part for w, part in zip(weights, rows, strict=True)], axis=2)  # [b, m, k]
    return float(np.mean([np.array_equal(_assign(*pair), best) for pair in zip(logs, shares, strict=True)]))


def _balanced_accuracy(rows: Sequence[Probabilities], meanings: Meanings) -> float:
    """Over the labels that the head has."""
    onto = np.eye(len(rows))[meanings]  # [m, k]
    return float(np.mean([((rows[label] @ onto).argmax(axis=1) == label).mean() for label in np.unique(meanings)]))


def _named(meanings: Meanings, order: Sequence[str], space: LabelSpace) -> dict[str, str]:
    return {own: space.labels[meant] for own, meant in zip(order, meanings, strict=True)}


def _describe(meaning: Mapping[str, str]) -> str:
    return ", ".join(f"{own} = {meant}" for own, meant in meaning.items())
