"""One member while it is trained: what of its base may change, its heads, and the files it becomes."""

import copy
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bases.source import BASE_FILES, CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from stacknorm.bundle import HEADS_FILE, Pooling, TaskKind
from stacknorm.encoder.adapter import ADAPTER_CONFIG_FILE, ADAPTER_FILES, ADAPTER_WEIGHTS_FILE
from stacknorm.encoder.initialise import init_encoder, init_head
from stacknorm.encoder.member import Member, head_width
from stacknorm.encoder.precision import Precision, halve_frozen
from stacknorm.encoder.trunk import architecture_of, depth_of, take_upper
from stacknorm.training.recipe import MemberRecipe


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """What a head is made for."""

    kind: TaskKind
    labels: tuple[str, ...]
    pooling: Pooling
    priors: tuple[float, ...] | None = None
    """Shares of the labels that its biases start at; None: they start at zero."""


@dataclass(frozen=True, slots=True)
class Trainee:
    """A member in training. `model` runs on the states of the frozen layers and shares its weights with `encoder`."""

    encoder: PreTrainedModel
    adapted: peft.PeftModel | None
    """The encoder as peft sees it; None where whole layers are trained."""
    model: Member

    def weights(self) -> dict[str, nn.Parameter]:
        """What training changes, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the weights to copies of `tensors`, one for each name that `weights` gives."""
        with torch.no_grad():
            for name, weight in self.weights().items():
                weight.copy_(tensors[name])


def member_files(member: MemberRecipe) -> tuple[str, ...]:
    """Files under the folder of a trained member that its part of the manifest lists."""
    return (*ADAPTER_FILES, HEADS_FILE) if member.mode == "lora" else (HEADS_FILE,)


def base_files(member: MemberRecipe) -> tuple[str, ...]:
    """Files under the folder of a trained member that are a base of its own; none where it stands on another."""
    return BASE_FILES if member.mode == "full" else ()


def make_trainee(
    base: PreTrainedModel, member: MemberRecipe, heads: Mapping[str, HeadPlan], precision: Precision
) -> Trainee:
    """Copy a base and prepare it for training; random numbers come from torch's global generator.

    Args:
        base: the whole encoder, on the device to train on; left as it is.
        member: its recipe.
        heads: task -> plan.
        precision: in bf16 the frozen linear maps beside adapters are kept so, which saves casting them at each step.
    """
    encoder, adapted = copy.deepcopy(base), None
    first = depth_of(base) - member.top_layers
    if member.mode == "lora":
        adapted = _adapt(encoder, member, first)
        inner = adapted.get_base_model()
        assert isinstance(inner, PreTrainedModel)
        encoder = inner
        if precision == "bf16":
            halve_frozen(encoder)
    else:
        _free_layers(encoder, first, member.random_seed)
    layers = nn.ModuleDict({task: _make_head(plan, base.config.hidden_size, member) for task, plan in heads.items()})
    poolings = {task: plan.pooling for task, plan in heads.items()}
    return Trainee(encoder, adapted, Member(take_upper(encoder, first), layers, poolings).to(base.device))


def _make_head(plan: HeadPlan, width: int, member: MemberRecipe) -> nn.Sequential:
    inputs = head_width(plan.pooling, width)
    head = init_head(plan.kind, inputs, len(plan.labels), seed=member.seed, priors=plan.priors)
    return nn.Sequential(nn.Dropout(member.dropout), head)


def _adapt(encoder: PreTrainedModel, member: MemberRecipe, first: int) -> peft.PeftModel:
    kind = architecture_of(encoder)
    config = LoraConfig(
        r=member.rank,
        lora_alpha=2 * member.rank,
        target_modules=list(kind.linears),
        layers_to_transform=list(range(first, depth_of(encoder))),
        layers_pattern=kind.layers.rpartition(".")[2],
    )
    with warnings.catch_warnings():
        # peft asks transformers for an attribute that transformers has renamed; neither is ours to mend.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(encoder, config)
    assert isinstance(adapted, peft.PeftModel)
    return adapted


def _free_layers(encoder: PreTrainedModel, first: int, random_seed: int | None) -> None:
    """Let the layers from `first` on be trained, from random weights where a seed is given."""
    kind = architecture_of(encoder)
    layers = encoder.get_submodule(kind.layers)
    assert isinstance(layers, nn.ModuleList)
    if random_seed is not None:
        fresh = init_encoder(encoder.config, random_seed).get_submodule(kind.layers)
        assert isinstance(fresh, nn.ModuleList)
        layers[first:].load_state_dict(fresh[first:].state_dict())
    layers[first:].requires_grad_(requires_grad=True)


def write_trainee(trainee: Trainee, base: Path, folder: Path) -> None:
    """Write what a bundle holds of a trained member, in fp16.

    Args:
        trainee: its weights are those to ship.
        base: directory of the base it was made from.
        folder: exists; gets heads and adapter, or heads and a whole base.
    """
    _save(folder / HEADS_FILE, {k.replace(".1.", "."): v for k, v in trainee.model.heads.state_dict().items()})
    if trainee.adapted is None:
        _save(folder / WEIGHTS_FILE, trainee.encoder.state_dict())
        for name in (CONFIG_FILE, TOKENIZER_FILE):
            shutil.copyfile(base / name, folder / name)
        return
    # Embeddings are never trained here; left to itself, peft asks the hub whether they could have been.
    _save(folder / ADAPTER_WEIGHTS_FILE, get_peft_model_state_dict(trainee.adapted, save_embedding_layers=False))
    config = trainee.adapted.peft_config["default"].to_dict()
    _write_config(folder, config | {"inference_mode": True, "target_modules": sorted(config["target_modules"])})


def name_base(folder: Path, reference: str) -> None:
    """Let an adapter's configuration name its base as the bundle does, wherever it lay when it was trained."""
    config = json.loads((folder / ADAPTER_CONFIG_FILE).read_bytes())
    _write_config(folder, config | {"base_model_name_or_path": reference})


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG_FILE).write_text(text, encoding="utf-8")


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)
