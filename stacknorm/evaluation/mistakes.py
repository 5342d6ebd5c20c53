"""The rows a stack is most wrong about: where a person should look first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stacknorm.evaluation.answers import Chosen
from stacknorm.evaluation.part import Systems


@dataclass(frozen=True, slots=True)
class Mistake:
    """One row and what was said of it."""

    text: str
    truth: str
    given: str
    confidence: float
    """The stack's, in the label it gave."""
    members: Mapping[str, str]
    """What each member said."""
    leaked: bool
    """Whether its text was trained on."""


def worst_mistakes(systems: Systems, texts: Sequence[str], leaked: Chosen | None, most: int) -> tuple[Mistake, ...]:
    """The wrong rows, the most confident first.

    Args:
        systems: on n rows.
        texts: what each row is shown as, [n].
        leaked: which rows were trained on, [n]; None where that is not known.
        most: how many at most.
    """
    stack = systems.stack
    wrong = np.flatnonzero(~stack.right)
    order = wrong[np.argsort(-stack.confidence[wrong], kind="stable")][:most]
    return tuple(
        Mistake(
            text=texts[row],
            truth=stack.labels[stack.truth[row]],
            given=stack.labels[stack.guess[row]],
            confidence=float(stack.confidence[row]),
            members={name: stack.labels[answers.guess[row]] for name, answers in systems.members.items()},
            leaked=bool(leaked is not None and leaked[row]),
        )
        for row in order.tolist()
    )
