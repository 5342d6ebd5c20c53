"""`stacknorm evaluate`: how good a bundle is on labelled rows."""

from pathlib import Path
from typing import Annotated

import orjson
import typer

from stacknorm.commands.console import open_console, plain_errors


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A packaged bundle's name, or a directory.")],
    data: Annotated[Path, typer.Argument(help="Labelled rows: .csv or .jsonl with `text` and `label`.")],
    task: Annotated[str, typer.Option(help="The task the labels belong to.")] = "sentiment",
    labels: Annotated[
        str,
        typer.Option(
            help="What the integers 0, 1, ... in the file mean: bearish,bullish,neutral. Needed for integers."
        ),
    ] = "",
    json: Annotated[Path | None, typer.Option(help="Also write every number to this file.")] = None,
) -> None:
    """Score a bundle on labelled rows: the stack and each member, with 95 % bootstrap intervals.

    Two tables: all rows, and the rows whose text (URLs and punctuation removed) was not in the training data.
    Below each, the paired difference between the stack and the member that was best before it saw these rows.

    Example:  stacknorm evaluate finance tfns_valid.csv --labels bearish,bullish,neutral
    """
    with plain_errors():
        from stacknorm.evaluation.evaluate import evaluate_bundle
        from stacknorm.evaluation.report import evaluation_record, print_evaluation

        order = tuple(part.strip() for part in labels.split(",")) if labels else ()
        evaluation = evaluate_bundle(bundle, data, task, order)
        print_evaluation(evaluation, open_console())
        if json is not None:
            json.write_bytes(orjson.dumps(evaluation_record(evaluation), option=orjson.OPT_INDENT_2))
