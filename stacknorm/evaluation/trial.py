"""A stack and its members asked about every row of a labelled file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stacknorm.bundle import Bundle, TaskSpec
from stacknorm.dataset import read_entities, read_labelled
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import Rows
from stacknorm.evaluation.metrics import Truth
from stacknorm.evaluation.part import Systems
from stacknorm.pooling.pool import Probabilities
from stacknorm.prediction import Prediction, TaskPrediction
from stacknorm.text import clean_with_origins


@dataclass(frozen=True, slots=True)
class Question:
    """What a stack is asked: one of its tasks, on the labelled rows of a file."""

    data: Path
    task: str
    order: tuple[str, ...] = ()
    """What integer labels in the file mean."""
    training_files: tuple[Path, ...] = ()
    """Rows whose text stands in one of these count as leaked, beside those a bundle itself was trained on."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Labelled rows as a stack is asked about them: texts, or mentions of entities in texts."""

    texts: tuple[str, ...]
    """The documents."""
    mentions: tuple[tuple[Mention, ...], ...]
    """Of each document; all empty where rows are documents."""
    truth: Truth
    """[n]."""
    documents: Rows
    """The document of each row, [n]."""
    shown: tuple[str, ...]
    """What stands for each row where it is shown to people, [n]."""

    @property
    def row_texts(self) -> list[str]:
        """The text of each row, [n]."""
        return [self.texts[document] for document in self.documents]


def task_of(bundle: Bundle, task: str) -> TaskSpec:
    """A task of a bundle.

    Raises:
        DataError: it has no such task; names those it has.
    """
    tasks = bundle.manifest.tasks
    if task not in tasks:
        raise DataError(f"bundle {bundle.manifest.name} has no task {task!r}, only {', '.join(tasks)}")
    return tasks[task]


def read_sheet(spec: TaskSpec, question: Question) -> Sheet:
    """Read the rows of a file for a task with one label a row.

    Raises:
        DataError: the file cannot be used; names file, line and problem.
    """
    if spec.kind == "entity":
        return _read_mentions(spec, question)
    if spec.kind != "single":
        raise DataError(f"task {question.task} has no one label a row, for its kind is {spec.kind}")
    rows = read_labelled(question.data, spec.space(question.task), question.order)
    texts = tuple(row.text for row in rows)
    truth = np.array([row.label for row in rows], dtype=np.int64)
    return Sheet(texts, ((),) * len(texts), truth, np.arange(len(texts)), texts)


def _read_mentions(spec: TaskSpec, question: Question) -> Sheet:
    rows = read_entities(question.data, spec.space(question.task))
    found = [
        (document, row.text, mention)
        for document, row in enumerate(rows)
        for mention in row.mentions
        if clean_with_origins(row.text).to_cleaned(mention.start, mention.end) is not None
    ]
    if not found:
        raise DataError(f"{question.data}: no text names an entity it labels")
    mentions: list[list[Mention]] = [[] for _ in rows]
    for document, _, mention in found:
        mentions[document].append(Mention("given", mention.entity, mention.start, mention.end))
    return Sheet(
        texts=tuple(row.text for row in rows),
        mentions=tuple(map(tuple, mentions)),
        truth=np.array([mention.label_index for _, _, mention in found], dtype=np.int64),
        documents=np.array([document for document, _, _ in found], dtype=np.int64),
        shown=tuple(f"[{mention.entity}] {text}" for _, text, mention in found),
    )


def ask(bundle: Bundle, engine: Engine, task: str, sheet: Sheet) -> Systems:
    """What the whole stack and each of its members say of every row; a row nobody could read is any label's."""
    spec = bundle.manifest.tasks[task]
    members = engine.member_probabilities(sheet.texts, sheet.mentions)[task]
    stack = Answers(spec.labels, _or_any(engine.pooled(task, members)), sheet.truth, sheet.documents)
    named = zip(bundle.manifest.members_of(task), members, strict=True)
    return Systems(stack, {name: stack.by(_or_any(said)) for name, said in named}, spec.best_member)


def ask_engine(engine: Engine, task: str, sheet: Sheet, labels: Sequence[str]) -> tuple[Answers, Rows]:
    """What an engine says as it would in service, and the stage, counted from 1, at which each row ended; [n] both.

    Args:
        engine: without a language guard, which would leave rows without an answer.
        task: one of its tasks.
        sheet: the rows.
        labels: in the order wanted; those of the task.
    """
    predictions = engine.predict(sheet.texts, sheet.mentions)
    answers = [
        answer
        for prediction, mentions in zip(predictions, sheet.mentions, strict=True)
        for answer in _answers_of(prediction, task, mentions)
    ]
    anything = dict.fromkeys(labels, 1 / len(labels))
    given = [answer.probabilities if answer else anything for answer in answers]
    probabilities = np.array([[shares[label] for label in labels] for shares in given])
    stages = np.array([prediction.stage for prediction in predictions], dtype=np.int64)
    return Answers(tuple(labels), probabilities, sheet.truth, sheet.documents), stages[sheet.documents]


def _answers_of(prediction: Prediction, task: str, mentions: Sequence[Mention]) -> Sequence[TaskPrediction | None]:
    if task in prediction.tasks:
        return [prediction.tasks[task]]
    found = {(entity.start, entity.end): entity.tasks.get(task) for entity in prediction.entities}
    return [found.get((mention.start, mention.end)) for mention in mentions]


def _or_any(probabilities: Probabilities) -> Probabilities:
    return np.nan_to_num(probabilities, nan=1 / probabilities.shape[1])
