"""Where a member in training stands, saved after each epoch in one file, so that a killed run loses at most one.

A checkpoint is a safetensors file whose header holds the plain values as JSON. It is written beside its place and
renamed, so it is whole or absent.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_HEADER = "standing"
_NOW, _BEST, _STATE = "now/", "best/", "optimiser/"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a member is."""

    epoch: int = 0
    """Epochs done."""
    best_epoch: int = 0
    best_score: float = float("inf")
    seconds: float = 0.0
    """Spent on it, in all processes that worked on it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that is needed to go on as if nothing had happened."""

    standing: Standing
    now: Mapping[str, Tensor]
    """Weights after the last epoch, by name."""
    best: Mapping[str, Tensor]
    """Weights of the best epoch."""
    optimiser: dict[str, Any]
    """Its `state_dict`."""
    schedule: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, or replace the one that is there."""
    state = checkpoint.optimiser["state"]
    tensors = {_NOW + name: tensor for name, tensor in checkpoint.now.items()}
    tensors |= {_BEST + name: tensor for name, tensor in checkpoint.best.items()}
    tensors |= {f"{_STATE}{number}/{key}": value for number, kept in state.items() for key, value in kept.items()}
    values = {
        "standing": asdict(checkpoint.standing),
        "groups": checkpoint.optimiser["param_groups"],
        "schedule": checkpoint.schedule,
    }
    draft = path.with_name(path.name + ".part")
    draft.parent.mkdir(parents=True, exist_ok=True)
    # A tensor may stand under two names (the best weights are the last ones), which safetensors refuses to see.
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(copies, draft, {_HEADER: json.dumps(values)})
    draft.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote."""
    with safe_open(path, "pt") as opened:
        values = json.loads(opened.metadata()[_HEADER])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 -- no mapping, it has no iterator
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, _STATE).items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    return Checkpoint(
        Standing(**values["standing"]),
        _under(tensors, _NOW),
        _under(tensors, _BEST),
        {"state": state, "param_groups": values["groups"]},
        values["schedule"],
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
