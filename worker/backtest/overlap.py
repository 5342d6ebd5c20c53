"""Whether the stack knows the archive by heart: items whose text it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import load_bundle
from stacknorm.evaluation.leaks import seen_prints
from stacknorm.text import fingerprints
from worker.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of the items were trained on; None where nobody says what the stack was trained on."""

    stack: str
    items: int
    trained_on: int | None

    @property
    def sentence(self) -> str:
        """What it means."""
        if self.trained_on is None:
            return f"What {self.stack} was trained on is not known here, so nor is whether it knows this archive."
        if not self.trained_on:
            return f"None of the {self.items:,} items has a text on which {self.stack} was trained."
        return (
            f"{self.trained_on:,} of {self.items:,} items ({self.trained_on / self.items:.1%}) have a text on which "
            f"{self.stack} was trained. It knows their labels by heart, so on them it errs less than it will on news "
            "that is new to it: expect live alerts to be somewhat noisier than these. Rewritten copies are not found."
        )


def find_overlap(titles: Sequence[str], texts: Sequence[str], stack: str, settings: EngineSettings) -> Overlap:
    """Compare the items' titles, and their texts as the stack reads them, with the fingerprints in the bundle.

    Args:
        titles: of the items.
        texts: of the same items: title and body; only the title where no more is known.
        stack: what labelled them, by its name.
        settings: name the bundle; one of another name than the stack says nothing about it.
    """
    seen = _training_prints(stack, settings)
    return Overlap(stack, len(titles), None if seen is None else count_known(titles, texts, seen))


def count_known(titles: Sequence[str], texts: Sequence[str], seen: npt.NDArray[np.int64]) -> int:
    """How many items have a title or a text whose fingerprint was seen."""
    by_title, by_text = (np.isin(fingerprints(list(each)), seen) for each in (titles, texts))
    return int((by_title | by_text).sum())


def _training_prints(stack: str, settings: EngineSettings) -> npt.NDArray[np.int64] | None:
    if settings.kind != "stack":
        return None
    bundle = load_bundle(settings.bundle)
    return seen_prints(bundle) if stack.split("/", maxsplit=1)[0] == bundle.manifest.name else None
