"""The command line: `stacknorm train | evaluate | predict`."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from stacknorm.errors import DataError, StacknormError

# What loads torch and transformers is imported inside the commands, so that --help answers at once.

app = typer.Typer(
    help="Label financial text with a stack of transformers: sentiment and topic, pooled and calibrated.\n\n"
    "Start with:  echo 'Acme cuts its outlook for the year' | stacknorm predict -",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_CHUNK_TEXTS = 512
PIPE_WIDTH = 120  # where there is no terminal to ask
_BundleOption = Annotated[str, typer.Option("--bundle", help="A packaged bundle's name, or a directory.")]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """One line for what the user can mend, and none of what libraries tell their developers."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StacknormError as exc:
        Console(stderr=True).print(f"[bold red]stacknorm:[/] {exc}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from exc


@app.command()
def predict(
    file: Annotated[
        Path, typer.Argument(help="Text lines, .csv or .jsonl with a `text` field; - reads lines from stdin.")
    ],
    bundle: _BundleOption = "finance",
) -> None:
    """Label every text of FILE: one JSON line a text, in order.

    The sentiment's `score` is p(positive) - p(negative), between -1 and 1.

    Example:  stacknorm predict headlines.csv > labels.jsonl
    """
    with _plain_errors():
        from stacknorm.dataset import read_lines, read_texts
        from stacknorm.engine import Engine
        from stacknorm.evaluation.report import prediction_record

        from_stdin = str(file) == "-"
        texts = read_lines(sys.stdin.buffer.read(), "standard input") if from_stdin else read_texts(file)
        engine = Engine.load(bundle)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            for prediction in engine.predict(texts[start : start + _CHUNK_TEXTS]):
                sys.stdout.buffer.write(orjson.dumps(prediction_record(prediction), option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()


@app.command()
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
    with _plain_errors():
        from stacknorm.evaluation.evaluate import evaluate_bundle
        from stacknorm.evaluation.report import evaluation_record, print_evaluation

        order = tuple(part.strip() for part in labels.split(",")) if labels else ()
        evaluation = evaluate_bundle(bundle, data, task, order)
        print_evaluation(evaluation, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
        if json is not None:
            json.write_bytes(orjson.dumps(evaluation_record(evaluation), option=orjson.OPT_INDENT_2))


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The training config (TOML); see bundles/finance/train.toml.")],
    data: Annotated[Path, typer.Option(help="Directory of the data files the config names.")],
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
) -> None:
    r"""Train every member, fit pools and temperatures on a held-out part, and write a bundle with its model card.

    Stopped half-way, the same command goes on with the members that are not finished. Needs the extra: pip install
    'stacknorm\[train]'.

    Example:  stacknorm train stacknorm/bundles/finance/train.toml --data data --out runs/finance
    """
    with _plain_errors():
        try:
            from stacknorm.training.train import train_bundle
        except ModuleNotFoundError as exc:
            raise DataError(f"training needs {exc.name}: pip install 'stacknorm\\[train]'") from exc

        console = Console()
        written = train_bundle(config, data, out, console)
        console.print(f"wrote {out}, stack digest {written.digest}", soft_wrap=True)
