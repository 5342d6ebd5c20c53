"""`stacknorm predict`: label the texts of a file."""

import sys
from collections.abc import Mapping
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

    The sentiment's `score` is p(positive) - p(negative), between -1 and 1.

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


def prediction_record(prediction: Prediction) -> dict[str, Mapping[str, Any]]:
    """Task -> label and probabilities; a task with a positive and a negative label also gets their `score`."""
    return {task: _task_record(answer) for task, answer in prediction.tasks.items()}


def _task_record(answer: TaskPrediction) -> Mapping[str, Any]:
    shares = answer.probabilities
    signed = {"positive", "negative"} <= shares.keys()
    score = {"score": shares["positive"] - shares["negative"]} if signed else {}
    return {"label": answer.label, **score, "probabilities": dict(shares)}
