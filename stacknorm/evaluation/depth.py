"""The stack in depth against the stack in width: what a cascade saves, and what it keeps."""

from dataclasses import dataclass

from stacknorm.bundle import CascadeSpec
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import Rows
from stacknorm.evaluation.paired import Paired, compare_answers


@dataclass(frozen=True, slots=True)
class StageScore:
    """Rows that end at one stage."""

    members: tuple[str, ...]
    """That run at it."""
    rows: int
    right: int
    """As the cascade labels them."""


@dataclass(frozen=True, slots=True)
class CascadeScore:
    """A cascade beside the whole stack, on the same rows."""

    mode: str
    stages: tuple[StageScore, ...]
    changed: int
    """Rows that get another label than from the whole stack."""
    against_width: Paired
    """The cascade less the whole stack."""
    cost: float | None
    """Seconds a text of the cascade as a share of those of the whole stack, measured by turns; None if not measured."""


def score_cascade(
    spec: CascadeSpec, width: Answers, cascade: Answers, stages: Rows, cost: float | None = None
) -> CascadeScore:
    """Compare a cascade with the whole stack.

    Args:
        spec: what it was built from.
        width: the whole stack's answers, [n].
        cascade: its own, [n].
        stages: the stage at which each row ended, counted from 1, [n].
        cost: of a text, as a share of the whole stack's.
    """
    return CascadeScore(
        mode=spec.mode,
        stages=tuple(
            StageScore(stage.members, int((stages == number).sum()), int(cascade.right[stages == number].sum()))
            for number, stage in enumerate(spec.stages, start=1)
        ),
        changed=int((width.guess != cascade.guess).sum()),
        against_width=compare_answers(cascade, width),
        cost=cost,
    )
