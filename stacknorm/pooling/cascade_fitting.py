"""Fitting a cascade on held-out texts: what each early stage answers with, and how sure it must be to stop.

What an early end loses is not counted in labels that turn out wrong, which are few on a few thousand rows, but in
expectation: by how much the whole stack holds its own label for likelier than the early one. So rows need no label of
a task to tell what ending early would cost it, and a text can be weighed for all its tasks at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.cascade import Rows, is_sure
from stacknorm.pooling.choice import Choice, choose
from stacknorm.pooling.held_out import HeldOut, Indices, Prints, split_texts
from stacknorm.pooling.pool import Pool, Probabilities

LINEAR_POOLS = ("mean", "weighted", "selection")
"""Names of pools an exact cascade can bound: what the members still to come can add is their weight."""
ORDER_KEEPING = ("identity", "temperature")
"""Names of calibrators that never change which label is likeliest."""

Values = npt.NDArray[np.float64]
Stops = Mapping[str, tuple[float, ...]]
"""Task -> the confidence at which each early stage stops."""

_PARTS = 5
_HALVINGS = 40
_TINY = 1e-9  # keeps logits finite


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What one task's rows, texts or mentions in them, are told as they pass the stages."""

    said: tuple[Probabilities, ...]
    """By each stage, the whole stack last, each [n, c]. NaN where a stage cannot answer: no row ends there."""
    texts: Indices
    """The text of each row, counted through all texts, [n]."""

    def sure(self, stops: Sequence[float]) -> list[Rows]:
        """Which rows each early stage is sure enough of, each [n]."""
        return [is_sure(given, stop) for given, stop in zip(self.said[:-1], stops, strict=True)]

    def losses(self) -> list[Values]:
        """What each row is expected to lose by ending at each early stage, each [n]."""
        return [expected_loss(given, self.said[-1]) for given in self.said[:-1]]

    def answers(self, ended: Indices) -> Probabilities:
        """What rows are told whose texts end at these stages, [texts] -> [n, c]."""
        return np.stack(self.said)[ended[self.texts], np.arange(len(self.texts))]

    def within(self, texts: Rows) -> "Course":
        """Only the rows of some texts; [texts] says which."""
        kept = texts[self.texts]
        return Course(tuple(given[kept] for given in self.said), self.texts[kept])


Courses = Mapping[str, Course]
"""Task -> its course."""


def choose_settling(held_out: HeldOut) -> Choice:
    """Choose among the pools and calibrators that an exact cascade can bound, as `choose` does among all.

    Raises:
        DataError: as `choose`.
    """
    return choose(held_out, LINEAR_POOLS, ORDER_KEEPING)


def choose_early(held_out: HeldOut, members: Sequence[int]) -> Choice:
    """Choose what an early stage answers with.

    Args:
        held_out: rows that no member was trained on.
        members: positions of those that have run by then, at least one.
    """
    return choose(replace(held_out, members=held_out.members[list(members)]))


def tell(pool: Pool, calibrator: Calibrator, members: Probabilities) -> Probabilities:
    """What a stage says; [k, n, c] -> [n, c], NaN where a member said nothing."""
    heard = ~np.isnan(members).any(axis=(0, 2))
    said = np.full(members.shape[1:], np.nan)
    said[heard] = calibrator(pool(members[:, heard]))
    return said


def expected_loss(early: Probabilities, whole: Probabilities) -> Values:
    """The accuracy that answering early is expected to lose, if the whole stack is calibrated; [n, c] twice -> [n].

    At least 0; infinite where either has no answer.
    """
    loss = np.full(len(early), np.inf)
    rows = np.flatnonzero(~(np.isnan(early) | np.isnan(whole)).any(axis=1))
    loss[rows] = whole[rows].max(axis=1) - whole[rows, early[rows].argmax(axis=1)]
    return loss


