"""Tables that show a bundle in the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from stacknorm.bundle import Bundle, CascadeSpec, Interval


def show_interval(found: "Interval") -> str:
    """A difference with its interval."""
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def table_members(bundle: "Bundle") -> Table:
    """What each member answers, and what its labels mean."""
    table = Table("member", "answers", "with labels", title="members", title_justify="left")
    for part in bundle.manifest.voices():
        for task, head in part.heads.items():
            meant = [f"{label} = {head.map[label]}" if label in head.map else label for label in head.labels]
            same = tuple(meant) == bundle.manifest.tasks[task].labels
            table.add_row(part.name, f"{task} ({head.pooling})", "in the task's order" if same else ", ".join(meant))
    return table


def table_tasks(bundle: "Bundle") -> Table:
    """How each task is pooled and calibrated."""
    table = Table("task", "labels", "pool", "calibrator", title="tasks", title_justify="left")
    for task, spec in bundle.manifest.tasks.items():
        serving = zip(bundle.manifest.members_of(task), spec.pool.weights, strict=True)
        pool = f"{spec.pool.kind}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in serving)
        calibrator: str = spec.calibrator.kind if spec.calibrated else "not calibrated"
        if spec.fitted_on is not None:
            calibrator += f"\nfitted on {spec.fitted_on.rows:,} rows of {spec.fitted_on.file}"
        table.add_row(task, ", ".join(spec.labels), pool, calibrator)
    return table


def table_stages(spec: "CascadeSpec") -> Table:
    """Where a cascade ends texts."""
    table = Table("stage", "members", "ends at", "texts", title=f"{spec.mode} cascade", title_justify="left")
    for number, stage in enumerate(spec.stages):
        sure = "\n".join(f"{task} {part.stop_above:.3f}" for task, part in stage.tasks.items())
        last = number + 1 == len(spec.stages)
        ended = f"{spec.report.ended[number]:.1%}" if spec.report else ""
        table.add_row(str(number + 1), ", ".join(stage.members), "all" if last else sure or "what is settled", ended)
    return table


def table_scores(bundle: "Bundle") -> Iterator[Table]:
    """Held-out scores of each task."""
    from stacknorm.evaluation.metrics import shown_metrics

    for task, scores in bundle.manifest.scores.items():
        shown = shown_metrics(scores)
        table = Table(task, *shown.values(), title="held-out scores, with 95 % intervals", title_justify="left")
        for name, values in scores.items():
            cells = (f"{v.value:.3f}\n{v.low:.3f} to {v.high:.3f}" for v in (values[metric] for metric in shown))
            table.add_row(name, *cells)
        yield table
