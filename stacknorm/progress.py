"""How long work tells what it has done, to whoever draws bars: a command does, a library call need not."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def tell_nobody(what: str, done: int, total: int) -> None:
    """A `Report` for callers who want none."""


def draw_on(progress: "Progress") -> Report:
    """A `Report` that draws a bar for each thing that is done."""
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done)

    return report
