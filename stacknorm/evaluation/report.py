"""Evaluations as people and programs read them: tables for a terminal of 80 columns, and JSON."""

from collections.abc import Iterator

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stacknorm.bundle import Interval
from stacknorm.evaluation.evaluate import Evaluation
from stacknorm.evaluation.leaks import Leaks
from stacknorm.evaluation.paired import Paired
from stacknorm.evaluation.part import Part, confusions
from stacknorm.evaluation.protocol import Protocol
from stacknorm.frozen import Frozen

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL (nats)",
    "brier": "Brier",
    "ece": "ECE",
    "classwise_ece": "classwise ECE",
    "aurc": "AURC",
}
_CONFUSIONS = 5


def as_json(value: object) -> bytes:
    """Every number of an evaluation or a comparison."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2)


def _plain(value: object) -> object:
    if isinstance(value, Frozen):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print scores, members, labels, the leak audit and the protocol."""
    stack = evaluation.protocol.stacks[0]
    shown = evaluation.clean or evaluation.official
    which = "clean rows" if evaluation.clean else "all rows"
    console.print(f"[bold]{stack.name}[/] on {evaluation.protocol.data}, {evaluation.protocol.task}", highlight=False)
    console.print(_score_table(evaluation))
    console.print(_member_table(shown, f"Members, {which}"))
    for sentence in paired_sentences(shown):
        console.print(Text(sentence))
    console.print()
    console.print(_class_table(shown, f"Labels, {which}"))
    for count, truth, given in confusions(shown, _CONFUSIONS):
        console.print(Text(f"{count:5,} times {truth} was taken for {given}"))
    console.print()
    for line in (*leak_sentences(evaluation.leaks), *protocol_sentences(evaluation.protocol)):
        console.print(Text(line), style="dim")


def _score_table(evaluation: Evaluation) -> Table:
    parts = {"all rows": evaluation.official} | ({"clean rows": evaluation.clean} if evaluation.clean else {})
    table = Table("The stack", *(f"{name} ({part.rows:,})" for name, part in parts.items()), box=SIMPLE_HEAD)
    for metric, title in TITLES.items():
        table.add_row(title, *(spell(part.stack[metric]) for part in parts.values()))
    chance = (spell(part.ece_if_calibrated) for part in parts.values())
    table.add_row(Text("ECE if calibrated", style="dim"), *(Text(found, style="dim") for found in chance))
    return table


def _member_table(part: Part, title: str) -> Table:
    table = Table(title, "accuracy", "NLL", "ECE", "AURC", box=SIMPLE_HEAD)
    for name, scores in {"stack": part.stack, **part.members}.items():
        cells = spell(scores["accuracy"]), spell(scores["nll"]), f"{scores['ece'].value:.3f}"
        mark = " (best)" if name == part.best_member else ""
        table.add_row(f"{name}{mark}", *cells, f"{scores['aurc'].value:.3f}", style="bold" if name == "stack" else "")
    return table


def _class_table(part: Part, title: str) -> Table:
    table = Table(title, box=SIMPLE_HEAD)
    for column in ("precision", "recall", "F1", "rows"):
        table.add_column(column, justify="right")
    for one in part.classes:
        table.add_row(one.label, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", f"{one.rows:,}")
    return table


def paired_sentences(part: Part) -> Iterator[str]:
    """The stack against its best member, in words."""
    best = part.best_member
    yield f"Against {best}, chosen before these rows: the stack is {spell_paired(part.paired[best])}"


def spell_paired(paired: Paired) -> str:
    """`better by 1.1 points of accuracy (0.3 to 1.9) ...`."""
    points = paired.accuracy
    direction = "better" if points.value > 0 else "worse" if points.value < 0 else "equal"
    low, high = sorted((points.low, points.high)) if points.value >= 0 else sorted((-points.low, -points.high))
    return (
        f"{direction} by {abs(100 * points.value):.1f} points of accuracy ({100 * low:.1f} to {100 * high:.1f}), "
        f"alone right on {paired.only_ours_right:,} rows and alone wrong on {paired.only_theirs_right:,} "
        f"(McNemar p = {paired.mcnemar_p:.2g}); NLL {paired.nll.value:+.4f} ({paired.nll.low:+.4f} to "
        f"{paired.nll.high:+.4f})."
    )


def leak_sentences(leaks: Leaks) -> Iterator[str]:
    """The leak audit in words."""
    if leaks.leaked is None:
        yield "Leaks: the bundle does not say what it was trained on; name the files with --train."
    elif not leaks.leaked_accuracy:
        yield f"Leaks: none of {leaks.rows:,} rows was trained on."
    else:
        found = leaks.leaked_accuracy
        yield (
            f"Leaks: {leaks.leaked:,} of {leaks.rows:,} rows ({leaks.leaked / leaks.rows:.1%}) were trained on; "
            f"accuracy on those {spell(found)}."
        )
    yield f"In the file: {leaks.repeated:,} rows repeat an earlier text, {leaks.contradictory:,} texts have two labels."


def protocol_sentences(protocol: Protocol) -> Iterator[str]:
    """The protocol in words."""
    yield f"Data: {protocol.data}, {protocol.rows:,} rows, sha256 {protocol.data_sha256}."
    for stack in protocol.stacks:
        yield (
            f"Stack: {stack.name}, digest {stack.digest}, {stack.precision} on {stack.device}, "
            f"texts cut at {stack.max_tokens} tokens."
        )
    yield (
        f"Cleaning: {protocol.cleaning}. The same text: {protocol.same_text}. Intervals: {protocol.interval}, "
        f"{protocol.resamples:,} resamples, seed {protocol.seed}."
    )
    machine = protocol.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    yield f"Machine: {machine.processor}, {machine.cores} cores; {versions}."


def spell(found: Interval) -> str:
    """`0.877 (0.864 to 0.890)`."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
