"""The leak audit: rows whose text was seen in training, or stands in the file more than once.

Two texts are the same news when they agree after URLs, punctuation, case and HTML entities are folded
(`stacknorm.text.normalise_text`). Rewritten copies are not found.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from stacknorm.bundle import FINGERPRINTS_FILE, Bundle, Interval
from stacknorm.dataset import read_texts
from stacknorm.evaluation.answers import Chosen
from stacknorm.evaluation.bootstrap import Rows
from stacknorm.text import fingerprints

Prints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Leaks:
    """What the audit found."""

    rows: int
    leaked: int | None
    """Rows whose text was trained on; None where neither bundle nor user says what that was."""
    leaked_score: Interval | None
    """The stack's accuracy on those rows (of tasks with many labels a text, its F1); None where there are none."""
    repeated: int
    """Rows whose text stands further up in the file."""
    contradictory: int
    """Texts that stand in the file with different labels: one of them cannot be answered right."""


def seen_prints(bundle: Bundle, training_files: Sequence[Path] = ()) -> Prints | None:
    """Fingerprints of the texts a bundle was trained on, by its own word and from files; None where nothing is known.

    Raises:
        DataError: a file cannot be read.
    """
    known = [fingerprints(read_texts(path)) for path in training_files]
    if FINGERPRINTS_FILE in bundle.manifest.files:
        known.append(load_file(bundle.root / FINGERPRINTS_FILE)["fingerprints"])
    return np.unique(np.concatenate(known)) if known else None


def find_leaked(prints: Prints, seen: Prints | None) -> Chosen | None:
    """Which rows' texts were seen, [n]; None where nothing is known of what was."""
    return None if seen is None else np.isin(prints, seen)


def split_off(leaked: Chosen | None) -> Chosen | None:
    """Which rows are clean, [n]; None where that is not known, or no row is."""
    return None if leaked is None or leaked.all() else ~leaked


def audit(
    prints: Prints, documents: Rows, truths: Sequence[Hashable], leaked: Chosen | None, leaked_score: Interval | None
) -> Leaks:
    """Count leaks and repetitions.

    Args:
        prints: fingerprint of each row's text, [n].
        documents: the document of each row, [n]; rows of one are no repetition of each other.
        truths: what is true of each row, [n].
        leaked: which rows were trained on, [n].
        leaked_score: the stack's on those.
    """
    _, firsts = np.unique(documents, return_index=True)
    return Leaks(
        rows=len(prints),
        leaked=None if leaked is None else int(leaked.sum()),
        leaked_score=leaked_score,
        repeated=int(len(firsts) - len(np.unique(prints[firsts]))),
        contradictory=_contradictory(prints, documents, truths),
    )


def _contradictory(prints: Prints, documents: Rows, truths: Sequence[Hashable]) -> int:
    copies: dict[int, dict[int, list[Hashable]]] = defaultdict(lambda: defaultdict(list))
    for print_, document, truth in zip(prints.tolist(), documents.tolist(), truths, strict=True):
        copies[print_][document].append(truth)
    return sum(len({tuple(found) for found in documents.values()}) > 1 for documents in copies.values())
