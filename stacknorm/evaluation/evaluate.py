"""Score a bundle on labelled rows: every member and the stack side by side, with intervals, and clean of leaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.dataset import Row, read_labelled
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.leaks import Leaks, audit, seen_prints
from stacknorm.evaluation.mistakes import Mistake, worst_mistakes
from stacknorm.evaluation.part import Part, Systems, score_part
from stacknorm.evaluation.protocol import Protocol, Scored, look_at_machine
from stacknorm.source import digest_file
from stacknorm.text import fingerprints

STACK = "stack"
_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a bundle on one file."""

    protocol: Protocol
    official: Part
    """On all rows of the file."""
    clean: Part | None
    """On rows whose text was not trained on; none where that is not known, or every row was."""
    leaks: Leaks
    mistakes: tuple[Mistake, ...]
    """Most confident first; on all rows."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a bundle is asked: a task of it, on the labelled rows of a file."""

    bundle: str
    data: Path
    task: str
    order: tuple[str, ...] = ()
    """What integer labels in the file mean."""
    training_files: tuple[Path, ...] = ()
    """Rows whose text stands in one of these count as leaked, beside those the bundle itself was trained on."""


def evaluate_bundle(question: Question, now: datetime) -> Evaluation:
    """Evaluate a bundle on a labelled file.

    Raises:
        BundleError: the bundle cannot be loaded.
        DataError: the file cannot be used, or the bundle has no such task.
    """
    bundle = load_bundle(question.bundle)
    rows = _read(bundle, question)
    texts = [row.text for row in rows]
    engine = Engine.load(bundle.root)
    systems = _ask(bundle, engine, question.task, rows)
    prints = fingerprints(texts)
    seen = seen_prints(bundle, question.training_files)
    leaked = None if seen is None else np.isin(prints, seen)
    return Evaluation(
        protocol=Protocol(
            task=question.task,
            labels=systems.stack.labels,
            data=question.data.name,
            data_sha256=digest_file(question.data),
            rows=len(rows),
            stacks=(describe_stack(bundle, engine, question.task),),
            machine=look_at_machine(),
            made_at=now.isoformat(timespec="seconds"),
        ),
        official=score_part(systems),
        clean=None if leaked is None or leaked.all() else score_part(systems.only(~leaked)),
        leaks=audit(prints, systems.stack, leaked),
        mistakes=worst_mistakes(systems, texts, leaked, _MISTAKES),
    )


def describe_stack(bundle: Bundle, engine: Engine, task: str) -> Scored:
    """What a protocol says of a stack."""
    spec = bundle.manifest.tasks[task]
    return Scored(
        name=engine.identity.name,
        digest=engine.identity.digest,
        precision=engine.precision,
        device=engine.device,
        max_tokens=bundle.manifest.max_tokens,
        calibrated=spec.calibrated,
        member_temperatures=bool(spec.member_temperatures),
    )


def _read(bundle: Bundle, question: Question) -> list[Row]:
    tasks = bundle.manifest.tasks
    if question.task not in tasks:
        raise DataError(f"bundle {bundle.manifest.name} has no task {question.task!r}, only {', '.join(tasks)}")
    return read_labelled(question.data, tasks[question.task].space(question.task), question.order)


def _ask(bundle: Bundle, engine: Engine, task: str, rows: Sequence[Row]) -> Systems:
    spec = bundle.manifest.tasks[task]
    members = engine.member_probabilities([row.text for row in rows])[task]
    truth = np.array([row.label for row in rows], dtype=np.int64)
    stack = Answers(spec.labels, engine.pooled(task, members), truth, np.arange(len(rows)))
    named = zip(bundle.manifest.members_of(task), members, strict=True)
    return Systems(stack, {name: stack.by(probabilities) for name, probabilities in named}, spec.best_member)
