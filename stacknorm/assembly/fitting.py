"""What labelled rows of a user decide about a bundle: its pool and calibrator, and what a head's labels mean.

The rows must be new to every member; those a bundle knows its members were trained on are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stacknorm.bases.source import digest_file
from stacknorm.bundle import Bundle, FittedOn, Manifest, save_manifest
from stacknorm.dataset import read_labelled
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.errors import BundleError, LabelError
from stacknorm.evaluation.bootstrap import Bootstrap
from stacknorm.evaluation.leaks import seen_prints
from stacknorm.evaluation.metrics import Truth, nll, score
from stacknorm.evaluation.trial import Question, Sheet, read_sheet, task_of
from stacknorm.label_order import InferredMap, infer_map
from stacknorm.labels import LabelSpace
from stacknorm.pooling.choice import Choice, choose
from stacknorm.pooling.conformal import fit_class_conditional
from stacknorm.pooling.held_out import UNLISTED, HeldOut, Prints
from stacknorm.pooling.pool import Probabilities
from stacknorm.progress import Report
from stacknorm.text import fingerprints

STACK = "stack"
CHUNK_TEXTS = 256
"""Asked about at a time, so that progress can be told."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A bundle with a fitted pool, and what its rows cast doubt on."""

    bundle: Bundle
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Labelled rows of one task, and what a bundle's members were trained on instead."""

    task: str
    sheet: Sheet
    trained_on: Prints
    """Fingerprints of the texts."""
    origin: FittedOn | None = None
    """None: they were held out in training."""


def read_unseen(bundle: Bundle, question: Question) -> Unseen:
    """Read labelled rows to fit on.

    Raises:
        DataError: the bundle has no such task, or the file cannot be used.
    """
    seen, sheet = seen_prints(bundle, question.training_files), read_sheet(task_of(bundle, question.task), question)
    origin = FittedOn(file=question.data.name, sha256=digest_file(question.data), rows=len(sheet.truth))
    return Unseen(question.task, sheet, UNLISTED if seen is None else seen, origin)


def ask_members(engine: Engine, rows: Unseen, report: Report) -> HeldOut:
    """What every member says about rows; those that none could read are left out.

    Raises:
        DataError: rows were trained on.
    """
    sheet = rows.sheet
    return judge_members(ask_all(engine, sheet.texts, sheet.mentions, report)[rows.task], rows)


def judge_members(members: Probabilities, rows: Unseen) -> HeldOut:
    """What every member says about rows, [k, n, c], beside their labels; rows that one could not read are left out.

    Raises:
        DataError: rows were trained on.
    """
    sheet, read = rows.sheet, was_read(members)
    prints = fingerprints(list(sheet.texts))[sheet.documents]
    return HeldOut(members[:, read], sheet.truth[read], prints[read], (rows.trained_on,))


def was_read(members: Probabilities) -> npt.NDArray[np.bool_]:
    """Rows that every member could read, [k, n, c] -> [n]."""
    return np.asarray(~np.isnan(members).any(axis=(0, 2)))


def ask_all(
    engine: Engine, texts: Sequence[str], mentions: Sequence[Sequence[Mention]], report: Report
) -> dict[str, Probabilities]:
    """Task -> what every member says about texts, or about the mentions in them, [k, n, c]."""
    parts = []
    for start in range(0, len(texts), CHUNK_TEXTS):
        report("reading rows", start, len(texts))
        chunk = slice(start, start + CHUNK_TEXTS)
        parts.append(engine.member_probabilities(texts[chunk], mentions[chunk]))
    report("reading rows", len(texts), len(texts))
    return {task: np.concatenate([part[task] for part in parts], axis=1) for task in engine.tasks}


