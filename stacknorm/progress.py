"""How long work tells what it has done, to whoever draws bars: a command does, a library call need not."""

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def tell_nobody(what: str, done: int, total: int) -> None:
    """A `Report` for callers who want none."""
