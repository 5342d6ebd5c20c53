"""Cross-validation: how well the members of a config, and their pool, answer examples they were not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stacknorm.bundle import Interval
from stacknorm.encoder.device import WantedDevice
from stacknorm.evaluation.metrics import shown_metrics
from stacknorm.evaluation.paired import Paired, PairedCounts
from stacknorm.evaluation.report import as_json
from stacknorm.evaluation.sentences import spell_comparison
from stacknorm.training.evidence import Evidence, gather_evidence
from stacknorm.training.fit import choosing_of, fit_task
from stacknorm.training.plan import Plan, fold_jobs, make_plan
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
    best_member: str
    """By the likelihood of what it says; of spans by their F1."""
    against_best: Paired | PairedCounts
    """The stack less that member."""


def cross_validate(
    config: Path, data: Path, out: Path, folds: int, console: Console, *, device: WantedDevice = "auto"
) -> dict[str, TaskScores]:
    """Train each member once for each fold, without it, and score what they say of it.

    Stopped half-way, the same call goes on with the trainings that are not finished. Writes `folds.json` to `out`
    and leaves the trainings there, for a bundle with `folds` in its config needs them too.

    Args:
        config: the training config.
        data: directory of the files it names.
        out: directory for the report and the trainings.
        folds: at least 2.
        console: gets one line an epoch, and a table at the end.
        device: where members are trained.

    Raises:
        DataError: config or data cannot be used.
        BundleError: a base cannot be found or loaded.
        DeviceError: a GPU is asked for, and there is none.
    """
    plan = make_plan(config, data, out, device)
    jobs = fold_jobs(plan, folds)
    say_plan(plan, jobs, console)
    run_jobs(plan, jobs, console)
    found = {task: _score(plan, task, evidence) for task, evidence in gather_evidence(plan, jobs).items()}
    (out / REPORT_FILE).write_bytes(as_json({"folds": folds, "tasks": found}) + b"\n")
    for task, scores in found.items():
        console.print(_as_table(task, folds, scores))
        best = f"its best member {scores.best_member}"
        console.print(spell_comparison("The stack", best, scores.against_best), highlight=False, soft_wrap=True)
    return found


def _score(plan: Plan, task: str, evidence: Evidence) -> TaskScores:
    fitted = fit_task(plan.recipe.tasks[task], evidence, choosing_of(plan.recipe))
    return TaskScores(
        units=len(evidence.truth),
        texts=len(set(evidence.prints.tolist())),
        scores=fitted.scores,
        best_member=fitted.spec.best_member,
        against_best=fitted.against_best,
    )


def _as_table(task: str, folds: int, scores: TaskScores) -> Table:
    title = f"{task}, {folds} folds: {scores.units:,} answers in {scores.texts:,} texts, 95 % intervals by text"
    shown = shown_metrics(scores.scores)
    table = Table("", *shown.values(), title=title, title_justify="left")
    for name, metrics in scores.scores.items():
        cells = (metrics[metric] for metric in shown)
        table.add_row(name, *(f"{cell.value:.3f} ({cell.low:.3f}-{cell.high:.3f})" for cell in cells))
    return table
