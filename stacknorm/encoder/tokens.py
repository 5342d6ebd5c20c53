"""Texts to padded token batches: one tokenizer, cut at a token limit, rows of like length together."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from stacknorm.bases.source import TOKENIZER_FILE
from stacknorm.bundle import WindowSpec
from stacknorm.encoder.device import Device
from stacknorm.errors import BundleError
from stacknorm.pooling.pool import Probabilities

Text = str | tuple[str, str]
"""One text, or a pair that is read together: what is said, and what it is asked about."""
Offsets = Sequence[tuple[int, int]]
"""First character of each token and one past its last; equal for a token that stands for no character."""

_SMALLEST_SHARE = 16
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that go through a stack together."""

    rows: tuple[int, ...]
    """Positions in the list of texts that the first rows came from; rows after those are empty."""
    ids: Tensor  # int64 [n, tokens]
    mask: Tensor  # int64 [n, tokens], 1 where a token is
    types: Tensor | None = None  # int64 [n, tokens], 1 at the second text of a pair; None where no row is a pair

    def to(self, device: torch.device | Device) -> "Batch":
        """The same on a device."""
        types = None if self.types is None else self.types.to(device)
        return Batch(self.rows, self.ids.to(device), self.mask.to(device), types)


@dataclass(frozen=True, slots=True)
class Row:
    """What an encoder reads at once: a text, a pair, or one window of a long text."""

    text: int
    """Position of its text in the list it came from."""
    ids: list[int]
    new_tokens: int
    """Tokens of the text, special ones left out, that no earlier window of it holds; 1 where there are none."""
    types: list[int] | None = None
    """Of a pair: 1 at its second text."""
    offsets: Offsets | None = None
    """Where asked for: characters of the text, or of the first of a pair, without the white space around words."""


