"""LoRA adapters in peft's own file format, merged into an encoder at load without peft.

Source: Hu et al. 2021, LoRA, section 4.1: W' = W + (alpha / r) B A.
"""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.encoder.trunk import architecture_of, encoder_of, load_tensors
from stacknorm.errors import BundleError

ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)

_PREFIX = "base_model.model."
_REFUSED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias")


def lowest_adapted_layer(root: Path, model: PreTrainedModel) -> int:
    """The lowest layer that an adapter changes, read from its tensors rather than from what its config claims.

    Raises:
        BundleError: the adapter changes something that is not a layer.
    """
    modules = _pairs(load_tensors(root / ADAPTER_WEIGHTS_FILE), root).keys()
    return min(_layer_numbers(modules, architecture_of(model).layers, root))


def _layer_numbers(modules: Iterable[str], layers: str, root: Path) -> Iterable[int]:
    inside = re.compile(rf"{re.escape(layers)}\.(\d+)\.")
    for module in modules:
        match = inside.match(module)
        if match is None:
            raise BundleError(f"{root}: the adapter changes {module}, which is no layer of the encoder")
        yield int(match[1])


def _pairs(tensors: dict[str, Tensor], root: Path) -> dict[str, dict[str, Tensor]]:
    """Module name -> {"A": [r, in], "B": [out, r]}."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", key.removeprefix(_PREFIX))
        if match is None:
            raise BundleError(f"{root / ADAPTER_WEIGHTS_FILE}: {key} is no LoRA weight")
        pairs.setdefault(match[1], {})[match[2]] = tensor.float()
    if not pairs or any(pair.keys() != {"A", "B"} for pair in pairs.values()):
        raise BundleError(f"{root / ADAPTER_WEIGHTS_FILE}: a LoRA weight lacks its other half")
    return pairs


def _scale(root: Path) -> float:
    path = root / ADAPTER_CONFIG_FILE
    try:
        config = json.loads(path.read_bytes())
        rank, alpha = config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError) as exc:
        raise BundleError(f"{path} is not a LoRA configuration: {exc!r}") from exc
    refused = [name for name in _REFUSED if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or refused:
        raise BundleError(
            f"{path}: only plain LoRA without biases can be merged, not {refused or config.get('peft_type')}"
        )
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def merge_adapter(model: PreTrainedModel, root: Path) -> None:
    """Merge the adapter under `root` into `model`, which gets new weights where it changes; the old stay untouched.

    Raises:
        BundleError: the adapter is no plain LoRA, or does not fit the model.
    """
    scale = _scale(root)
    encoder = encoder_of(model)
    for name, pair in _pairs(load_tensors(root / ADAPTER_WEIGHTS_FILE), root).items():
        try:
            linear = encoder.get_submodule(name)
        except AttributeError as exc:
            raise BundleError(f"{root}: the adapter changes {name}, which the base does not have") from exc
        delta = scale * (pair["B"] @ pair["A"])
        if not isinstance(linear, nn.Linear) or linear.weight.shape != delta.shape:
            raise BundleError(f"{root}: the adapter of {name} has the wrong shape {tuple(delta.shape)}")
        linear.weight = nn.Parameter(linear.weight.detach() + delta.to(torch.float32), requires_grad=False)
