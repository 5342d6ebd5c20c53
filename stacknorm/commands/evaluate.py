"""`stacknorm evaluate`: how good a bundle is on labelled rows."""

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


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A packaged bundle's name, or a directory.")],
    data: LabelledRows,
    *,
    task: Task = "sentiment",
    labels: Integers = "",
    train: Annotated[
        list[Path] | None,
        typer.Option(help="A file that was trained on, beside what the bundle knows of itself; may be repeated."),
    ] = None,
    cost: Annotated[bool, typer.Option(help="Measure texts a second of the stack and of each member alone.")] = True,
    json: Annotated[Path | None, typer.Option(help="Also write every number to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page with pictures, which loads nothing.")] = None,
) -> None:
    r"""Score a bundle on labelled rows: the stack and each member, with 95 % bootstrap intervals.

    Official scores are of all rows; clean ones of the rows whose text (URLs and punctuation removed) was not trained
    on. The stack is compared, row by row, with the member that was best before it saw these rows. Needs the extra:
    pip install 'stacknorm\[train]'. What each number means: docs/evaluation.md.

    Example:  stacknorm evaluate finance tfns_valid.csv --labels bearish,bullish,neutral --html report.html
    """
    with plain_errors():
        with needs_train("evaluating"):
            from stacknorm.bundle import load_bundle
            from stacknorm.evaluation.counted import COUNTED_KINDS, CountedEvaluation, evaluate_counted
            from stacknorm.evaluation.evaluate import Evaluation, evaluate_bundle
            from stacknorm.evaluation.page import render_counted, render_evaluation
            from stacknorm.evaluation.report import as_json, print_counted, print_evaluation
            from stacknorm.evaluation.trial import Question, task_of

        question = Question(data, task, split_commas(labels), tuple(train or ()))
        now, console = datetime.now(UTC), open_console()
        found: Evaluation | CountedEvaluation
        if task_of(load_bundle(bundle), task).kind in COUNTED_KINDS:
            found = evaluate_counted(bundle, question, now, with_costs=cost)
            print_counted(found, console)
            page = render_counted(found)
        else:
            found = evaluate_bundle(bundle, question, now, with_costs=cost)
            print_evaluation(found, console)
            page = render_evaluation(found)
        if json is not None:
            json.write_bytes(as_json(found))
        if html is not None:
            html.write_text(page, encoding="utf-8")
