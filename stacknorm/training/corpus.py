"""The rows a stack is trained on, and the split that keeps copies of one text on one side."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import Source
from stacknorm.dataset import read_labelled
from stacknorm.source import digest_file
from stacknorm.text import clean_text, fingerprints, truncate_text
from stacknorm.training.recipe import Recipe

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows of all tasks together; arrays are [rows]."""

    texts: list[str]
    tasks: Indices
    """Position of each row's task in `names`."""
    labels: Indices
    prints: Indices
    held_out: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    sources: tuple[Source, ...]

    def rows(self, *, held_out: bool, task: str | None = None) -> Indices:
        """Positions of the rows on one side of the split, of one task or of all."""
        chosen = self.held_out == held_out
        if task is not None:
            chosen &= self.tasks == self.names.index(task)
        return np.flatnonzero(chosen)


def load_corpus(recipe: Recipe, directory: Path) -> Corpus:
    """Read every file of the recipe from `directory`, clean the texts and split them.

    Raises:
        DataError: a file cannot be used.
    """
    spaces = recipe.spaces()
    names = tuple(spaces)
    texts: list[str] = []
    tasks: list[int] = []
    labels: list[int] = []
    sources = []
    for data in recipe.data:
        path = directory / data.file
        rows = read_labelled(path, spaces[data.task], data.labels)
        texts += [truncate_text(clean_text(row.text), recipe.max_tokens) for row in rows]
        labels += [row.label for row in rows]
        tasks += [names.index(data.task)] * len(rows)
        sources.append(
            Source(
                file=data.file,
                title=data.title,
                licence=data.licence,
                sha256=digest_file(path),
                task=data.task,
                rows=len(rows),
            )
        )
    task_of, label_of, prints = np.array(tasks), np.array(labels), fingerprints(texts)
    held_out = hold_out(prints, task_of, label_of, recipe.held_out, recipe.seed)
    return Corpus(texts, task_of, label_of, prints, held_out, names, tuple(sources))


def hold_out(prints: Indices, tasks: Indices, labels: Indices, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose held-out rows: about `share` of the different texts of each class of each task.

    A text chosen once is held out wherever it appears, in any task, so no copy of it is trained on. The choice
    depends on the text and the seed alone, not on the order of rows.

    Args:
        prints: fingerprint of each row's text, [n].
        tasks: task of each row, [n].
        labels: label of each row, [n].
        share: between 0 and 1.
        seed: another seed gives another split.
    """
    chosen: set[int] = set()
    for task, label in np.unique(np.stack([tasks, labels], axis=1), axis=0):
        texts = np.unique(prints[(tasks == task) & (labels == label)]).tolist()
        texts.sort(key=lambda print_: _order(print_, seed))
        chosen.update(texts[: round(share * len(texts))])
    return np.isin(prints, np.fromiter(chosen, dtype=np.int64, count=len(chosen)))


def _order(print_: int, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{print_}".encode(), digest_size=8).digest()


def class_weights(labels: Indices, classes: int, power: float) -> npt.NDArray[np.float32]:
    """Weight of each class, s^-power for share s, scaled so that the mean over rows is 1; [classes]."""
    shares = np.bincount(labels, minlength=classes).clip(min=1) / max(len(labels), 1)
    weights = shares**-power
    return np.asarray(weights / (weights * shares).sum(), dtype=np.float32)


def describe_rows(corpus: Corpus) -> Mapping[str, int]:
    """Counts for the manifest: `<task> trained` and `<task> held out`."""
    return {
        f"{task} {side}": len(corpus.rows(held_out=held, task=task))
        for task in corpus.names
        for side, held in (("trained", False), ("held out", True))
    }
