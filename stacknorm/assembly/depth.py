"""Give a bundle a cascade: its members in stages, and how sure each stage must be, fitted on labelled rows.

The rows must be new to every member; those a bundle knows its members were trained on are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from pydantic import ValidationError

from stacknorm.assembly.fitting import CHUNK_TEXTS, Unseen, ask_members
from stacknorm.bundle import (
    Bundle,
    CascadeReport,
    CascadeSpec,
    FittedOn,
    Interval,
    Manifest,
    StageSpec,
    StageTask,
    describe_faults,
    save_manifest,
)
from stacknorm.engine import Engine, Form
from stacknorm.errors import BundleError, DataError
from stacknorm.evaluation.bootstrap import Bootstrap, weighted_mean
from stacknorm.evaluation.cost import SAMPLE_TEXTS, time_alternately
from stacknorm.evaluation.metrics import row_hits
from stacknorm.inference.decision import decide, early_members
from stacknorm.pooling.cascade_fitting import FittedCascade, fit_cascade
from stacknorm.pooling.held_out import HeldOut
from stacknorm.progress import Report


@dataclass(frozen=True, slots=True)
class Descent:
    """The cascade that is wanted."""

    stages: tuple[tuple[str, ...], ...]
    """Names of the members that run together, the cheap ones first."""
    mode: Literal["bounded", "exact"] = "bounded"
    max_loss: float = 0.002
    """Bounded mode: share of a task's rows that stopping early may cost."""


def add_cascade(bundle: Bundle, descent: Descent, rows: Sequence[Unseen], report: Report) -> Bundle:
    """Fit a cascade and write it into the bundle's manifest, in the place of one that it has.

    Args:
        bundle: whose last stage answers as it does now.
        descent: stages and mode.
        rows: of each task; in exact mode they only tell what it saves, and may be none.
        report: told of progress.

    Raises:
        BundleError: the stages do not name each member once, or the bundle has a task, a pool or a calibrator that
            no such cascade can be made for.
        DataError: a task has no rows, too few, or some that were trained on.
    """
    manifest = _outline(bundle.manifest, descent)
    kept: dict[str, Interval] = {}
    if descent.mode == "bounded":
        manifest, kept = _fit(bundle, manifest, descent, rows, report)
    made = save_manifest(bundle.root, manifest)
    if not rows:
        return made
    texts, ended = _count_ends(made, rows, report)
    told = CascadeReport(texts=texts, ended=ended, kept=kept)
    return save_manifest(bundle.root, _with_cascade(manifest, {"report": told}))


def _outline(manifest: Manifest, descent: Descent) -> Manifest:
    """The manifest with the stages, of which nothing is fitted yet.

    Raises:
        BundleError: as `add_cascade`.
    """
    try:
        stages = tuple(StageSpec(members=members) for members in descent.stages)
        spec = CascadeSpec(mode=descent.mode, stages=stages)
        outline = Manifest.model_validate(manifest.model_copy(update={"cascade": spec}).model_dump())
    except ValidationError as exc:
        raise BundleError(f"no such cascade can be made: {describe_faults(exc)}") from exc
    for task, part in outline.tasks.items():
        decide(outline, task, "cascade")
        idle = [number for number, run in enumerate(early_members(outline, task), start=1) if not run]
        if idle and part.kind == "single":
            raise BundleError(f"no text could end at stage {idle[0]}: no member that has run by then answers {task}")
    return outline


def _fit(
    bundle: Bundle, outline: Manifest, descent: Descent, rows: Sequence[Unseen], report: Report
) -> tuple[Manifest, dict[str, Interval]]:
    """Fit the early stages of every task; what is kept of each one's accuracy."""
    if lacking := outline.tasks.keys() - {part.task for part in rows}:
        raise DataError(f"a text ends where all its tasks do, so rows are needed for {', '.join(sorted(lacking))} too")
    engine = Engine.load(bundle.root, form="width", language_guard=False)
    stages: list[dict[str, StageTask]] = [{} for _ in descent.stages]
    kept: dict[str, Interval] = {}
    for part in rows:
        held_out = ask_members(engine, part, report)
        report("fitting the cascade", len(kept), len(rows))
        runs = {stage: run for stage, run in enumerate(early_members(outline, part.task)) if run}
        whole = engine.pooled(part.task, held_out.members)
        found = fit_cascade(held_out, list(runs.values()), whole, descent.max_loss)
        for stage, fitted in zip(runs, found.stages, strict=True):
            stages[stage][part.task] = StageTask(
                pool=fitted.pool, calibrator=fitted.calibrator, stop_above=fitted.stop_above
            )
        kept[part.task] = _measure_kept(found, held_out)
    report("fitting the cascade", len(rows), len(rows))
    specs = tuple(
        StageSpec(members=members, tasks=tasks) for members, tasks in zip(descent.stages, stages, strict=True)
    )
    return _with_cascade(outline, {"stages": specs, "max_loss": descent.max_loss, "fitted_on": _origins(rows)}), kept


def _origins(rows: Sequence[Unseen]) -> dict[str, FittedOn]:
    return {part.task: part.origin for part in rows if part.origin is not None}


def _measure_kept(found: FittedCascade, held_out: HeldOut) -> Interval:
    """Accuracy of the cascade less that of the whole stack, by confidences fitted without the row."""
    ours, whole = (row_hits(said, held_out.truth) for said in (found.answers(found.ended_unseen), found.said[-1]))
    return Bootstrap(held_out.prints).interval(lambda samples: weighted_mean(ours - whole, samples))


def _with_cascade(manifest: Manifest, changes: Mapping[str, object]) -> Manifest:
    spec = manifest.cascade and manifest.cascade.model_copy(update=changes)
    return manifest.model_copy(update={"cascade": spec})


def _count_ends(bundle: Bundle, rows: Sequence[Unseen], report: Report) -> tuple[int, tuple[float, ...]]:
    """Run the cascade as in service: how many texts there are, and the share of them that ends at each stage."""
    engine = Engine.load(bundle.root, form="cascade", language_guard=False)
    ended: list[int] = []
    total = sum(len(part.sheet.texts) for part in rows)
    for part in rows:
        texts, given = part.sheet.texts, part.sheet.mentions
        named = bundle.manifest.tasks[part.task].kind == "entity"
        for start in range(0, len(texts), CHUNK_TEXTS):
            report("running the cascade", len(ended), total)
            chunk = slice(start, start + CHUNK_TEXTS)
            ended += [found.stage - 1 for found in engine.predict(texts[chunk], given[chunk] if named else None)]
    report("running the cascade", total, total)
    counts = np.bincount(ended, minlength=len(bundle.manifest.cascade.stages) if bundle.manifest.cascade else 1)
    return total, tuple((counts / total).round(5).tolist())


def time_forms(bundle: Bundle, rows: Sequence[Unseen]) -> dict[Form, float]:
    """Seconds a text takes in width and in the cascade, by turns, on at most 256 of the rows' texts."""
    texts = [text for part in rows for text in part.sheet.texts]
    sample = texts[:: -(-len(texts) // SAMPLE_TEXTS)]
    forms: tuple[Form, ...] = ("width", "cascade")
    engines = {form: Engine.load(bundle.root, form=form, language_guard=False) for form in forms}
    seconds = time_alternately({form: partial(engine.predict, sample) for form, engine in engines.items()})
    return {form: seconds[form] / len(sample) for form in forms}
