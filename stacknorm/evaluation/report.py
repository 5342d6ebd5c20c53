"""Evaluations as people and programs read them: tables for a terminal of 80 columns, and JSON."""

from collections.abc import Iterator, Sequence

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stacknorm.evaluation.compare import LabelPair
from stacknorm.evaluation.compare_counted import CountedMatch
from stacknorm.evaluation.compare_pair import Matched
from stacknorm.evaluation.compare_sentences import (
    MATCH_TITLES,
    AnyComparison,
    compared_sentences,
    name_parts,
    spell_verdict,
)
from stacknorm.evaluation.counted import CountedEvaluation, CountPart
from stacknorm.evaluation.evaluate import Evaluation
from stacknorm.evaluation.part import Part, confusions
from stacknorm.evaluation.sentences import (
    TITLES,
    cascade_sentences,
    cost_sentence,
    counted_sentences,
    leak_sentences,
    member_sentence,
    protocol_sentences,
    set_sentences,
    spell,
    spell_best,
    spell_count_difference,
    spell_points,
    withheld_sentence,
)
from stacknorm.frozen import Frozen

_CONFUSIONS = 5
_PAIRS = 10


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
    console.print(_member_table(shown, which.capitalize()))
    console.print(Text(spell_best(shown)))
    console.print()
    console.print(_class_table(shown, which.capitalize()))
    for count, truth, given in confusions(shown, _CONFUSIONS):
        console.print(Text(f"{count:5,} times {truth} was taken for {given}"))
    console.print()
    for line in _findings(evaluation, shown):
        console.print(Text(line))
    console.print()
    for line in (member_sentence(evaluation.protocol), *protocol_sentences(evaluation.protocol)):
        console.print(Text(line), style="dim")


def _findings(evaluation: Evaluation, shown: Part) -> Iterator[str]:
    yield from leak_sentences(evaluation.leaks)
    yield withheld_sentence(evaluation.withheld)
    if shown.sets is not None:
        yield from set_sentences(shown.sets)
    if evaluation.cascade is not None:
        yield from cascade_sentences(evaluation.cascade)
    if evaluation.costs is not None:
        yield cost_sentence(evaluation.costs)


def _score_table(evaluation: Evaluation) -> Table:
    parts = {"all rows": evaluation.official} | ({"clean rows": evaluation.clean} if evaluation.clean else {})
    table = Table("The stack", *(f"{name} ({part.rows:,})" for name, part in parts.items()), box=SIMPLE_HEAD)
    for metric, title in TITLES.items():
        table.add_row(title, *(spell(part.stack[metric]) for part in parts.values()))
    chance = (spell(part.ece_if_calibrated) for part in parts.values())
    table.add_row(Text("ECE if calibrated", style="dim"), *(Text(found, style="dim") for found in chance))
    return table


def _member_table(part: Part, title: str) -> Table:
    table = Table(title, "accuracy", "NLL (nats)", "ECE", box=SIMPLE_HEAD)
    for name, scores in {"stack": part.stack, **part.members}.items():
        cells = spell(scores["accuracy"]), spell(scores["nll"]), f"{scores['ece'].value:.3f}"
        mark = " (best)" if name == part.best_member else ""
        table.add_row(f"{name}{mark}", *cells, style="bold" if name == "stack" else "")
    return table


