"""What each kind of task asks of a head: its labels, its loss, and its answers in units that members share.

A unit is what one answer is about: a text of a `single` or `multi` task, a mention of an `entity` task, a word of a
`spans` task (members cut texts into tokens differently, so they are compared by words).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stacknorm.bundle import Pooling, TaskKind
from stacknorm.encoder.member import Mentions, gather_mentions
from stacknorm.encoder.tokens import Offsets, tokens_within
from stacknorm.spans.tags import head_tags
from stacknorm.spans.words import read_words, split_words
from stacknorm.training.corpus import Corpus, Example, Indices

IGNORED = -100
"""The label of a token that stands for no character."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one example asks for, in the tokens of one base."""

    labels: tuple[int, ...]
    """One of a `single` text, any number of a `multi` text, one for each mention, one for each token of `spans`."""
    mentions: tuple[tuple[int, ...], ...] = ()
    """Tokens of each mention."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of one task for one member: how much its classes weigh and how far targets are smoothed."""

    kind: TaskKind
    class_weights: Tensor  # [head labels]
    label_smoothing: float
    weight: float

    def loss(self, logits: Tensor, targets: Sequence[Target]) -> Tensor:
        """Loss summed over the examples of a batch that belong to the task.

        Args:
            logits: of those examples, as the member's head gives them: [n, labels], of an `entity` task [mentions,
                labels], of a `spans` task [n, tokens, labels].
            targets: one for each of the n examples.
        """
        if self.kind == "multi":
            return self.weight * self._multi_loss(logits, targets)
        if self.kind == "spans":
            return self.weight * self._token_loss(logits, targets)
        labels = torch.tensor([label for target in targets for label in target.labels], device=logits.device)
        return self.weight * functional.cross_entropy(
            logits, labels, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )

    def _multi_loss(self, logits: Tensor, targets: Sequence[Target]) -> Tensor:
        wanted = many_hot([target.labels for target in targets], logits.shape[1]).to(logits)
        smoothed = wanted * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        # A label's weight counts where it applies; that it does not apply says little.
        return (losses * (1 + wanted * (self.class_weights - 1))).sum()

    def _token_loss(self, logits: Tensor, targets: Sequence[Target]) -> Tensor:
        """The mean over the tokens of each text, so that a long text weighs as much as a short one."""
        labels = torch.full(logits.shape[:2], IGNORED)
        for place, target in enumerate(targets):
            labels[place, : len(target.labels)] = torch.tensor(target.labels)
        labels = labels.to(logits.device)
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            labels,
            self.class_weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
            ignore_index=IGNORED,
        )  # [n, tokens]
        return (losses.sum(dim=1) / (labels != IGNORED).sum(dim=1).clamp(min=1)).sum()


def head_labels(kind: TaskKind, labels: Sequence[str]) -> tuple[str, ...]:
    """Labels of a head for a task: those of the task; for `spans` tags, O and then B and I of each type."""
    return head_tags(labels) if kind == "spans" else tuple(labels)


def head_pooling(kind: TaskKind, chosen: Pooling) -> Pooling:
    """What a head reads: the kind of task decides, a member chooses only how to read whole texts."""
    if kind == "spans":
        return "tokens"
    return "entity" if kind == "entity" else chosen


def encode_target(example: Example, kind: TaskKind, offsets: Offsets) -> Target:
    """Put an example's labels on the tokens of one base."""
    if kind == "spans":
        return Target(tuple(_mark_places(example, offsets)))
    if kind == "entity":
        mentions = tuple(tokens_of(mark.start, mark.end, offsets) for mark in example.marks)
        return Target(tuple(mark.label for mark in example.marks), mentions)
    return Target(example.labels)


def tokens_of(start: int, end: int, offsets: Offsets) -> tuple[int, ...]:
    """Tokens that hold a character of [start, end); all tokens where it lies beyond what is read."""
    return tokens_within(offsets, start, end) or tuple(range(len(offsets)))


def _mark_places(example: Example, places: Offsets) -> list[int]:
    """The tag of each stretch of an example's text, by its position in the head's labels; `IGNORED` of an empty one."""
    tags = [0 if last > first else IGNORED for first, last in places]
    for mark in example.marks:
        inside = [at for at, (first, last) in enumerate(places) if first < mark.end and last > max(mark.start, first)]
        for at in inside:
            tags[at] = 1 + 2 * mark.label + (at != inside[0])
    return tags


def mentions_of(targets: Sequence[Target], width: int) -> Mentions | None:
    """The mentions of a batch of examples, in order; None where there are none."""
    return gather_mentions([(row, tokens) for row, target in enumerate(targets) for tokens in target.mentions], width)


def many_hot(labels: Sequence[Sequence[int]], classes: int) -> Tensor:
    """1 at each label of each row, [n, classes]."""
    marked = torch.zeros(len(labels), classes, dtype=torch.int64)
    for row, own in enumerate(labels):
        marked[row, list(own)] = 1
    return marked


def answer_units(kind: TaskKind, logits: Tensor, example: Example, offsets: Offsets) -> Tensor:
    """Probabilities of each unit of one example, [units, head labels].

    A word that no token holds, for the text was cut before it, is as likely to be any label.

    Args:
        kind: of the task.
        logits: of the example: [1, labels], [mentions, labels] or [1, tokens, labels].
        example: what was read.
        offsets: of its tokens.
    """
    if kind == "multi":
        return logits.sigmoid()
    if kind != "spans":
        return logits.softmax(dim=1)
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    tokens = logits[0, : len(places)].softmax(dim=1).double().numpy()
    words = read_words(example.text, split_words(example.text), places, tokens)
    return torch.from_numpy(np.nan_to_num(words, nan=1 / words.shape[1])).float()


def true_units(corpus: Corpus, kind: TaskKind, rows: Indices, classes: int) -> npt.NDArray[np.int64]:
    """Labels of the units of `rows` in order: [units], of a `multi` task [units, classes] of 0 and 1."""
    examples = [corpus.examples[row] for row in rows.tolist()]
    if kind == "spans":
        return np.concatenate([_word_labels(example) for example in examples])
    if kind == "multi":
        return many_hot([example.labels for example in examples], classes).numpy()
    return np.array([label for example in examples for label in example.classes], dtype=np.int64)


def _word_labels(example: Example) -> Indices:
    words = split_words(example.text)
    return np.array(_mark_places(example, [(first, last) for first, last in words.tolist()]), dtype=np.int64)


def count_units(kind: TaskKind, example: Example) -> int:
    """How many units an example has."""
    if kind == "spans":
        return len(split_words(example.text))
    return len(example.marks) if kind == "entity" else 1