def load_tokenizer(root: Path, max_tokens: int) -> Tokenizer:
    """Load a base's tokenizer, set to cut at `max_tokens` and not to pad.

    Raises:
        BundleError: its file cannot be read.
    """
    path = root / TOKENIZER_FILE
    try:
        # tokenizers raises bare Exception for a malformed file.
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:
        raise BundleError(f"{path} is not a tokenizer: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def tokenise(tokenizer: Tokenizer, texts: Sequence[Text]) -> list[list[int]]:
    """Token ids of each text, special tokens included; of a pair, the longer text is cut first."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def read_rows(
    tokenizer: Tokenizer, texts: Sequence[Text], *, windows: WindowSpec | None = None, offsets: Collection[int] = ()
) -> list[Row]:
    """The rows an encoder reads of texts, in their order.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        texts: a text gives one row, more where it has windows; a pair gives one row.
        windows: how a text beyond the tokenizer's limit is read; None: what lies beyond it is not.
        offsets: positions of the texts of which each token's characters are given too, which takes longer.

    Raises:
        BundleError: windows overlap so far that none would move on.
    """
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    return [
        row
        for place, (text, encoding) in enumerate(zip(texts, encode(list(texts)), strict=True))
        for row in _rows(place, text, encoding, windows, place in offsets)
    ]


def _rows(place: int, text: Text, encoding: Encoding, windows: WindowSpec | None, offsets: bool) -> Iterator[Row]:
    first = text if isinstance(text, str) else text[0]
    given = _characters(encoding, first) if offsets else None
    if not isinstance(text, str):
        yield Row(place, encoding.ids, 1, encoding.type_ids, given)
    elif windows is None or not encoding.overflowing:
        yield Row(place, encoding.ids, 1, None, given)
    else:
        yield from _windows(place, first, encoding, windows, offsets)


def _windows(place: int, text: str, encoding: Encoding, windows: WindowSpec, offsets: bool) -> Iterator[Row]:
    """The tokenizer cuts a long text end to end; its parts are joined again and cut with an overlap."""
    pieces = [encoding, *encoding.overflowing]
    ids = [number for piece in pieces for number in _inside(piece, piece.ids)]
    places = [span for piece in pieces for span in _inside(piece, _characters(piece, text))] if offsets else []
    before, after = _special(encoding)
    size = len(encoding.ids) - len(before) - len(after)
    for number, cut in enumerate(cut_windows(len(ids), size, windows)):
        new_tokens = cut.stop - cut.start - (windows.overlap_tokens if number else 0)
        spans = [*[(0, 0)] * len(before), *places[cut], *[(0, 0)] * len(after)] if offsets else None
        yield Row(place, [*before, *ids[cut], *after], new_tokens, None, spans)


def cut_windows(tokens: int, size: int, windows: WindowSpec) -> list[slice]:
    """Windows of at most `size` over a run of tokens, each beginning before the last one's end by the overlap.

    Raises:
        BundleError: the overlap leaves a window nothing of its own.
    """
    step = size - windows.overlap_tokens
    if step < 1:
        raise BundleError(f"windows of {size} tokens cannot overlap by {windows.overlap_tokens}")
    starts = range(0, max(tokens - windows.overlap_tokens, 1), step)[: windows.max_windows]
    return [slice(start, min(start + size, tokens)) for start in starts]


def _special(encoding: Encoding) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and after a text."""
    before = sum(takewhile(bool, encoding.special_tokens_mask))
    after = sum(takewhile(bool, reversed(encoding.special_tokens_mask[before:])))
    return encoding.ids[:before], encoding.ids[len(encoding.ids) - after :]


def _inside(encoding: Encoding, values: Sequence[_Value]) -> Sequence[_Value]:
    before, after = _special(encoding)
    return values[len(before) : len(values) - len(after)]


def _characters(encoding: Encoding, text: str) -> list[tuple[int, int]]:
    """Characters of each token in `text`; tokens of another text stand for none of it."""
    return [
        _trim(text, span) if sequence == 0 else (0, 0)
        for span, sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]


def _trim(text: str, span: tuple[int, int]) -> tuple[int, int]:
    # Tokenizers that mark the beginnings of words count the space before a word as part of it.
    piece = text[slice(*span)]
    start = span[0] + len(piece) - len(piece.lstrip())
    return start, max(start, span[1] - len(piece) + len(piece.rstrip()))


def tokens_within(offsets: Offsets, start: int, end: int) -> tuple[int, ...]:
    """Places of the tokens that stand for any of the characters `start` to `end`; none if they were cut off."""
    return tuple(place for place, (first, last) in enumerate(offsets) if first < end and last > start)


def pool_windows(shares: Probabilities, rows: Sequence[Row]) -> Probabilities:
    """Average the probabilities of each text's windows, weighted by the tokens new in each.

    Args:
        shares: of each row, [rows, labels].
        rows: as `read_rows` gave them, all of them.

    Returns:
        [texts, labels]; what the row of a text with one window had, unchanged.
    """
    owners = np.array([row.text for row in rows])
    counts = np.array([float(row.new_tokens) for row in rows])
    weights = counts / np.bincount(owners, counts)[owners]
    pooled: Probabilities = np.zeros((owners[-1] + 1, *shares.shape[1:]))
    np.add.at(pooled, owners, shares * weights[:, None])
    return pooled


def cut_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Cut rows into batches of like length that all hold exactly `batch_tokens` padded tokens, but for the last.

    Widths are divisors of `batch_tokens`. A processor's bf16 kernels are compiled for each shape, which takes
    longer than running them: one number of tokens means one set of kernels.

    Args:
        lengths: tokens of each row, each at most `batch_tokens`.
        batch_tokens: best a number with many divisors, such as 960.

    Yields:
        Positions in `lengths`, and the width to pad them to; longest rows first, equals in their given order.
    """
    widths = [width for width in range(1, batch_tokens + 1) if batch_tokens % width == 0]
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        width = next(width for width in widths if width >= lengths[order[start]])
        stop = start + batch_tokens // width
        yield tuple(order[start:stop]), width
        start = stop


def round_rows(rows: int, width: int, batch_tokens: int) -> int:
    """Rows to fill a small batch up to: its tokens are then about a half to a sixteenth of `batch_tokens`."""
    size = batch_tokens
    while size // 2 >= max(rows * width, batch_tokens // _SMALLEST_SHARE):
        size //= 2
    return max(rows, size // width)


def pad(
    rows: Sequence[int],
    tokens: Sequence[Sequence[int]],
    pad_id: int,
    width: int,
    height: int = 0,
    *,
    types: Sequence[Sequence[int] | None] | None = None,
) -> Batch:
    """Pad the given rows of `tokens` on the right to `width`, and add empty rows up to `height`.

    Args:
        rows: positions in `tokens`.
        tokens: ids of every row.
        pad_id: the base's padding token.
        width: tokens, at least as many as the longest of `rows` has.
        height: rows of the batch, where more than given.
        types: of every row, None for a row that is no pair.
    """
    ids = torch.full((max(len(rows), height), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    # An empty row attends to its first token, for attention to nothing is not a number.
    mask[:, 0] = 1
    for place, row in enumerate(rows):
        ids[place, : len(tokens[row])] = torch.tensor(tokens[row])
        mask[place, : len(tokens[row])] = 1
    return Batch(tuple(rows), ids, mask, _pad_types([types[row] for row in rows], ids) if types else None)


def _pad_types(types: Sequence[Sequence[int] | None], ids: Tensor) -> Tensor | None:
    if not any(types):
        return None
    padded = torch.zeros_like(ids)
    for place, row in enumerate(types):
        padded[place, : len(row or ())] = torch.tensor(row or (), dtype=torch.int64)
    return padded
