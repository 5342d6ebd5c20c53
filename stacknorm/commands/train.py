"""`stacknorm train`: from a config and data to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from stacknorm.commands.console import needs_train, plain_errors
from stacknorm.errors import DataError


def train(
    config: Annotated[Path, typer.Argument(help="The training config (TOML); docs/training.md explains its fields.")],
    data: Annotated[Path, typer.Option(help="Directory of the data files the config names.")],
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    cross_validate: Annotated[
        int | None,
        typer.Option(min=2, help="No bundle, but a cross-validation of this many folds: a table and folds.json."),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(min=1, help="No bundle, but this many trials over the config's \\[search] table, and best.toml."),
    ] = None,
    *,
    device: Annotated[
        Literal["auto", "cuda", "cpu"], typer.Option(help="Where to train; auto: on a GPU where there is one.")
    ] = "auto",
) -> None:
    r"""Train every member, fit pools and calibrators on rows no member was trained on, and write a bundle.

    Stopped at any time, the same command goes on after the last whole epoch. Needs the extra: pip install
    'stacknorm\[train]'.

    Example:  stacknorm train stacknorm/bundles/finance/train.toml --data data --out runs/finance
    """
    with plain_errors():
        if cross_validate and search:
            raise DataError("--cross-validate and --search are two different things to do: give one")
        console = Console()
        with needs_train("training"):
            if cross_validate:
                from stacknorm.training import folds

                folds.cross_validate(config, data, out, cross_validate, console, device=device)
                console.print(f"wrote {out / folds.REPORT_FILE}", soft_wrap=True)
            elif search:
                from stacknorm.training.search import search_recipe

                console.print(
                    f"wrote {search_recipe(config, data, out, search, console, device=device)}", soft_wrap=True
                )
            else:
                from stacknorm.training.train import train_bundle

                written = train_bundle(config, data, out, console, device=device)
                console.print(f"wrote {out}, stack digest {written.digest}", soft_wrap=True)
