"""Score a bundle on labelled rows: every member and the stack side by side, with intervals, and clean of leaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.engine import Engine
from stacknorm.evaluation.abstention import Withheld, find_withheld
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import Rows
from stacknorm.evaluation.cost import Costs, load_members, measure_costs
from stacknorm.evaluation.depth import CascadeScore, score_cascade
from stacknorm.evaluation.leaks import Leaks, audit, find_leaked, seen_prints, split_off
from stacknorm.evaluation.mistakes import Mistake, worst_mistakes
from stacknorm.evaluation.part import Part, accuracy_on, score_part
from stacknorm.evaluation.protocol import Protocol, write_protocol
from stacknorm.evaluation.trial import Question, Sheet, ask, ask_engine, read_sheet, task_of
from stacknorm.text import fingerprints

STACK = "stack"
CASCADE = "cascade"
_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a bundle on one file, for a task with one label a row."""

    protocol: Protocol
    official: Part
    """On all rows of the file."""
    clean: Part | None
    """On rows whose text was not trained on; none where that is not known, or every row was."""
    leaks: Leaks
    withheld: Withheld
    cascade: CascadeScore | None
    """None where the bundle has no cascade."""
    costs: Costs | None
    """Of `stack`, `cascade` and each member; None where they were not measured."""
    mistakes: tuple[Mistake, ...]
    """Most confident first; on all rows."""


def evaluate_bundle(name: str, question: Question, now: datetime, *, with_costs: bool = True) -> Evaluation:
    """Evaluate a bundle on a labelled file.

    Args:
        name: of a packaged bundle, or a directory.
        question: task and file.
        now: stands in the protocol.
        with_costs: whether to measure texts a second as well.

    Raises:
        BundleError: the bundle cannot be loaded.
        DataError: the file cannot be used, or the bundle has no such task.
    """
    bundle = load_bundle(name)
    spec = task_of(bundle, question.task)
    sheet = read_sheet(spec, question)
    engines = _load(bundle)
    systems = ask(bundle, engines[STACK], question.task, sheet)
    prints = fingerprints(sheet.row_texts)
    leaked = find_leaked(prints, seen_prints(bundle, question.training_files))
    clean = split_off(leaked)
    costs = _measure(bundle, engines, question.task, sheet) if with_costs else None
    cascade = ask_engine(engines[CASCADE], question.task, sheet, spec.labels) if CASCADE in engines else None
    return Evaluation(
        protocol=write_protocol(question, [(bundle, engines[STACK])], len(sheet.truth), now),
        official=score_part(systems, spec.conformal),
        clean=None if clean is None else score_part(systems.only(clean), spec.conformal),
        leaks=audit(prints, sheet.documents, sheet.truth.tolist(), leaked, accuracy_on(systems.stack, leaked)),
        withheld=find_withheld(bundle.manifest, sheet.row_texts, systems.stack),
        cascade=_weigh(bundle, systems.stack, cascade, costs),
        costs=costs,
        mistakes=worst_mistakes(systems, sheet.shown, leaked, _MISTAKES),
    )


def _load(bundle: Bundle) -> dict[str, Engine]:
    """The stack in width, and in depth where the bundle has a cascade."""
    engines = {STACK: Engine.load(bundle.root, form="width", language_guard=False)}
    if bundle.manifest.cascade is not None:
        engines[CASCADE] = Engine.load(bundle.root, form="cascade", language_guard=False)
    return engines


def _measure(bundle: Bundle, engines: Mapping[str, Engine], task: str, sheet: Sheet) -> Costs:
    members = bundle.manifest.members_of(task)
    single = load_members(bundle, members, engines[STACK]) if len(members) > 1 else {}
    return measure_costs({**engines, **single}, sheet.texts, sheet.mentions)


def _weigh(
    bundle: Bundle, width: Answers, cascade: tuple[Answers, Rows] | None, costs: Costs | None
) -> CascadeScore | None:
    if cascade is None or bundle.manifest.cascade is None:
        return None
    cost = costs.ratio(CASCADE, STACK) if costs else None
    return score_cascade(bundle.manifest.cascade, width, *cascade, cost)
