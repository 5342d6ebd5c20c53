"""Cross-validation: how well the members of a config, and their pool, answer examples they were not trained on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stacknorm.bundle import Interval
from stacknorm.evaluation.metrics import shown_metrics
from stacknorm.training.evidence import gather_evidence
from stacknorm.training.fit import choosing_of, fit_task
from stacknorm.training.plan import fold_jobs, make_plan
from stacknorm.training.run import run_jobs, say_plan

REPORT_FILE = "folds.json"


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task's scores over all examples, each answered by a training that had not seen it."""

    units: int
    """Texts, mentions or words that are scored."""
    texts: int
    """Different texts they stand in."""
    scores: Mapping[str, Mapping[str, Interval]]
    """`stack` or member -> metric. The stack is pooled and calibrated by what was fitted without the text."""


def cross_validate(config: Path, data: Path, out: Path, folds: int, console: Console) -> dict[str, TaskScores]:
    """Train each member once for each fold, without it, and score what they say of it.

    Stopped half-way, the same call goes on with the trainings that are not finished. Writes `folds.json` to `out`
    and leaves the trainings there, for a bundle with `folds` in its config needs them too.

    Args:
        config: the training config.
        data: directory of the files it names.
        out: directory for the report and the trainings.
        folds: at least 2.
        console: gets one line an epoch, and a table at the end.

    Raises:
        DataError: config or data cannot be used.
        BundleError: a base cannot be found or loaded.
    """
    plan = make_plan(config, data, out)
    jobs = fold_jobs(plan, folds)
    say_plan(plan, jobs, console)
    run_jobs(plan, jobs, console)
    found = {
        task: TaskScores(
            units=len(evidence.truth),
            texts=len(set(evidence.prints.tolist())),
            scores=fit_task(plan.recipe.tasks[task], evidence, choosing_of(plan.recipe)).scores,
        )
        for task, evidence in gather_evidence(plan, jobs).items()
    }
    (out / REPORT_FILE).write_text(json.dumps(_as_record(folds, found), indent=2) + "\n", encoding="utf-8")
    for task, scores in found.items():
        console.print(_as_table(task, folds, scores))
    return found


def _as_record(folds: int, found: Mapping[str, TaskScores]) -> dict[str, Any]:
    return {
        "folds": folds,
        "tasks": {
            task: {
                "units": scores.units,
                "texts": scores.texts,
                "scores": {
                    name: {metric: interval.model_dump() for metric, interval in metrics.items()}
                    for name, metrics in scores.scores.items()
                },
            }
            for task, scores in found.items()
        },
    }


def _as_table(task: str, folds: int, scores: TaskScores) -> Table:
    title = f"{task}, {folds} folds: {scores.units:,} answers in {scores.texts:,} texts, 95 % intervals by text"
    shown = shown_metrics(scores.scores)
    table = Table("", *shown.values(), title=title, title_justify="left")
    for name, metrics in scores.scores.items():
        cells = (metrics[metric] for metric in shown)
        table.add_row(name, *(f"{cell.value:.3f} ({cell.low:.3f}-{cell.high:.3f})" for cell in cells))
    return table
