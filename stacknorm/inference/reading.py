"""How the members behind one tokenizer read passages: batches of like length, halved where memory runs out.

What a member says of tokens becomes what it says of texts (windows averaged), of mentions, and of words.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stacknorm.bundle import TaskKind, WindowSpec
from stacknorm.encoder.device import Device
from stacknorm.encoder.member import FEATURES, Mentions, gather_mentions
from stacknorm.encoder.precision import Precision
from stacknorm.encoder.tokens import Batch, Row, cut_batches, pad, pool_windows, read_rows, round_rows, tokens_within
from stacknorm.errors import PredictionError
from stacknorm.inference.passages import Owners, Passages, first_of
from stacknorm.inference.readings import Readings
from stacknorm.inference.stack import Outcome, Reader, Waiting
from stacknorm.pooling.pool import Probabilities
from stacknorm.spans.words import read_words

_BATCH_TOKENS: Mapping[Device, int] = {"cpu": 960, "cuda": 30_720}
"""Padded tokens in a batch. Small batches stay in a processor's cache; a GPU wants work."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How an engine reads; the same for all its calls."""

    device: Device
    precision: Precision
    max_tokens: int
    windows: WindowSpec | None
    kinds: Mapping[str, TaskKind]
    """Task -> its kind."""
    tags: Mapping[str, Mapping[str, Probabilities]]
    """`spans` task -> member -> [tags of its head, tags of the task]: words are gathered from tags of one meaning."""
    wait: Waiting

    @property
    def most_tokens(self) -> int:
        """Of a text that can be read, in all its windows."""
        return self.max_tokens * (self.windows.max_windows if self.windows else 1)


def read_passages(
    reader: Reader,
    names: Collection[str],
    passages: Passages,
    texts: Owners,
    *,
    setting: Setting,
    readings: Readings,
) -> None:
    """Ask those members in `names` that read with this reader's tokenizer about some of the texts.

    Args:
        reader: a tokenizer and its members.
        names: of members.
        passages: all texts.
        texts: positions of those to read.
        setting: of the engine.
        readings: is given what they say.
    """
    asked = reader.names.intersection(names)
    if not asked or not len(texts):
        return
    readings.ask(asked, texts)
    rows = read_rows(
        reader.tokenizer,
        [passages.texts[text] for text in texts],
        windows=setting.windows,
        offsets=range(len(texts)) if passages.words else _naming(passages, texts),
    )
    work = _Work(rows, passages, texts, setting)
    budget = max(_BATCH_TOKENS[setting.device], setting.max_tokens)
    for places, width in cut_batches([len(row.ids) for row in rows], budget):
        # Only a processor's bf16 kernels are compiled for each shape; elsewhere empty rows are work for nothing.
        compiled = setting.device == "cpu" and setting.precision == "bf16"
        height = round_rows(len(places), width, budget) if compiled else 0
        for read, outcome in _read_batch(reader, asked, work, setting, _Shape(places, width, height)):
            readings.fail(outcome.failed | work.keep(read, outcome.logits), work.texts_of(read))
    work.hand_over(readings)


