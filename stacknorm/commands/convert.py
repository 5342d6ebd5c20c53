"""`stacknorm convert`: a pickled checkpoint into safetensors."""

from pathlib import Path
from typing import Annotated

import typer

from stacknorm.commands.console import open_console, plain_errors


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .bin or .pt checkpoint, or the directory that holds it.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; model.safetensors beside the checkpoint if left out.")
    ] = None,
) -> None:
    """Turn a pickled checkpoint into safetensors, so that it can be a member of a stack.

    A pickle can run code when it is read, so stacknorm never reads one itself: a separate process does, with torch's
    restricted unpickler, little memory and time, and no right to write files, open connections or start programs.
    The result holds the same tensors under the same names; whatever else the file holds is refused.

    Example:  stacknorm convert ./finbert
    """
    with plain_errors():
        from stacknorm.bases.convert import convert_checkpoint, find_pickle
        from stacknorm.bases.source import WEIGHTS_FILE, digest_file

        source = find_pickle(checkpoint)
        done = convert_checkpoint(source, out or source.parent / WEIGHTS_FILE)
        open_console().print(
            f"wrote {done.path}: {done.tensors} tensors, {done.size_bytes:,} bytes, sha256 {digest_file(done.path)}",
            highlight=False,
            soft_wrap=True,
        )
