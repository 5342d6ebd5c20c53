"""Hidden states of frozen lower layers, computed once for all rows and kept in half precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from stacknorm.encoder.member import lower_states
from stacknorm.encoder.precision import Precision
from stacknorm.encoder.tokens import cut_batches, pad


@dataclass(frozen=True, slots=True)
class States:
    """The states of all tokens of all rows, end to end."""

    flat: Tensor  # bf16 [tokens of all rows, width]
    starts: list[int]
    lengths: list[int]

    def batch(self, rows: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
        """States padded to `width` tokens, [n, tokens, hidden] in fp32, and their mask [n, tokens]."""
        hidden = torch.zeros(len(rows), width, self.flat.shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for place, row in enumerate(rows):
            length = self.lengths[row]
            hidden[place, :length] = self.flat[self.starts[row] : self.starts[row] + length]
            mask[place, :length] = 1
        return hidden, mask


@torch.inference_mode()
def compute_states(
    lower: PreTrainedModel,
    tokens: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_tokens: int,
    advance: Callable[[int], None],
    precision: Precision,
) -> States:
    """Run the frozen layers over every row.

    Args:
        lower: embeddings and frozen layers, in eval mode.
        tokens: token ids of each row.
        pad_id: what pads a batch.
        batch_tokens: padded tokens in a batch.
        advance: told how many rows each batch held.
        precision: of the arithmetic.
    """
    lengths = [len(row) for row in tokens]
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    flat = torch.empty(starts[-1], lower.config.hidden_size, dtype=torch.bfloat16)
    for rows, width in cut_batches(lengths, batch_tokens):
        batch = pad(rows, tokens, pad_id, width)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden = lower_states(lower, batch.ids, batch.mask)
        for place, row in enumerate(rows):
            flat[starts[row] : starts[row + 1]] = hidden[place, : lengths[row]]
        advance(len(rows))
    return States(flat.clone(), starts[:-1], lengths)