def _naming(passages: Passages, texts: Owners) -> frozenset[int]:
    """Positions in `texts` of those that hold mentions."""
    naming = {mention.text for mention in passages.mentions}
    return frozenset(place for place, text in enumerate(texts.tolist()) if text in naming)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A batch to be made: rows, the width to pad them to, and the number of rows to fill it up to."""

    places: tuple[int, ...]
    width: int
    height: int

    def halves(self) -> Iterator["_Shape"]:
        half = len(self.places) // 2
        for part in (self.places[:half], self.places[half:]):
            yield _Shape(part, self.width, 0)


def _read_batch(
    reader: Reader, names: Collection[str], work: "_Work", setting: Setting, shape: _Shape
) -> Iterator[tuple[Sequence[int], Outcome]]:
    try:
        batch, mentions = work.batch(shape, reader.pad_id, setting.device)
        outcome = reader.read(batch, mentions, names, setting.wait)
    except torch.OutOfMemoryError as exc:
        if len(shape.places) < 2:
            raise PredictionError(f"one text of {shape.width} tokens does not fit into memory") from exc
    except torch.AcceleratorError as exc:
        raise PredictionError(f"the GPU failed, and serves this process no more: {exc}") from exc
    else:
        yield shape.places, outcome
        return
    # Not while the error is handled: it holds what the batch took.
    for half in shape.halves():
        yield from _read_batch(reader, names, work, setting, half)


class _Work:
    """What the members behind one reader said of its rows, until it is whole; owned by one `read_passages`."""

    def __init__(self, rows: Sequence[Row], passages: Passages, texts: Owners, setting: Setting) -> None:
        self._rows = rows
        self._ids = [row.ids for row in rows]
        self._types = [row.types for row in rows]
        self._passages = passages
        self._texts = texts
        self._kinds = setting.kinds
        self._tags = setting.tags
        self._owners = np.array([row.text for row in rows])
        self._first_words = passages.first_words
        self._mentions = _place_mentions(rows, passages, texts)
        self._said: dict[tuple[str, str], Probabilities] = {}

    def texts_of(self, places: Sequence[int]) -> Owners:
        """Positions among all texts of those that rows belong to."""
        return np.asarray(self._texts[self._owners[list(places)]])

    def batch(self, shape: _Shape, pad_id: int, device: Device) -> tuple[Batch, Mentions | None]:
        """The token ids of some rows and the mentions in them, on a device."""
        batch = pad(shape.places, self._ids, pad_id, shape.width, shape.height, types=self._types)
        mentions = gather_mentions(
            [(at, tokens) for at, place in enumerate(shape.places) for _, tokens in self._mentions.get(place, ())],
            shape.width,
        )
        return batch.to(device), mentions and mentions.to(device)

    def keep(self, places: Sequence[int], logits: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
        """Keep what members said of rows; returns those whose values are no numbers, with what was wrong."""
        wrong = {}
        for member, tasks in logits.items():
            for task, values in tasks.items():
                kind = self._kinds.get(task, "single")
                said = _shares(values, task, kind)
                said = said if kind == "entity" else said[: len(places)]
                if np.isfinite(said).all():
                    self._put(member, task, kind, places, said)
                else:
                    wrong[member] = f"gave {task} values that are not finite"
        return wrong

    def _put(self, member: str, task: str, kind: TaskKind, places: Sequence[int], said: Probabilities) -> None:
        if kind == "entity":
            numbers = [number for place in places for number, _ in self._mentions.get(place, ())]
            self._whole(member, task, len(self._passages.mentions), said)[numbers] = said
        elif kind == "spans":
            said = said @ self._tags[task][member]
            whole = self._whole(member, task, int(self._first_words[-1]), said)
            for place, tags in zip(places, said, strict=True):
                self._put_words(whole, place, tags)
        else:
            self._whole(member, task, len(self._rows), said)[list(places)] = said

    def _whole(self, member: str, task: str, rows: int, said: Probabilities) -> Probabilities:
        if (task, member) not in self._said:
            self._said[task, member] = np.full((rows, said.shape[-1]), np.nan)
        return self._said[task, member]

    def _put_words(self, whole: Probabilities, place: int, tokens: Probabilities) -> None:
        """A row's tokens [tokens, tags] as words; a word in two windows gets the mean of both."""
        text = int(self._texts[self._rows[place].text])
        words, given = self._passages.words[text], self._passages.texts[text]
        offsets = np.array(self._rows[place].offsets or (), dtype=np.int64).reshape(-1, 2)
        tags = read_words(first_of(given), words, offsets, tokens[: len(offsets)])
        start = int(self._first_words[text])
        before = whole[start : start + len(words)]
        before[:] = np.where(np.isnan(before), tags, np.where(np.isnan(tags), before, (before + tags) / 2))

    def hand_over(self, readings: Readings) -> None:
        """Give everything kept to the readings of the call."""
        for (task, member), said in self._said.items():
            if self._kinds.get(task, "single") in {"entity", "spans"}:
                known = np.flatnonzero(~np.isnan(said).any(axis=1))
                readings.record(task, member, known, said[known], of=len(said))
            else:
                readings.record(task, member, self._texts, pool_windows(said, self._rows), of=readings.texts)


_Placed = list[tuple[int, tuple[int, ...]]]
"""Mentions, and the tokens of each."""


def _place_mentions(rows: Sequence[Row], passages: Passages, texts: Owners) -> Mapping[int, _Placed]:
    """Row -> the mentions read in it: each in the window that holds most of it, none where it is cut off."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        rows_of[int(texts[row.text])].append(place)
    found: dict[int, _Placed] = defaultdict(list)
    for number, mention in enumerate(passages.mentions):
        held = [
            (place, tokens_within(rows[place].offsets or (), mention.start, mention.end))
            for place in rows_of[mention.text]
        ]
        place, tokens = max(held, key=lambda one: len(one[1]), default=(0, ()))
        if tokens:
            found[place].append((number, tokens))
    return found


def _shares(values: Tensor, task: str, kind: TaskKind) -> Probabilities:
    """Probabilities over the last axis; of a `multi` task each by itself; features stay what they are."""
    if task != FEATURES:
        values = values.sigmoid() if kind == "multi" else values.softmax(dim=-1)
    return np.asarray(values.double().cpu().numpy())
