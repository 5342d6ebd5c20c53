"""One transformer encoder: allowed architectures, safe loading, and cutting it into runs of layers.

Only configurations of the architectures below are built, from classes of the transformers package; nothing a
checkpoint says can name code to run. Weights come from safetensors alone and must be finite.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    MPNetConfig,
    MPNetForSequenceClassification,
    MPNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)
from transformers.initialization import no_init_weights

from stacknorm.errors import BundleError
from stacknorm.source import CONFIG_FILE, WEIGHTS_FILE


@dataclass(frozen=True, slots=True)
class Architecture:
    """The classes of one encoder family, and where its layers are."""

    config: type[PreTrainedConfig]
    encoder: type[PreTrainedModel]
    classifier: type[PreTrainedModel]
    layers: str
    linears: tuple[str, ...]
    """Names of the linear maps of a layer, as LoRA targets."""


_BERT_LINEARS = ("query", "key", "value", "dense")
ARCHITECTURES = {
    "bert": Architecture(BertConfig, BertModel, BertForSequenceClassification, "encoder.layer", _BERT_LINEARS),
    "distilbert": Architecture(
        DistilBertConfig,
        DistilBertModel,
        DistilBertForSequenceClassification,
        "transformer.layer",
        ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    ),
    "mpnet": Architecture(
        MPNetConfig,
        MPNetModel,
        MPNetForSequenceClassification,
        "encoder.layer",
        ("attn.q", "attn.k", "attn.v", "attn.o", "dense"),
    ),
    "roberta": Architecture(
        RobertaConfig, RobertaModel, RobertaForSequenceClassification, "encoder.layer", _BERT_LINEARS
    ),
}
"""The allow-list, by `model_type`."""

_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.", "pre_classifier.", "qa_outputs.", "embeddings.position_ids")


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The architecture a model was built from."""
    return ARCHITECTURES[model.config.model_type]


def read_config(root: Path) -> PreTrainedConfig:
    """Read a base's `config.json`.

    Raises:
        BundleError: unreadable, outside the allow-list, or asking for code of its own.
    """
    path = root / CONFIG_FILE
    try:
        raw = json.loads(path.read_bytes())
        kind = raw["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{path} is not a transformer's configuration: {exc!r}") from exc
    if "auto_map" in raw:
        raise BundleError(f"{path} asks for code of its own (auto_map), which is never run")
    if kind not in ARCHITECTURES:
        raise BundleError(f"{path}: architecture {kind!r} is not allowed; allowed are {', '.join(ARCHITECTURES)}")
    # Where the base once came from is no business of what reads it: peft would ask the hub about it.
    raw.pop("_name_or_path", None)
    return ARCHITECTURES[kind].config.from_dict(raw)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        BundleError: it is missing, malformed, or holds a value that is not finite; names the tensor.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise BundleError(f"{path} cannot be read as safetensors: {exc}") from exc
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: tensor {name} is not finite")
    return tensors


def load_encoder(root: Path) -> PreTrainedModel:
    """Load the bare encoder of a base: fp32, on the processor, in eval mode, frozen."""
    config = read_config(root)
    kind = ARCHITECTURES[config.model_type]
    pooling = {} if kind.encoder is DistilBertModel else {"add_pooling_layer": False}
    with no_init_weights():
        model = kind.encoder(config, **pooling)
    prefix = kind.classifier.base_model_prefix + "."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_tensors(root / WEIGHTS_FILE).items()}
    return _fill(model, {k: v for k, v in tensors.items() if not k.startswith(_UNUSED)}, root)


def load_classifier(root: Path) -> PreTrainedModel:
    """Load a base with the classification head of its own checkpoint, as `load_encoder` does."""
    config = read_config(root)
    with no_init_weights():
        model = ARCHITECTURES[config.model_type].classifier(config)
    prefix = f"{model.base_model_prefix}.embeddings.position_ids"
    tensors = load_tensors(root / WEIGHTS_FILE)
    return _fill(model, {name: tensor for name, tensor in tensors.items() if name != prefix}, root)


def _fill(model: PreTrainedModel, tensors: Mapping[str, Tensor], root: Path) -> PreTrainedModel:
    try:
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as exc:
        raise BundleError(f"{root / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {exc}") from exc
    if missing or unexpected:
        raise BundleError(
            f"{root / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    for weight in model.parameters():
        weight.data = weight.data.float()
    model.train(mode=False).requires_grad_(requires_grad=False)
    return model


class _Passthrough(nn.Module):
    """Stands where embeddings stood, so that an encoder starts from hidden states."""

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        (hidden,) = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point())
        return hidden


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder inside a classifier; an encoder is its own."""
    inner = model.base_model
    assert isinstance(inner, PreTrainedModel)
    return inner


def depth_of(model: PreTrainedModel) -> int:
    """Number of layers."""
    layers = encoder_of(model).get_submodule(architecture_of(model).layers)
    assert isinstance(layers, nn.ModuleList)
    return len(layers)


def take_lower(model: PreTrainedModel, depth: int) -> PreTrainedModel:
    """The embeddings and the layers below `depth`, sharing the weights; reads `input_ids`."""
    piece = share(encoder_of(model))
    _keep_layers(piece, slice(0, depth))
    return piece


def take_upper(model: PreTrainedModel, depth: int) -> PreTrainedModel:
    """The layers from `depth` on, and a classifier's head, sharing the weights.

    The piece reads the hidden states of the layer below as `inputs_embeds`, shape [n, tokens, width]; masks and
    position biases stay the model's own.
    """
    piece = share(model)
    _keep_layers(piece, slice(depth, None))
    encoder_of(piece).embeddings = _Passthrough()
    return piece


def share(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the structure of a model, not its weights: new weights put into the copy leave the model as it is."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)


def _keep_layers(model: PreTrainedModel, kept: slice) -> None:
    parent, _, name = architecture_of(model).layers.rpartition(".")
    encoder = encoder_of(model)
    layers = encoder.get_submodule(architecture_of(model).layers)
    assert isinstance(layers, nn.ModuleList)
    setattr(encoder.get_submodule(parent), name, layers[kept])
