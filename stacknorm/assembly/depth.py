"""Give a bundle a cascade: its members in stages, and how sure each stage must be, fitted on labelled rows.

The rows must be new to every member; those a bundle knows its members were trained on are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import ValidationError

from stacknorm.assembly.fitting import CHUNK_TEXTS, Unseen, ask_all, judge_members, was_read
from stacknorm.bundle import (
    Bundle,
    CascadeReport,
    CascadeSpec,
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
from stacknorm.pooling.cascade_fitting import Course, choose_early, end_unseen, fit_stops, tell
from stacknorm.pooling.choice import Choice
from stacknorm.pooling.held_out import Indices, Prints, Truth
from stacknorm.pooling.pool import Probabilities
from stacknorm.progress import Report
from stacknorm.text import fingerprints


@dataclass(frozen=True, slots=True)
class Descent:
    """The cascade that is wanted."""

    stages: tuple[tuple[str, ...], ...]
    """Names of the members that run together, the cheap ones first."""
    mode: Literal["bounded", "exact"] = "bounded"
    max_loss: float = 0.002
    """Bounded mode: accuracy that stopping early is expected to cost a task at most."""


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
    outline = _outline(bundle.manifest, descent)
    if descent.mode == "bounded":
        return save_manifest(bundle.root, _fit(bundle, outline, descent, rows, report))
    made = save_manifest(bundle.root, outline)
    if not rows:
        return made
    told = _tell_ends(_run(made, rows, report), len(descent.stages))
    return save_manifest(bundle.root, _with_cascade(outline, {"report": told}))


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


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """One task's rows in a cascade, those with a label among them."""

    course: Course
    early: Mapping[int, Choice]
    """What each early stage answers with that has a member to."""
    own: Indices
    """Positions of the rows that have a label."""
    truth: Truth
    """Their labels."""

    def specify(self, stage: int, stops: Sequence[float]) -> StageTask:
        """How an early stage answers, for the manifest."""
        chosen = self.early[stage]
        return StageTask(pool=chosen.pool, calibrator=chosen.calibrator, stop_above=stops[stage])

    def measure_kept(self, ended: Indices, prints: Prints) -> Interval:
        """Accuracy of the cascade less that of the whole stack, with texts ending at these stages, [texts]."""
        ours, whole = (row_hits(s[self.own], self.truth) for s in (self.course.answers(ended), self.course.said[-1]))
        draws = Bootstrap(prints[self.course.texts[self.own]])
        return draws.interval(lambda samples: weighted_mean(ours - whole, samples))


def _fit(bundle: Bundle, outline: Manifest, descent: Descent, rows: Sequence[Unseen], report: Report) -> Manifest:
    """Fit the early stages of every task; what they spare and keep is told by stops fitted without the text."""
    if lacking := outline.tasks.keys() - {part.task for part in rows}:
        raise DataError(f"a text ends where all its tasks do, so rows are needed for {', '.join(sorted(lacking))} too")
    texts = [text for part in rows for text in part.sheet.texts]
    prints = fingerprints(texts)
    judged = _judge_all(Engine.load(bundle.root, form="width", language_guard=False), outline, rows, report)
    courses = {task: found.course for task, found in judged.items()}
    report("fitting the cascade", 0, 1)
    spared = [sum(map(len, descent.stages[stage:])) for stage in range(1, len(descent.stages))]
    stops = fit_stops(courses, len(texts), descent.max_loss, spared)
    ended = end_unseen(courses, prints, descent.max_loss, spared)
    kept = {task: found.measure_kept(ended, prints) for task, found in judged.items()}
    report("fitting the cascade", 1, 1)
    stages = tuple(
        StageSpec(
            members=names,
            tasks={task: found.specify(stage, stops[task]) for task, found in judged.items() if stage in found.early},
        )
        for stage, names in enumerate(descent.stages)
    )
    origins = {part.task: part.origin for part in rows if part.origin is not None}
    told = _tell_ends(ended, len(stages), kept)
    return _with_cascade(
        outline, {"stages": stages, "max_loss": descent.max_loss, "fitted_on": origins, "report": told}
    )


def _judge_all(engine: Engine, outline: Manifest, rows: Sequence[Unseen], report: Report) -> dict[str, _Judged]:
    """Let all members answer all tasks of all texts, whichever task a text has a label of."""
    texts = [text for part in rows for text in part.sheet.texts]
    mentions = [given for part in rows for given in part.sheet.mentions]
    members = ask_all(engine, texts, mentions, report)
    starts = np.cumsum([0, *(len(part.sheet.texts) for part in rows)])
    judged: dict[str, _Judged] = {}
    for number, part in enumerate(rows):
        report("choosing what early stages say", number, len(rows))
        mentioned = outline.tasks[part.task].kind == "entity"
        owners = np.repeat(np.arange(len(texts)), [len(given) for given in mentions] if mentioned else 1)
        own = np.flatnonzero((starts[number] <= owners) & (owners < starts[number + 1]))
        judged[part.task] = _judge(engine, outline, part, members[part.task], owners=owners, own=own)
    report("choosing what early stages say", len(rows), len(rows))
    return judged


def _judge(
    engine: Engine, outline: Manifest, part: Unseen, members: Probabilities, *, owners: Indices, own: Indices
) -> _Judged:
    """Choose the early stages of a task on its own rows, and let them answer all rows.

    Args:
        engine: of the whole stack.
        outline: the manifest with the stages.
        part: the task and its labelled rows.
        members: what all members say of all rows, [k, n, c].
        owners: the text of each row, [n].
        own: which rows are those of `part`.
    """
    held_out, own = judge_members(members[:, own], part), own[was_read(members[:, own])]
    early: dict[int, Choice] = {}
    said = []
    for stage, run in enumerate(early_members(outline, part.task)):
        given = np.full(members.shape[1:], np.nan)
        if run:
            early[stage] = choice = choose_early(held_out, run)
            given = tell(choice.pool, choice.calibrator, members[list(run)])
            given[own] = choice.probabilities  # by what was fitted without the row
        said.append(given)
    return _Judged(Course((*said, engine.pooled(part.task, members)), owners), early, own, held_out.truth)


def _with_cascade(manifest: Manifest, changes: Mapping[str, object]) -> Manifest:
    spec = manifest.cascade and manifest.cascade.model_copy(update=changes)
    return manifest.model_copy(update={"cascade": spec})


def _run(bundle: Bundle, rows: Sequence[Unseen], report: Report) -> Indices:
    """Run the cascade as in service; the stage at which each text ends, counted from 0, [texts]."""
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
    return np.array(ended, dtype=np.int64)


def _tell_ends(ended: Indices, stages: int, kept: Mapping[str, Interval] = MappingProxyType({})) -> CascadeReport:
    """What share of texts ends at each stage, of those at which each text ends, counted from 0, [texts]."""
    shares = np.bincount(ended, minlength=stages) / len(ended)
    return CascadeReport(texts=len(ended), ended=tuple(shares.round(5).tolist()), kept=kept)


def time_forms(bundle: Bundle, rows: Sequence[Unseen]) -> dict[Form, float]:
    """Seconds a text takes in width and in the cascade, by turns, on at most 500 of the rows' texts."""
    texts = [text for part in rows for text in part.sheet.texts]
    sample = texts[:: -(-len(texts) // SAMPLE_TEXTS)]
    forms: tuple[Form, ...] = ("width", "cascade")
    engines = {form: Engine.load(bundle.root, form=form, language_guard=False) for form in forms}
    seconds = time_alternately({form: partial(engine.predict, sample) for form, engine in engines.items()})
    return {form: seconds[form] / len(sample) for form in forms}
