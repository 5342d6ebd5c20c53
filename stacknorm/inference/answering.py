"""From the readings of one call to predictions: each kind of task put together, in characters of the texts as given."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from stacknorm.bundle import TaskKind
from stacknorm.inference.decision import Decision
from stacknorm.inference.passages import Passages
from stacknorm.inference.readings import Readings
from stacknorm.prediction import EntityPrediction, Prediction, Span, TaskPrediction
from stacknorm.spans.decode import decode_spans

_Described = Mapping[str, list[TaskPrediction | None]]
"""Task -> an answer for each thing that tasks of its kind are about; None where nobody answered."""


def answer_texts(decisions: Collection[Decision], passages: Passages, readings: Readings) -> list[Prediction]:
    """One prediction for each text, in order."""
    whole = {**_describe("single", decisions, passages, readings), **_describe("multi", decisions, passages, readings)}
    entities = _gather_entities(passages, _describe("entity", decisions, passages, readings))
    spans = {d.task: _find_spans(d, passages, readings) for d in decisions if d.kind == "spans"}
    return [
        Prediction(
            tasks={task: answer for task, answers in whole.items() if (answer := answers[text]) is not None},
            entities=tuple(entities[text]),
            spans={task: found[text] for task, found in spans.items()},
            dropped=dropped,
            stage=int(readings.stages[text]) + 1,
        )
        for text, dropped in enumerate(readings.dropped())
    ]


def _describe(kind: TaskKind, decisions: Collection[Decision], passages: Passages, readings: Readings) -> _Described:
    owners = passages.owners(kind)
    return {
        d.task: d.describe(d.place(readings.of(d.task), len(owners)), readings.stages[owners])
        for d in decisions
        if d.kind == kind
    }


def _gather_entities(passages: Passages, described: _Described) -> Mapping[int, list[EntityPrediction]]:
    """Text -> what is said of the entities in it; one that no member has read is left out."""
    found: dict[int, list[EntityPrediction]] = defaultdict(list)
    for number, stretch in enumerate(passages.mentions):
        tasks = {task: answer for task, answers in described.items() if (answer := answers[number]) is not None}
        if tasks:
            found[stretch.text].append(EntityPrediction(*stretch.mention, tasks))
    return found


def _find_spans(decision: Decision, passages: Passages, readings: Readings) -> list[tuple[Span, ...]]:
    """Spans of each text."""
    owners = passages.owners("spans")
    tags, _ = decision.answer(decision.place(readings.of(decision.task), len(owners)), readings.stages[owners])
    found = []
    parts = np.split(tags, passages.first_words[1:-1])
    for words, part, cleaned in zip(passages.words, parts, passages.cleaned, strict=True):
        spans = decode_spans(words, part, decision.space.labels)
        places = [cleaned.to_original(span.start, span.end) for span in spans]
        found.append(tuple(replace(span, start=s, end=e) for span, (s, e) in zip(spans, places, strict=True)))
    return found