def fit_bundle(bundle: Bundle, task: str, rows: Path, integers: Sequence[str], *, report: Report) -> Fitted:
    """Choose pool and calibrator of a task on labelled rows, and write them into the bundle's manifest.

    The scores that go into the manifest are cross-validated inside the rows: every row is pooled and calibrated by
    what was fitted without it. A member whose rows say that its labels mean something else than it declares is named
    in `doubts`.

    Args:
        bundle: one without a cascade, whose thresholds belong to the pool it has.
        task: of the kind `single`.
        rows: a labelled file that no member was trained on.
        integers: what the integers 0, 1, ... in it mean.
        report: told of progress.

    Raises:
        BundleError: the bundle has a cascade, or the task is of another kind.
        DataError: the file cannot be used, or the bundle knows that rows of it were trained on.
    """
    spec = bundle.manifest.tasks[task]
    if bundle.manifest.cascade is not None or spec.kind != "single":
        raise BundleError(f"only tasks of kind single, without a cascade, are fitted on rows; {task} is {spec.kind}")
    names = bundle.manifest.members_of(task)
    unseen = read_unseen(bundle, Question(rows, task, tuple(integers)))
    held_out = ask_members(Engine.load(bundle.root), unseen, report)
    report("fitting pool and calibrator", 0, 1)
    manifest, _ = refit(bundle.manifest, task, held_out, unseen.origin)
    report("fitting pool and calibrator", 1, 1)
    doubts = _find_doubts(names, held_out, spec.space(task))
    return Fitted(save_manifest(bundle.root, manifest), doubts)


def refit(
    manifest: Manifest,
    task: str,
    held_out: HeldOut,
    fitted_on: FittedOn | None,
    choosing: Callable[[HeldOut], Choice] = choose,
) -> tuple[Manifest, Choice]:
    """Choose a task's pool and calibrator anew.

    Args:
        manifest: to change; its own pool may be of other members.
        task: one of its tasks.
        held_out: what all members and channels with a head for the task say, in manifest order.
        fitted_on: where the rows come from; None: training held them out.
        choosing: how to choose.

    Returns:
        The manifest with pool, calibrator, conformal thresholds (where it had some) and cross-validated scores.
    """
    spec, names = manifest.tasks[task], manifest.members_of(task)
    choice = choosing(held_out)
    said = {STACK: choice.probabilities} | dict(zip(names, held_out.members, strict=True))
    sets = spec.conformal and fit_class_conditional(choice.probabilities, held_out.truth, spec.conformal.alpha)
    fitted = spec.model_copy(
        update={
            "pool": choice.pool,
            "calibrator": choice.calibrator,
            "calibrated": True,
            "conformal": sets,
            "fitted_on": fitted_on,
            "best_member": min(names, key=lambda name: nll(said[name], held_out.truth)),
        }
    )
    draws = Bootstrap(held_out.prints)
    scores = {name: score(probabilities, held_out.truth, draws) for name, probabilities in said.items()}
    tasks = dict(manifest.tasks) | {task: fitted}
    return manifest.model_copy(update={"tasks": tasks, "scores": dict(manifest.scores) | {task: scores}}), choice


def infer_labels(
    probe: Bundle, task: str, space: LabelSpace, rows: Path, integers: Sequence[str], *, report: Report
) -> InferredMap:
    """Infer what the labels of a bundle's only member mean.

    Args:
        probe: a bundle of one member, whose task has the labels of its head.
        task: the task.
        space: the space its labels are to be mapped onto.
        rows: a labelled file, no matter whether the member has seen it.
        integers: what the integers 0, 1, ... in it mean.
        report: told of progress.

    Raises:
        LabelError: the rows do not tell.
        DataError: the file cannot be used.
    """
    read = read_labelled(rows, space, integers)
    texts = [row.text for row in read]
    members = ask_all(Engine.load(probe.root), texts, [()] * len(texts), report)[task]
    return infer_map(members[0], np.array([row.label for row in read]), probe.manifest.tasks[task].labels, space)


def _find_doubts(names: Sequence[str], held_out: HeldOut, space: LabelSpace) -> tuple[str, ...]:
    """Members whose labels the rows read otherwise than they were declared."""
    found = ((name, _infer(said, held_out.truth, space)) for name, said in zip(names, held_out.members, strict=True))
    return tuple(
        f"the rows read the labels of {name} otherwise than they are declared: {inferred.warning}"
        for name, inferred in found
        if inferred is not None and any(own != meant for own, meant in inferred.map.items())
    )


def _infer(probabilities: Probabilities, truth: Truth, space: LabelSpace) -> InferredMap | None:
    try:
        return infer_map(probabilities, truth, space.labels, space)
    except LabelError:  # too few rows or too weak a member to doubt what it declares
        return None
