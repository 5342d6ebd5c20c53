"""Hidden states of frozen lower layers, computed once for all texts and kept in half precision.

Small ones stay in memory, large ones in a file that the operating system pages in and out.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from stacknorm.encoder.member import lower_states
from stacknorm.encoder.precision import Precision
from stacknorm.encoder.tokens import cut_batches, pad
from stacknorm.errors import DataError

IN_MEMORY_BYTES = 1 << 30
"""Above this, states go to a file."""
_BYTES_A_VALUE = 2


@dataclass(frozen=True, slots=True)
class States:
    """The states of all tokens of all texts, end to end."""

    flat: Tensor  # bf16 [tokens of all texts, width]
    starts: list[int]
    lengths: list[int]

    def batch(self, texts: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
        """States padded to `width` tokens, [n, tokens, hidden] in fp32, and their mask [n, tokens]."""
        hidden = torch.zeros(len(texts), width, self.flat.shape[1])
        mask = torch.zeros(len(texts), width, dtype=torch.int64)
        for place, text in enumerate(texts):
            length = self.lengths[text]
            hidden[place, :length] = self.flat[self.starts[text] : self.starts[text] + length]
            mask[place, :length] = 1
        return hidden, mask


def allocate(tokens: int, width: int, file: Path, in_memory_bytes: int = IN_MEMORY_BYTES) -> Tensor:
    """Room for states, bf16 [tokens, width]: in memory, or in `file` where they take more than `in_memory_bytes`.

    Raises:
        DataError: the disk has not that much room.
    """
    needed = tokens * width * _BYTES_A_VALUE
    if needed <= in_memory_bytes:
        return torch.empty(tokens, width, dtype=torch.bfloat16)
    file.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(file.parent).free) < needed:
        raise DataError(f"{file.parent} has {free:,} bytes free; the states of the frozen layers need {needed:,}")
    return torch.from_file(str(file), shared=True, size=tokens * width, dtype=torch.bfloat16).view(tokens, width)


@torch.no_grad()
def compute_states(
    lower: PreTrainedModel,
    tokens: Sequence[Sequence[int]],
    flat: Tensor,
    *,
    pad_id: int,
    batch_tokens: int,
    advance: Callable[[int], None],
    precision: Precision,
) -> States:
    """Run the frozen layers over every text.

    Args:
        lower: embeddings and frozen layers, in eval mode, on the device to compute on.
        tokens: token ids of each text.
        flat: where the states go, as `allocate` gives it.
        pad_id: what pads a batch.
        batch_tokens: padded tokens in a batch.
        advance: told how many texts each batch held.
        precision: of the arithmetic.
    """
    lengths = [len(text) for text in tokens]
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    for texts, width in cut_batches(lengths, batch_tokens):
        batch = pad(texts, tokens, pad_id, width).to(lower.device)
        with torch.autocast(lower.device.type, torch.bfloat16, enabled=precision == "bf16"):
            hidden = lower_states(lower, batch.ids, batch.mask).to(flat)
        for place, text in enumerate(texts):
            flat[starts[text] : starts[text + 1]] = hidden[place, : lengths[text]]
        advance(len(texts))
    return States(flat, starts[:-1], lengths)
