"""Evaluations as people and programs read them: JSON records and tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from stacknorm.bundle import Interval
from stacknorm.evaluation.evaluate import Evaluation, Part

_TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "brier": "Brier", "ece": "ECE"}


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """Everything of an evaluation as plain values."""
    record = {name: getattr(evaluation, name) for name in ("bundle", "digest", "data", "task", "precision")}
    parts = {"official": evaluation.official, "clean": evaluation.clean}
    return record | {name: _part_record(part) for name, part in parts.items() if part is not None}


def _part_record(part: Part) -> dict[str, Any]:
    return {
        "rows": part.rows,
        "scores": {
            name: {metric: found.model_dump() for metric, found in metrics.items()}
            for name, metrics in part.scores.items()
        },
        "paired": {
            "against": part.best_member,
            "nll_difference": part.nll_difference.model_dump(),
            "excludes_zero": part.excludes_zero,
        },
    }


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print one table for all rows, one for the clean ones."""
    stack = f"{evaluation.bundle} ({evaluation.digest[:12]})"
    console.print(f"{stack} on {evaluation.data}, {evaluation.task}, {evaluation.precision}")
    _print_part("official rows", evaluation.official, console)
    if evaluation.clean is None:
        console.print("clean rows: none, or the bundle does not say what it was trained on")
    else:
        _print_part("clean rows (text not in the training data)", evaluation.clean, console)


def _print_part(title: str, part: Part, console: Console) -> None:
    table = Table("", *_TITLES.values(), title=f"{title}: {part.rows:,}", title_justify="left", show_lines=True)
    for name, metrics in part.scores.items():
        table.add_row(name, *(_cell(metrics, metric) for metric in _TITLES))
    console.print(table)
    found = part.nll_difference
    verdict = "excludes" if part.excludes_zero else "does not exclude"
    console.print(
        f"NLL of the stack less {part.best_member}: {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f}), "
        f"which {verdict} zero\n"
    )


def _cell(metrics: Mapping[str, Interval], metric: str) -> str:
    found = metrics[metric]
    return f"{found.value:.3f}\n{found.low:.3f}-{found.high:.3f}"
