"""Score a bundle on labelled rows: every member and the stack side by side, with intervals, and clean of leaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from stacknorm.bundle import FINGERPRINTS_FILE, Bundle, Interval, load_bundle
from stacknorm.dataset import Row, read_labelled
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.metrics import Truth, paired_nll, score
from stacknorm.pooling.pool import Probabilities
from stacknorm.text import fingerprints

STACK = "stack"


@dataclass(frozen=True, slots=True)
class Part:
    """Scores on one set of rows."""

    rows: int
    scores: Mapping[str, Mapping[str, Interval]]
    """`stack` or member -> metric -> value with interval."""
    best_member: str
    """The member that was best on the held-out part of the training data, not the best on these rows."""
    nll_difference: Interval
    """NLL of the stack less NLL of `best_member`, rows drawn together; below zero the stack is better."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the paired interval lies on one side of zero."""
        return self.nll_difference.low > 0 or self.nll_difference.high < 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a bundle on one file."""

    bundle: str
    digest: str
    data: str
    task: str
    precision: str
    official: Part
    """On all rows of the file."""
    clean: Part | None
    """On rows whose normalised text is not in the training data; none where the bundle does not know its texts."""


def evaluate_bundle(bundle: str, data: Path, task: str, order: Sequence[str] = ()) -> Evaluation:
    """Evaluate a bundle on a labelled file.

    Args:
        bundle: name or directory.
        data: CSV or JSONL with `text` and `label`.
        task: a task of the bundle.
        order: what integer labels in the file mean.

    Raises:
        BundleError: the bundle cannot be loaded.
        DataError: the file cannot be used, or the bundle has no such task.
    """
    found = load_bundle(bundle)
    if task not in found.manifest.tasks:
        raise DataError(f"bundle {found.manifest.name} has no task {task!r}, only {', '.join(found.manifest.tasks)}")
    rows = read_labelled(data, found.manifest.tasks[task].space(task), order)
    engine = Engine.load(found.root)
    members = engine.member_probabilities([row.text for row in rows])[task]
    given = dict(zip(found.manifest.members_of(task), members, strict=True))
    given = {STACK: engine.pooled(task, members)} | given
    truth = np.array([row.label for row in rows])
    clean = clean_rows(found, rows)
    best = found.manifest.tasks[task].best_member
    return Evaluation(
        bundle=found.manifest.name,
        digest=found.digest,
        data=data.name,
        task=task,
        precision=engine.precision,
        official=_score_part(given, truth, best),
        clean=None
        if clean is None or not clean.any()
        else _score_part({name: p[clean] for name, p in given.items()}, truth[clean], best),
    )


def clean_rows(bundle: Bundle, rows: Sequence[Row]) -> npt.NDArray[np.bool_] | None:
    """Which rows' normalised text, URLs and punctuation removed, is not in the training data; [n]."""
    if FINGERPRINTS_FILE not in bundle.manifest.files:
        return None
    known = load_file(bundle.root / FINGERPRINTS_FILE)["fingerprints"]
    return ~np.isin(fingerprints([row.text for row in rows]), known)


def _score_part(given: Mapping[str, Probabilities], truth: Truth, best: str) -> Part:
    return Part(
        rows=len(truth),
        scores={name: score(probabilities, truth) for name, probabilities in given.items()},
        best_member=best,
        nll_difference=paired_nll(given[STACK], given[best], truth),
    )
