"""Members in parallel over the same text: tokenised once for each tokenizer, shared lower layers run once.

What members share is found, not declared: bases with the same digests are one base, and the layers below the
lowest one that any adapter changes (read from the adapters' tensors) are run once for all members on it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bundle import Bundle, MemberSpec, verify_bases
from stacknorm.encoder.member import Member, first_own_layer, load_member, lower_states
from stacknorm.encoder.tokens import Batch, load_tokenizer
from stacknorm.encoder.trunk import encoder_of, load_classifier, load_encoder, take_lower
from stacknorm.errors import BundleError
from stacknorm.source import TOKENIZER_FILE

_COUNT_FROM_PADDING = {"roberta", "mpnet"}  # their positions start after the padding token's own number

Logits = dict[str, dict[str, Tensor]]
"""Member -> task -> [n, head labels]."""


class Group(nn.Module):
    """Members on one base: `lower` runs once, each member goes on from it. Weights are not changed after loading."""

    def __init__(self, lower: PreTrainedModel, members: Mapping[str, Member]) -> None:
        super().__init__()
        self.lower = lower
        self.members = nn.ModuleDict(members)

    def forward(self, ids: Tensor, mask: Tensor) -> Logits:
        """Logits of every member for token ids and mask, both [n, tokens]."""
        hidden = lower_states(self.lower, ids, mask)
        return {name: member(hidden, mask) for name, member in self.members.items()}


@dataclass(frozen=True, slots=True)
class Reader:
    """One tokenizer and the groups that read its tokens."""

    tokenizer: Tokenizer
    pad_id: int
    groups: tuple[Group, ...]

    def __call__(self, batch: Batch) -> Logits:
        """Logits of all members that read with this tokenizer; on the device of the batch."""
        return {name: tasks for group in self.groups for name, tasks in group(batch.ids, batch.mask).items()}


def load_stack(bundle: Bundle) -> tuple[Reader, ...]:
    """Load every member of a bundle in fp32 on the processor, bases verified first.

    Raises:
        BundleError: a base or a member's file is missing, altered or unfit.
    """
    verify_bases(bundle)
    readers: dict[tuple[str, int], list[tuple[Group, MemberSpec]]] = defaultdict(list)
    for specs in _by_base(bundle.manifest.members):
        group = _load_group(bundle, specs)
        pad_id = group.lower.config.pad_token_id
        if pad_id is None:
            raise BundleError(f"the base of member {specs[0].name} names no padding token")
        readers[specs[0].base.files[TOKENIZER_FILE], pad_id].append((group, specs[0]))
    return tuple(
        Reader(
            load_tokenizer(bundle.base_directory(parts[0][1]), _token_limit(bundle, [group for group, _ in parts])),
            pad_id,
            tuple(group for group, _ in parts),
        )
        for (_, pad_id), parts in readers.items()
    )


def _by_base(members: Sequence[MemberSpec]) -> list[list[MemberSpec]]:
    """Members that can share layers: same base files, and the same kind of head."""
    groups: Mapping[tuple[object, ...], list[MemberSpec]] = defaultdict(list)
    for spec in members:
        groups[_is_native(spec), *sorted(spec.base.files.items())].append(spec)
    return list(groups.values())


def _is_native(spec: MemberSpec) -> bool:
    return any(head.pooling == "native" for head in spec.heads.values())


def _load_group(bundle: Bundle, specs: Sequence[MemberSpec]) -> Group:
    load = load_classifier if _is_native(specs[0]) else load_encoder
    model = load(bundle.base_directory(specs[0]))
    folders = [bundle.root / spec.name for spec in specs]
    shared = min(first_own_layer(spec, folder, model) for spec, folder in zip(specs, folders, strict=True))
    members = {s.name: load_member(s, folder, model, shared) for s, folder in zip(specs, folders, strict=True)}
    return Group(take_lower(model, shared), members)


def _token_limit(bundle: Bundle, groups: Sequence[Group]) -> int:
    """The manifest's limit, if every base has positions for it."""
    for group in groups:
        config = encoder_of(group.lower).config
        skipped = config.pad_token_id + 1 if config.model_type in _COUNT_FROM_PADDING else 0
        positions = config.max_position_embeddings - skipped
        if bundle.manifest.max_tokens > positions:
            raise BundleError(f"max_tokens {bundle.manifest.max_tokens} exceeds the {positions} positions of a base")
    return bundle.manifest.max_tokens


def to_device(readers: Sequence[Reader], device: torch.device, dtype: torch.dtype) -> None:
    """Move a stack in place; encoders take `dtype`, heads stay in fp32."""
    for module in (module for reader in readers for group in reader.groups for module in _encoders(group)):
        nn.Module.to(module, dtype=dtype)
    for reader in readers:
        for group in reader.groups:
            group.to(device)


def _encoders(group: Group) -> list[nn.Module]:
    return [group.lower, *(member.get_submodule("upper") for member in group.members.values())]
