"""One member of a stack: an encoder above the layers it shares, and its heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bundle import HEADS_FILE, MemberSpec, Pooling
from stacknorm.encoder.adapter import ADAPTER_WEIGHTS_FILE, lowest_adapted_layer, merge_adapter
from stacknorm.encoder.device import Device
from stacknorm.encoder.trunk import depth_of, load_tensors, share, take_upper, takes_types
from stacknorm.errors import BundleError

FEATURES = "@features"
"""Beside the tasks of a member: the mean of its last states, [n, width], where a channel joins it to others."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """Entities in a batch of texts."""

    rows: Tensor  # int64 [mentions], the text each stands in
    mask: Tensor  # int64 [mentions, tokens], 1 at the tokens of its words

    def to(self, device: torch.device | Device) -> "Mentions":
        """The same on a device."""
        return Mentions(self.rows.to(device), self.mask.to(device))


def gather_mentions(places: Sequence[tuple[int, Sequence[int]]], width: int) -> Mentions | None:
    """Mentions from the row of a batch that each stands in and its tokens there, at least one; None of none."""
    if not places:
        return None
    mask = torch.zeros(len(places), width, dtype=torch.int64)
    for mention, (_, tokens) in enumerate(places):
        mask[mention, list(tokens)] = 1
    return Mentions(torch.tensor([row for row, _ in places]), mask)


def read_states(hidden: Tensor, mask: Tensor, pooling: Pooling, mentions: Mentions | None = None) -> Tensor:
    """What a head reads of token states [n, tokens, width], in fp32.

    Returns:
        `mean` and `cls`: one vector a text, [n, width]; `tokens`: the states as they are, [n, tokens, width];
        `entity`: the mean over a mention's tokens beside the mean over its text, [mentions, 2 width].
    """
    states = hidden.float()
    if pooling == "cls":
        return states[:, 0]
    if pooling == "tokens":
        return states
    whole = _mean(states, mask)
    if pooling == "mean":
        return whole
    assert mentions is not None
    return torch.cat([_mean(states[mentions.rows], mentions.mask), whole[mentions.rows]], dim=1)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].float()
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def head_width(pooling: Pooling, width: int) -> int:
    """Inputs of a head on an encoder of hidden size `width`."""
    return 2 * width if pooling == "entity" else width


class Member(nn.Module):
    """The upper layers and heads of one member; `forward` takes what the shared lower layers gave."""

    def __init__(self, upper: PreTrainedModel, heads: nn.ModuleDict, poolings: Mapping[str, Pooling]) -> None:
        super().__init__()
        self.upper = upper
        self.heads = heads
        self.poolings = poolings
        self.gives_features = False

    def states(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The last states of a member with heads of its own, [n, tokens, width], from those of the shared layers."""
        states: Tensor = self.upper(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        return states

    def forward(self, hidden: Tensor, mask: Tensor, mentions: Mentions | None = None) -> dict[str, Tensor]:
        """Task -> logits in fp32, from hidden states [n, tokens, width] and mask [n, tokens].

        Logits are [n, head labels]; [n, tokens, head labels] of a `tokens` head and of a checkpoint's own that labels
        tokens; [mentions, head labels] of an `entity` head, which is left out where no mentions are given.
        """
        if not self.heads:
            (task,) = self.poolings
            output = self.upper(inputs_embeds=hidden, attention_mask=mask, output_hidden_states=self.gives_features)
            states = output.hidden_states[-1] if output.hidden_states else hidden  # empty where no layer is its own
            return {task: output.logits.float()} | self._features(states, mask)
        states = self.states(hidden, mask)
        logits = {
            task: self.heads[task](read_states(states, mask, pooling, mentions))
            for task, pooling in self.poolings.items()
            if pooling != "entity" or mentions is not None
        }
        return logits | self._features(states, mask)

    def _features(self, states: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {FEATURES: read_states(states, mask, "mean")} if self.gives_features else {}


def first_own_layer(spec: MemberSpec, folder: Path, model: PreTrainedModel) -> int:
    """The layer at which a member starts to differ from its base; all layers are the base's own below it."""
    if ADAPTER_WEIGHTS_FILE not in spec.files:
        return depth_of(model)
    return lowest_adapted_layer(folder, model)


def load_member(spec: MemberSpec, folder: Path, model: PreTrainedModel, shared: int) -> Member:
    """Build a member on a loaded base.

    Args:
        spec: its part of the manifest.
        folder: its folder in the bundle.
        model: its base; left as it is.
        shared: number of lower layers that are run elsewhere.

    Raises:
        BundleError: adapter or heads do not fit.
    """
    whole = share(model)
    if ADAPTER_WEIGHTS_FILE in spec.files:
        merge_adapter(whole, folder)
    upper = take_upper(whole, shared)
    poolings = {task: head.pooling for task, head in spec.heads.items()}
    return Member(upper, _load_heads(spec, folder, model), poolings).eval()


def _load_heads(spec: MemberSpec, folder: Path, model: PreTrainedModel) -> nn.ModuleDict:
    if HEADS_FILE not in spec.files:
        (head,) = spec.heads.values()
        if model.config.num_labels != len(head.labels):
            raise BundleError(
                f"member {spec.name} names {len(head.labels)} labels, its checkpoint has {model.config.num_labels}"
            )
        return nn.ModuleDict()
    heads = nn.ModuleDict(
        {
            task: nn.Linear(head_width(head.pooling, model.config.hidden_size), len(head.labels))
            for task, head in spec.heads.items()
        }
    )
    tensors = {name: tensor.float() for name, tensor in load_tensors(folder / HEADS_FILE).items()}
    try:
        heads.load_state_dict(tensors)
    except RuntimeError as exc:
        raise BundleError(f"{folder / HEADS_FILE} does not fit the heads of member {spec.name}: {exc}") from exc
    return heads.requires_grad_(requires_grad=False)


def lower_states(lower: PreTrainedModel, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
    """Run embeddings and shared layers: [n, tokens] -> [n, tokens, width].

    Args:
        lower: as `take_lower` gives it.
        ids: token ids, [n, tokens].
        mask: 1 where a token is, [n, tokens].
        types: 1 at the second text of a pair, [n, tokens]; left out where the encoder knows no types.
    """
    known = {"token_type_ids": types} if types is not None and takes_types(lower.config) else {}
    hidden: Tensor = lower(input_ids=ids, attention_mask=mask, **known).last_hidden_state
    return hidden
