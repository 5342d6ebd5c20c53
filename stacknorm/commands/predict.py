"""`stacknorm predict`: label the texts of a file."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from stacknorm.commands.console import plain_errors
from stacknorm.prediction import Prediction, TaskPrediction

_CHUNK_TEXTS = 512


def predict(
    file: Annotated[
        Path, typer.Argument(help="Text lines, .csv or .jsonl with a `text` field; - reads lines from stdin.")
    ],
    bundle: Annotated[str, typer.Option("--bundle", help="A packaged bundle's name, or a directory.")] = "finance",
) -> None:
    """Label every text of FILE: one JSON line a text, in order.

    The sentiment's `score` is p(positive) - p(negative), between -1 and 1. A text that is certainly in a language the
    stack does not know gets `abstained_because` in place of labels.

    Example:  stacknorm predict headlines.csv > labels.jsonl
    """
    with plain_errors():
        from stacknorm.dataset import read_lines, read_texts
        from stacknorm.engine import Engine

        from_stdin = str(file) == "-"
        texts = read_lines(sys.stdin.buffer.read(), "standard input") if from_stdin else read_texts(file)
        engine = Engine.load(bundle)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            for prediction in engine.predict(texts[start : start + _CHUNK_TEXTS]):
                sys.stdout.buffer.write(orjson.dumps(prediction_record(prediction), option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()


def prediction_record(prediction: Prediction) -> dict[str, Any]:
    """Task -> its answer; and, where there are any, entities, spans, dropped members and why there is no label."""
    entities = [
        {"scheme": found.scheme, "entity": found.entity, "start": found.start, "end": found.end}
        | {task: _task_record(answer) for task, answer in found.tasks.items()}
        for found in prediction.entities
    ]
    spans = {task: [asdict(span) for span in found] for task, found in prediction.spans.items()}
    further = {
        "entities": entities,
        "dropped": list(prediction.dropped),
        "abstained_because": prediction.abstained_because,
    }
    answers = {task: _task_record(answer) for task, answer in prediction.tasks.items()}
    return answers | spans | {name: value for name, value in further.items() if value}


def _task_record(answer: TaskPrediction) -> dict[str, Any]:
    shares = answer.probabilities
    signed = {"positive", "negative"} <= shares.keys()
    score = {"score": shares["positive"] - shares["negative"]} if signed else {}
    sure = {"conformal_set": list(answer.conformal_set)} if answer.conformal_set else {}
    return {"label": answer.label, **score, "probabilities": dict(shares), **sure}
