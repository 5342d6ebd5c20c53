"""The examples a stack is trained on, and the splits that keep copies of one text on one side."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stacknorm.bases.source import digest_file
from stacknorm.bundle import Source
from stacknorm.dataset import read_entities, read_labelled, read_multi, read_spans
from stacknorm.labels import LabelSpace
from stacknorm.text import clean_text, clean_with_origins, fingerprints, truncate_text
from stacknorm.training.recipe import DataRecipe, Recipe, TaskRecipe

Indices = npt.NDArray[np.int64]

_UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled stretch of an example's text: a span, or the words of an entity."""

    start: int
    end: int
    label: int


@dataclass(frozen=True, slots=True)
class Example:
    """A text and what one task says of it."""

    text: str
    """Cleaned; marks count its characters."""
    task: str
    labels: tuple[int, ...] = ()
    """One of a `single` task, any number of a `multi` task."""
    marks: tuple[Mark, ...] = ()
    """Of a `spans` or `entity` task."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Every label that occurs in it."""
        return self.labels or tuple(mark.label for mark in self.marks)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Examples of all tasks together; arrays are [examples]."""

    examples: list[Example]
    names: tuple[str, ...]
    """The tasks."""
    tasks: Indices
    """Position of each example's task in `names`."""
    strata: Indices
    """The rarest class of each example in its task: what splits keep in proportion."""
    prints: Indices
    texts: list[str]
    """Each different text once."""
    text_of: Indices
    """Position of each example's text in `texts`."""
    held_out: npt.NDArray[np.bool_]
    sources: tuple[Source, ...]

    def rows(self, *, held_out: bool, task: str | None = None) -> Indices:
        """Positions of the examples on one side of the split, of one task or of all."""
        chosen = self.held_out == held_out
        if task is not None:
            chosen = chosen & (self.tasks == self.names.index(task))
        return np.flatnonzero(chosen)

    def only(self, rows: Indices, tasks: Sequence[str]) -> Indices:
        """Those of `rows` that belong to one of `tasks`, in their order."""
        return rows[np.isin(self.tasks[rows], [self.names.index(task) for task in tasks])]


@dataclass(frozen=True, slots=True)
class Split:
    """Which examples a training run learns from, stops early by, and answers when it is done."""

    train: Indices
    stop: Indices
    judge: Indices


def load_corpus(recipe: Recipe, directory: Path) -> Corpus:
    """Read every file of the recipe from `directory`, clean the texts and split them.

    Raises:
        DataError: a file cannot be used.
    """
    spaces = recipe.spaces()
    examples: list[Example] = []
    sources = []
    for data in recipe.data:
        found = list(_read(data, recipe.tasks[data.task], spaces[data.task], directory / data.file, recipe.max_tokens))
        examples += found
        sources.append(
            Source(
                file=data.file,
                title=data.title,
                licence=data.licence,
                sha256=digest_file(directory / data.file),
                task=data.task,
                rows=len(found),
            )
        )
    return _assemble(recipe, examples, tuple(sources))


def _assemble(recipe: Recipe, examples: list[Example], sources: tuple[Source, ...]) -> Corpus:
    names = tuple(recipe.tasks)
    tasks = np.array([names.index(example.task) for example in examples])
    strata = rarest_classes(examples)
    places: dict[str, int] = {}
    text_of = np.array([places.setdefault(example.text, len(places)) for example in examples])
    prints = fingerprints(list(places))[text_of]
    held_out = hold_out(prints, tasks, strata, recipe.held_out, recipe.seed)
    return Corpus(examples, names, tasks, strata, prints, list(places), text_of, held_out, sources)


def _read(data: DataRecipe, task: TaskRecipe, space: LabelSpace, path: Path, max_tokens: int) -> Iterator[Example]:
    match task.kind:
        case "single":
            for row in read_labelled(path, space, data.labels):
                yield _example(row.text, data.task, max_tokens, labels=(row.label,))
        case "multi":
            for many in read_multi(path, space):
                yield _example(many.text, data.task, max_tokens, labels=many.labels)
        case "spans":
            for spanned in read_spans(path, space):
                marks = [(span.start, span.end, span.label_index) for span in spanned.spans]
                yield _example(spanned.text, data.task, max_tokens, marks=marks)
        case "entity":
            for named in read_entities(path, space):
                marks = [(mention.start, mention.end, mention.label_index) for mention in named.mentions]
                example = _example(named.text, data.task, max_tokens, marks=marks)
                if example.marks:
                    yield example


