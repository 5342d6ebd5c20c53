"""Members in parallel over the same text: tokenised once for each tokenizer, shared lower layers run once.

What members share is found, not declared: bases with the same digests are one base, and the layers below the
lowest one that any adapter changes (read from the adapters' tensors) are run once for all members on it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bases.source import TOKENIZER_FILE
from stacknorm.bundle import Bundle, MemberSpec, verify_bases
from stacknorm.encoder.member import Member, Mentions, first_own_layer, load_member, lower_states
from stacknorm.encoder.tokens import Batch, load_tokenizer
from stacknorm.encoder.trunk import load_classifier, load_encoder, take_lower, token_limit
from stacknorm.errors import BundleError

MEMBER_ERRORS = (ArithmeticError, LookupError, RuntimeError, TimeoutError, TypeError, ValueError)
"""What a model raises for an input it cannot bear; anything else is a bug of ours and stops the engine."""

DEVICE_ERRORS = (torch.OutOfMemoryError, torch.AcceleratorError)
"""What no member is to blame for."""

Result = TypeVar("Result")


class Waiting(Protocol):
    """How the call of a member is waited for: `Deadline`, or `wait_forever`."""

    def __call__(self, name: str, call: Callable[[], Result]) -> Result:
        """The result of the call."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What members made of a batch."""

    logits: dict[str, dict[str, Tensor]]
    """Member -> task -> as `Member.forward` gives them."""
    failed: dict[str, str]
    """Member -> why it gave nothing."""


class Group(nn.Module):
    """Members on one base: `lower` runs once, each member goes on from it. Weights are not changed after loading."""

    def __init__(self, lower: PreTrainedModel, members: Mapping[str, Member]) -> None:
        super().__init__()
        self.lower = lower
        self.members = nn.ModuleDict(members)

    @property
    def names(self) -> frozenset[str]:
        """Of the members."""
        return frozenset(self.members)

    def read(self, batch: Batch, mentions: Mentions | None, names: Collection[str], wait: Waiting) -> Outcome:
        """Logits of the members in `names` for a batch and the mentions in it; one that fails is left out, and why.

        Raises:
            torch.OutOfMemoryError: the batch is too large.
            torch.AcceleratorError: the GPU failed.
        """
        wanted = [name for name in self.members if name in names]
        outcome = Outcome({}, {})
        try:
            hidden = wait("+".join(self.members), partial(_infer, self._lower, batch))
        except MEMBER_ERRORS as error:
            return Outcome({}, dict.fromkeys(wanted, _reason(error)))
        for name in wanted:
            try:
                outcome.logits[name] = wait(name, partial(_infer, self.members[name], hidden, batch.mask, mentions))
            except MEMBER_ERRORS as error:
                outcome.failed[name] = _reason(error)
        return outcome

    def _lower(self, batch: Batch) -> Tensor:
        return lower_states(self.lower, batch.ids, batch.mask, batch.types)


def _reason(error: Exception) -> str:
    if isinstance(error, DEVICE_ERRORS):
        raise error
    return f"{type(error).__name__}: {error}"


@torch.inference_mode()
def _infer(call: Callable[..., Result], *given: object) -> Result:
    # The mode belongs to a thread, and a deadline has threads of its own.
    return call(*given)


@dataclass(frozen=True, slots=True)
class Reader:
    """One tokenizer and the groups that read its tokens."""

    tokenizer: Tokenizer
    pad_id: int
    groups: tuple[Group, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of all members that read with this tokenizer."""
        return frozenset().union(*(group.names for group in self.groups))

    def read(self, batch: Batch, mentions: Mentions | None, names: Collection[str], wait: Waiting) -> Outcome:
        """Logits of those members in `names` that read with this tokenizer; on the device of the batch."""
        outcome = Outcome({}, {})
        for group in self.groups:
            if group.names.intersection(names):
                found = group.read(batch, mentions, names, wait)
                outcome.logits.update(found.logits)
                outcome.failed.update(found.failed)
        return outcome


def load_stack(bundle: Bundle, *, features: bool = False) -> tuple[Reader, ...]:
    """Load every member of a bundle in fp32 on the processor, bases verified first.

    Args:
        bundle: the bundle.
        features: whether all members give what they read; those that a channel joins always do.

    Raises:
        BundleError: a base or a member's file is missing, altered or unfit.
    """
    verify_bases(bundle)
    readers: dict[tuple[str, int], list[tuple[Group, MemberSpec]]] = defaultdict(list)
    for specs in _by_base(bundle.manifest.members):
        group = _load_group(bundle, specs, features)
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
        groups[_native_task(spec), *sorted(spec.base.files.items())].append(spec)
    return list(groups.values())


def _native_task(spec: MemberSpec) -> str | None:
    """The task of a checkpoint's own head, where the member is one."""
    return next((task for task, head in spec.heads.items() if head.pooling == "native"), None)


def _load_group(bundle: Bundle, specs: Sequence[MemberSpec], features: bool) -> Group:
    root, task = bundle.base_directory(specs[0]), _native_task(specs[0])
    model = load_encoder(root) if task is None else load_classifier(root, bundle.manifest.tasks[task].kind)
    folders = [bundle.root / spec.name for spec in specs]
    shared = min(first_own_layer(spec, folder, model) for spec, folder in zip(specs, folders, strict=True))
    members = {s.name: load_member(s, folder, model, shared) for s, folder in zip(specs, folders, strict=True)}
    for name, member in members.items():
        member.gives_features = features or any(name in channel.members for channel in bundle.manifest.channels)
    return Group(take_lower(model, shared), members)


def _token_limit(bundle: Bundle, groups: Sequence[Group]) -> int:
    """The manifest's limit, if every base has positions for it."""
    positions = min(token_limit(group.lower) for group in groups)
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
