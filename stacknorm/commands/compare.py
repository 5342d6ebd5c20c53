"""`stacknorm compare`: is one bundle better than another, where do they differ, and what do they cost?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stacknorm.commands.console import (
    Integers,
    LabelledRows,
    Task,
    needs_train,
    open_console,
    plain_errors,
    split_commas,
)

EXIT_WORSE = 2


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A packaged bundle's name, or a directory.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    data: LabelledRows,
    *,
    task: Task = "sentiment",
    labels: Integers = "",
    train: Annotated[
        list[Path] | None,
        typer.Option(help="A file that was trained on, beside what the bundles know of themselves; may be repeated."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write every number to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page with pictures, which loads nothing.")] = None,
    fail_if_worse: Annotated[bool, typer.Option("--fail-if-worse", help="Exit with 2 if B is worse.")] = False,
) -> None:
    r"""Compare bundle B with bundle A on the same labelled rows, each in the form it would run in.

    B is called worse (or better) if McNemar's exact test finds at p < 0.05 that it is right on fewer (more) rows, or,
    where that test finds nothing, if the 95 % interval of the difference in NLL lies above (below) zero. Where a text
    has any number of labels or spans, B is worse (or better) if the 95 % interval of the difference in micro F1 lies
    below (above) zero. Rows that either was trained on are left out of the verdict, where both say what they were
    trained on. Needs the extra: pip install 'stacknorm\[train]'. What each number means: docs/evaluation.md.

    Exit status: 0 B is not worse, or --fail-if-worse was not asked for; 1 error; 2 B is worse. Wrong options exit
    with 2 as well, before anything runs.

    Example:  stacknorm compare finance ./mine tfns_valid.csv --labels bearish,bullish,neutral --fail-if-worse
    """
    with plain_errors():
        with needs_train("comparing"):
            from stacknorm.bundle import load_bundle
            from stacknorm.evaluation.compare import compare_bundles
            from stacknorm.evaluation.compare_counted import compare_counted
            from stacknorm.evaluation.counted import COUNTED_KINDS
            from stacknorm.evaluation.page import render_comparison
            from stacknorm.evaluation.report import as_json, print_comparison
            from stacknorm.evaluation.trial import Question, task_of

        question = Question(data, task, split_commas(labels), tuple(train or ()))
        counted = task_of(load_bundle(first), task).kind in COUNTED_KINDS
        comparison = (compare_counted if counted else compare_bundles)(first, second, question, datetime.now(UTC))
        print_comparison(comparison, open_console())
        if json is not None:
            json.write_bytes(as_json(comparison))
        if html is not None:
            html.write_text(render_comparison(comparison), encoding="utf-8")
        if fail_if_worse and comparison.decisive.paired.verdict == "worse":
            raise typer.Exit(EXIT_WORSE)
