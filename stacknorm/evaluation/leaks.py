"""The leak audit: rows whose text was seen in training, or stands in the file more than once.

Two texts are the same news when they agree after URLs, punctuation, case and HTML entities are folded
(`stacknorm.text.normalise_text`). Rewritten copies are not found.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from stacknorm.bundle import FINGERPRINTS_FILE, Bundle, Interval
from stacknorm.dataset import read_texts
from stacknorm.evaluation.answers import Answers, Chosen
from stacknorm.evaluation.metrics import score
from stacknorm.text import fingerprints

Prints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Leaks:
    """What the audit found."""

    rows: int
    leaked: int | None
    """Rows whose text was trained on; None where neither bundle nor user says what that was."""
    leaked_accuracy: Interval | None
    """Of the stack on those rows; None where there are none."""
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


def audit(prints: Prints, answers: Answers, leaked: Chosen | None) -> Leaks:
    """Count leaks and repetitions.

    Args:
        prints: fingerprint of each row's text, [n].
        answers: of the stack, [n].
        leaked: which rows were trained on, [n].
    """
    seen = answers.only(leaked) if leaked is not None and leaked.any() else None
    return Leaks(
        rows=len(prints),
        leaked=None if leaked is None else int(leaked.sum()),
        leaked_accuracy=score(seen.probabilities, seen.truth, seen.bootstrap)["accuracy"] if seen else None,
        repeated=_repeated(prints, answers),
        contradictory=_contradictory(prints, answers),
    )


def _repeated(prints: Prints, answers: Answers) -> int:
    """Documents whose text came before; the mentions of one document are no repetition of each other."""
    _, firsts = np.unique(answers.documents, return_index=True)
    return int(len(firsts) - len(np.unique(prints[firsts])))


def _contradictory(prints: Prints, answers: Answers) -> int:
    labels: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for print_, document, label in zip(
        prints.tolist(), answers.documents.tolist(), answers.truth.tolist(), strict=True
    ):
        labels[print_][document].append(label)
    return sum(len({tuple(found) for found in copies.values()}) > 1 for copies in labels.values())
