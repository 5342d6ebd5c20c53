"""`stacknorm train`: from a config and data to a bundle."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stacknorm.commands.console import plain_errors
from stacknorm.errors import DataError


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
    with plain_errors():
        try:
            from stacknorm.training.train import train_bundle
        except ModuleNotFoundError as exc:
            raise DataError(f"training needs {exc.name}: pip install 'stacknorm\\[train]'") from exc

        console = Console()
        written = train_bundle(config, data, out, console)
        console.print(f"wrote {out}, stack digest {written.digest}", soft_wrap=True)
