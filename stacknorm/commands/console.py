"""What every command does at its edges: where it prints, and how it says what went wrong."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from stacknorm.errors import DataError, StacknormError
from stacknorm.progress import Report, draw_on

Task = Annotated[str, typer.Option(help="The task the labels belong to.")]
Integers = Annotated[
    str,
    typer.Option(help="What the integers 0, 1, ... in the file mean: bearish,bullish,neutral. Needed for integers."),
]
LabelledRows = Annotated[
    Path,
    typer.Argument(help="Labelled rows: .csv or .jsonl with `text` and `label` (or `labels`, `entities`, `spans`)."),
]
BundleName = Annotated[str, typer.Argument(metavar="BUNDLE", help="A packaged bundle's name, or a directory.")]
PIPE_WIDTH = 120  # where there is no terminal to ask


def open_console() -> Console:
    """Standard output, as wide as its terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def split_commas(text: str) -> tuple[str, ...]:
    """What stands between commas, an empty part too: to leave it out would number the others anew."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


@contextmanager
def plain_errors() -> Iterator[None]:
    """One line for what the user can mend, and none of what libraries tell their developers."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StacknormError as exc:
        Console(stderr=True).print(f"[bold red]stacknorm:[/] {exc}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from exc


@contextmanager
def needs_train(doing: str) -> Iterator[None]:
    """Around imports that need the extra `train`: what cannot be done without it, and how to get it."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise DataError(f"{doing} needs {exc.name}: pip install 'stacknorm\\[train]'") from exc


@contextmanager
def open_progress() -> Iterator[Report]:
    """A bar for each thing that is done, on standard error where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        yield draw_on(progress)
