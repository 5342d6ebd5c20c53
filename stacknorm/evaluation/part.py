"""Every score of a stack and its members on one set of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from stacknorm.bundle import Interval
from stacknorm.evaluation.abstention import SetScores, score_sets
from stacknorm.evaluation.answers import Answers, Chosen
from stacknorm.evaluation.classes import (
    Bin,
    ClassScore,
    Kept,
    confuse,
    ece_if_calibrated,
    reliability,
    risk_coverage,
    score_classes,
)
from stacknorm.evaluation.metrics import accuracy, score
from stacknorm.evaluation.paired import Paired, compare_answers
from stacknorm.pooling.conformal import ClassConditional


@dataclass(frozen=True, slots=True)
class Systems:
    """A stack and its members on the same rows."""

    stack: Answers
    members: Mapping[str, Answers]
    """In manifest order."""
    best_member: str
    """The member that did best on the held-out part of the training data, so chosen without these rows."""

    def only(self, chosen: Chosen) -> "Systems":
        """The chosen rows, [n]."""
        members = {name: answers.only(chosen) for name, answers in self.members.items()}
        return Systems(self.stack.only(chosen), members, self.best_member)


@dataclass(frozen=True, slots=True)
class Part:
    """Scores on one set of rows."""

    rows: int
    stack: Mapping[str, Interval]
    """Metric -> value with interval."""
    members: Mapping[str, Mapping[str, Interval]]
    best_member: str
    paired: Mapping[str, Paired]
    """The stack against each member."""
    ece_if_calibrated: Interval
    """What the stack's ECE would be if it were perfectly calibrated: so many rows alone give this much."""
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """True label down, given label across."""
    reliability: tuple[Bin, ...]
    risk_coverage: tuple[Kept, ...]
    sets: SetScores | None
    """None where the bundle has no conformal thresholds."""


def score_part(systems: Systems, conformal: ClassConditional | None = None) -> Part:
    """Score a stack and its members."""
    stack = systems.stack
    return Part(
        rows=len(stack.truth),
        stack=score(stack.probabilities, stack.truth, stack.bootstrap),
        members={name: score(a.probabilities, a.truth, a.bootstrap) for name, a in systems.members.items()},
        best_member=systems.best_member,
        paired={name: compare_answers(stack, answers) for name, answers in systems.members.items()},
        ece_if_calibrated=ece_if_calibrated(stack),
        classes=score_classes(stack),
        confusion=confuse(stack),
        reliability=reliability(stack),
        risk_coverage=risk_coverage(stack),
        sets=score_sets(stack, conformal),
    )


def accuracy_on(answers: Answers, chosen: Chosen | None) -> Interval | None:
    """The accuracy on the chosen rows, [n]; None where there are none."""
    if chosen is None or not chosen.any():
        return None
    some = answers.only(chosen)
    return some.bootstrap.interval(partial(accuracy, some.probabilities, some.truth))


def confusions(part: Part, most: int) -> list[tuple[int, str, str]]:
    """The commonest mistakes: rows, true label, given label."""
    names = [one.label for one in part.classes]
    wrong = [
        (count, names[true], names[given])
        for true, row in enumerate(part.confusion)
        for given, count in enumerate(row)
        if true != given and count
    ]
    return sorted(wrong, key=lambda found: -found[0])[:most]