def _class_table(part: Part, title: str) -> Table:
    table = Table(title, box=SIMPLE_HEAD)
    for column in ("precision", "recall", "F1", "rows"):
        table.add_column(column, justify="right")
    for one in part.classes:
        table.add_row(one.label, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", f"{one.rows:,}")
    return table


def print_counted(evaluation: CountedEvaluation, console: Console) -> None:
    """Print scores, members, labels, the leak audit and the protocol."""
    protocol = evaluation.protocol
    shown = evaluation.clean or evaluation.official
    which = "clean texts" if evaluation.clean else "all texts"
    console.print(
        Text(f"{protocol.stacks[0].name} on {protocol.data}, {protocol.task} ({protocol.kind})", style="bold")
    )
    for title, part in {"All texts": evaluation.official, "Clean texts": evaluation.clean}.items():
        if part is not None:
            console.print(_system_table(part, f"{title} ({part.rows:,})"))
    console.print(Text(spell_count_difference(shown, which)))
    console.print()
    console.print(_label_table(shown, which.capitalize()))
    for line in counted_sentences(evaluation):
        console.print(Text(line))
    console.print()
    for line in protocol_sentences(protocol):
        console.print(Text(line), style="dim")


def _system_table(part: CountPart, title: str) -> Table:
    table = Table(title, "micro F1", "macro F1", "precision", "recall", box=SIMPLE_HEAD)
    for name, found in part.systems.items():
        cells = f"{found.macro_f1.value:.3f}", f"{found.precision.value:.3f}", f"{found.recall.value:.3f}"
        mark = " (best)" if name == part.best_member else ""
        table.add_row(f"{name}{mark}", spell(found.micro_f1), *cells, style="bold" if name == "stack" else "")
    return table


def _label_table(part: CountPart, title: str) -> Table:
    table = Table(title, "F1", box=SIMPLE_HEAD)
    for column in ("precision", "recall", "true", "given"):
        table.add_column(column, justify="right")
    for one in part.systems["stack"].labels:
        rates = f"{one.precision:.3f}", f"{one.recall:.3f}"
        table.add_row(one.label, spell(one.f1), *rates, f"{one.true:,}", f"{one.given:,}")
    return table


def print_comparison(comparison: AnyComparison, console: Console) -> None:
    """Print the verdict, scores, disagreements, rates, costs and the protocol."""
    first, second = comparison.names
    shown, protocol, parts = comparison.decisive, comparison.protocol, name_parts(comparison)
    which = list(parts)[-1]
    console.print(Text(f"{second} against {first} on {protocol.data}, {protocol.task}, {which}", style="bold"))
    console.print(Text(spell_verdict(second, first, shown.paired)))
    for title, part in parts.items():
        console.print(_match_table(comparison.names, part, f"{title.capitalize()} ({part.rows:,})"))
        if part is not shown:
            console.print(Text(f"On {title}: {spell_verdict(second, first, part.paired)}"))
    console.print(Text(f"They disagree on {shown.disagreeing:,} of {shown.rows:,} {which}."))
    if isinstance(shown, CountedMatch):
        console.print(_rate_table(comparison.names, shown, "How often, per 100 texts"))
        console.print(_f1_table(comparison.names, shown))
    else:
        if shown.pairs:
            console.print(_pair_table(comparison.names, shown.pairs[:_PAIRS]))
        console.print(_rate_table(comparison.names, shown, "How often, in %"))
    for line in compared_sentences(comparison):
        console.print(Text(line))
    console.print()
    for line in protocol_sentences(protocol):
        console.print(Text(line), style="dim")


def _match_table(names: tuple[str, str], part: Matched, title: str) -> Table:
    table = Table(title, *names, box=SIMPLE_HEAD)
    for metric, found in part.first.items():
        table.add_row(MATCH_TITLES[metric], spell(found), spell(part.second[metric]))
    return table


def _pair_table(names: tuple[str, str], pairs: Sequence[LabelPair]) -> Table:
    table = Table(*(f"{name} says" for name in names), box=SIMPLE_HEAD)
    for column in ("rows", *(f"{name} right" for name in names)):
        table.add_column(column, justify="right")
    for pair in pairs:
        counts = (f"{count:,}" for count in (pair.rows, pair.first_right, pair.second_right))
        table.add_row(pair.first, pair.second, *counts)
    return table


def _rate_table(names: tuple[str, str], part: Matched, title: str) -> Table:
    table = Table(title, box=SIMPLE_HEAD)
    for column in ("true", *names, "shift"):
        table.add_column(column, justify="right")
    for rate in part.rates:
        shares = (f"{100 * share:.1f}" for share in (rate.true, rate.first, rate.second))
        table.add_row(rate.label, *shares, spell_points(rate.difference))
    return table


def _f1_table(names: tuple[str, str], part: CountedMatch) -> Table:
    table = Table("F1", "true", *names, box=SIMPLE_HEAD)
    for ours, theirs in zip(part.first_labels, part.second_labels, strict=True):
        table.add_row(ours.label, f"{ours.true:,}", spell(ours.f1), spell(theirs.f1))
    return table