def _example(
    raw: str, task: str, max_tokens: int, labels: tuple[int, ...] = (), marks: Sequence[tuple[int, int, int]] = ()
) -> Example:
    """Clean a text and take its marks along; one of which nothing is left is dropped."""
    if not marks:
        return Example(truncate_text(clean_text(raw), max_tokens), task, labels)
    cleaned = clean_with_origins(raw)
    moved = ((cleaned.to_cleaned(start, end), label) for start, end, label in marks)
    kept = tuple(Mark(*place, label) for place, label in moved if place is not None)
    return Example(truncate_text(cleaned.text, max_tokens), task, labels, kept)


def rarest_classes(examples: Sequence[Example]) -> Indices:
    """The rarest class of each example among the examples of its task, -1 where it has none; [examples]."""
    counts = Counter((example.task, label) for example in examples for label in set(example.classes))
    rarest = (
        min(example.classes, key=lambda label: (counts[example.task, label], label), default=_UNLABELLED)
        for example in examples
    )
    return np.fromiter(rarest, dtype=np.int64, count=len(examples))


def hold_out(prints: Indices, tasks: Indices, strata: Indices, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose held-out examples: about `share` of the different texts of each class of each task.

    A text chosen once is held out wherever it appears, in any task, so no copy of it is trained on. The choice
    depends on the text and the seed alone, not on the order of examples.

    Args:
        prints: fingerprint of each example's text, [n].
        tasks: task of each, [n].
        strata: class of each, [n].
        share: between 0 and 1.
        seed: another seed gives another split.
    """
    chosen: set[int] = set()
    for task, label in np.unique(np.stack([tasks, strata], axis=1), axis=0):
        texts = np.unique(prints[(tasks == task) & (strata == label)]).tolist()
        texts.sort(key=lambda print_: _order(print_, seed))
        chosen.update(texts[: round(share * len(texts))])
    return np.isin(prints, np.fromiter(chosen, dtype=np.int64, count=len(chosen)))


def _order(print_: int, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{print_}".encode(), digest_size=8).digest()


def assign_folds(prints: Indices, tasks: Indices, strata: Indices, folds: int, seed: int) -> Indices:
    """Deal the different texts out to `folds` folds, each class of each task evenly; [n], from 0 on.

    A text lies in one fold wherever it appears. Which one depends on the texts and the seed, not on their order.

    Args:
        prints: fingerprint of each example's text, [n].
        tasks: task of each, [n].
        strata: class of each, [n].
        folds: at least 2.
        seed: another seed gives other folds.
    """
    first: dict[int, tuple[int, int]] = {}
    for print_, task, label in zip(prints.tolist(), tasks.tolist(), strata.tolist(), strict=True):
        first[print_] = min(first.get(print_, (task, label)), (task, label))
    dealt = sorted(first, key=lambda print_: (first[print_], _order(print_, seed)))
    fold_of = {print_: place % folds for place, print_ in enumerate(dealt)}
    return np.fromiter((fold_of[print_] for print_ in prints.tolist()), dtype=np.int64, count=len(prints))


def whole_split(corpus: Corpus) -> Split:
    """Learn from all but the held-out examples; stop by these, and answer these."""
    held_out = corpus.rows(held_out=True)
    return Split(corpus.rows(held_out=False), held_out, held_out)


def fold_split(corpus: Corpus, fold_of: Indices, fold: int) -> Split:
    """Answer the examples of one fold; learn from the others and stop by the held-out ones among these.

    No example that is answered has any part in training, in stopping either.
    """
    inside = fold_of == fold
    return Split(
        np.flatnonzero(~inside & ~corpus.held_out), np.flatnonzero(~inside & corpus.held_out), np.flatnonzero(inside)
    )


def class_weights(labels: Indices, classes: int, power: float) -> npt.NDArray[np.float32]:
    """Weight of each class, s^-power for share s, scaled so that the mean over rows is 1; [classes]."""
    shares = class_shares(labels, classes)
    weights = shares**-power
    return np.asarray(weights / (weights * shares).sum(), dtype=np.float32)


def class_shares(labels: Indices, classes: int) -> npt.NDArray[np.float64]:
    """Share of each class, that of one which does not occur as if it did once; [classes]."""
    return np.asarray(np.bincount(labels, minlength=classes).clip(min=1) / max(len(labels), 1))


def describe_rows(corpus: Corpus) -> Mapping[str, int]:
    """Counts for the manifest: `<task> trained` and `<task> held out`."""
    return {
        f"{task} {side}": len(corpus.rows(held_out=held, task=task))
        for task in corpus.names
        for side, held in (("trained", False), ("held out", True))
    }