@dataclass(frozen=True, slots=True)
class LossCurve:
    """What ending at a stage is expected to lose, by its confidence c: sigmoid(intercept + slope * logit(c))."""

    intercept: float
    slope: float

    @classmethod
    def fit(cls, confidence: Values, loss: Values) -> Self:
        """Fit by likelihood, each loss being a share of a wrong label (Papke & Wooldridge 1996); [n] twice.

        Rows without an answer, whose confidence is NaN, have no part in it. Where nothing is ever lost, or no row is
        left, the curve says so.
        """
        rows = np.flatnonzero(np.isfinite(loss))
        if not len(rows):
            return cls(np.inf, 0)
        if not loss[rows].any():
            return cls(-np.inf, 0)
        odds = logit(confidence[rows].clip(_TINY, 1 - _TINY))[:, None]
        right_or_wrong = np.repeat([0, 1], len(rows))
        fitted = LogisticRegression().fit(
            np.tile(odds, (2, 1)), right_or_wrong, sample_weight=np.concatenate([1 - loss[rows], loss[rows]])
        )
        return cls(float(fitted.intercept_[0]), float(fitted.coef_[0, 0]))

    def stop(self, limit: float) -> float:
        """The lowest confidence at which no more than `limit` is lost, from 0 to 1.

        Where losses do not fall with confidence it is 0 or 1, by whether the middle keeps to the limit.
        """
        room = float(logit(limit)) - self.intercept
        if self.slope >= 0:
            return float(room < 0)
        return float(expit(room / self.slope))


def fit_stops(courses: Courses, texts: int, max_loss: float, spared: Sequence[float]) -> Stops:
    """Fit the confidence at which each stage may stop, of all tasks together.

    A text ends where for each of its tasks the loss expected there is at most a price times what ending there spares:
    to equal losses where they buy the same is the cheapest way to lose no more. The price is the highest at which no
    task loses more than `max_loss`; since all tasks of a text must be sure, each loses less than if it decided alone.

    Args:
        courses: of every task.
        texts: how many there are.
        max_loss: expected accuracy that stopping early may cost a task, such as 0.002.
        spared: what ending at each early stage spares, such as the number of members that do not run.
    """
    losses = {task: part.losses() for task, part in courses.items()}
    curves = {
        task: [LossCurve.fit(said.max(axis=1), loss) for said, loss in zip(part.said, losses[task], strict=False)]
        for task, part in courses.items()
    }

    def stops(price: float) -> dict[str, tuple[float, ...]]:
        limits = [min(price * worth, 1) for worth in spared]
        return {task: tuple(map(LossCurve.stop, found, limits)) for task, found in curves.items()}

    kept, too_much = 0.0, 1.0
    for _ in range(_HALVINGS):
        price = (kept + too_much) / 2
        ended = end_texts(courses, stops(price), texts)
        if all(_lost(losses[task], ended[part.texts]) <= max_loss for task, part in courses.items()):
            kept = price
        else:
            too_much = price
    return stops(kept)


def end_texts(courses: Courses, stops: Stops, texts: int) -> Indices:
    """The stage at which each text ends, counted from 0; [texts]."""
    open_ = np.zeros((len(next(iter(stops.values()))) + 1, texts), dtype=np.bool_)
    for task, part in courses.items():
        for stage, sure in enumerate(part.sure(stops[task])):
            open_[stage, part.texts[~sure]] = True
    return np.asarray(np.argmin(open_, axis=0))


def end_unseen(courses: Courses, prints: Prints, max_loss: float, spared: Sequence[float]) -> Indices:
    """The same by confidences that were fitted without the text, so that they do not flatter; [texts].

    Args:
        courses: of every task.
        prints: fingerprint of each text, [texts].
        max_loss: as for `fit_stops`.
        spared: as for `fit_stops`.
    """
    ended = np.empty(len(prints), dtype=np.int64)
    for judged in split_texts(prints, _PARTS, seed=1):
        fitted = {task: part.within(~judged) for task, part in courses.items()}
        ended[judged] = end_texts(courses, fit_stops(fitted, len(prints), max_loss, spared), len(prints))[judged]
    return ended


def _lost(losses: Sequence[Values], ended: Indices) -> float:
    """What ending at these stages is expected to lose, averaged over rows; each [n]."""
    lost = sum(float(loss[ended == stage].sum()) for stage, loss in enumerate(losses))
    return lost / max(len(ended), 1)
