"""Texts to padded token batches: one tokenizer, cut at a token limit, rows of like length together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stacknorm.errors import BundleError
from stacknorm.source import TOKENIZER_FILE

_SMALLEST_SHARE = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that go through a stack together."""

    rows: tuple[int, ...]
    """Positions in the list of texts that the first rows came from; rows after those are empty."""
    ids: Tensor  # int64 [n, tokens]
    mask: Tensor  # int64 [n, tokens], 1 where a token is


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


def tokenise(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special tokens included."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


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


def pad(rows: Sequence[int], tokens: Sequence[Sequence[int]], pad_id: int, width: int, height: int = 0) -> Batch:
    """Pad the given rows of `tokens` on the right to `width`, and add empty rows up to `height`."""
    ids = torch.full((max(len(rows), height), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    # An empty row attends to its first token, for attention to nothing is not a number.
    mask[:, 0] = 1
    for place, row in enumerate(rows):
        ids[place, : len(tokens[row])] = torch.tensor(tokens[row])
        mask[place, : len(tokens[row])] = 1
    return Batch(tuple(rows), ids, mask)
