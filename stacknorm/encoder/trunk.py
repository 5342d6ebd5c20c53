"""One transformer encoder: allowed architectures, safe loading, and cutting it into runs of layers.

Only configurations of the architectures below are built, from classes of the transformers package; nothing a
checkpoint says can name code to run. Weights come from safetensors alone and must be finite.
"""

import copy
import json
import re
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
    BertForTokenClassification,
    BertModel,
    CamembertConfig,
    CamembertForSequenceClassification,
    CamembertForTokenClassification,
    CamembertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    ElectraConfig,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
    MPNetConfig,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    MPNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)
from transformers.initialization import no_init_weights
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

from stacknorm.bases.source import CONFIG_FILE, WEIGHTS_FILE
from stacknorm.bundle import TaskKind
from stacknorm.errors import BundleError


@dataclass(frozen=True, slots=True)
class Architecture:
    """The classes of one encoder family, and where its layers are."""

    config: type[PreTrainedConfig]
    encoder: type[PreTrainedModel]
    classifier: type[PreTrainedModel]
    """Of whole texts."""
    tagger: type[PreTrainedModel]
    """Of each token."""
    layers: str
    linears: tuple[str, ...]
    """Names of the linear maps of a layer, as LoRA targets."""
    pooler: bool = True
    """Whether the encoder's class brings a pooler, which a bare encoder is built without."""


_BERT_LINEARS = ("query", "key", "value", "dense")
ARCHITECTURES = {
    "bert": Architecture(
        BertConfig,
        BertModel,
        BertForSequenceClassification,
        BertForTokenClassification,
        "encoder.layer",
        _BERT_LINEARS,
    ),
    "camembert": Architecture(
        CamembertConfig,
        CamembertModel,
        CamembertForSequenceClassification,
        CamembertForTokenClassification,
        "encoder.layer",
        _BERT_LINEARS,
    ),
    "deberta-v2": Architecture(
        DebertaV2Config,
        DebertaV2Model,
        DebertaV2ForSequenceClassification,
        DebertaV2ForTokenClassification,
        "encoder.layer",
        ("query_proj", "key_proj", "value_proj", "dense"),
        pooler=False,
    ),
    "distilbert": Architecture(
        DistilBertConfig,
        DistilBertModel,
        DistilBertForSequenceClassification,
        DistilBertForTokenClassification,
        "transformer.layer",
        ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
        pooler=False,
    ),
    "electra": Architecture(
        ElectraConfig,
        ElectraModel,
        ElectraForSequenceClassification,
        ElectraForTokenClassification,
        "encoder.layer",
        _BERT_LINEARS,
        pooler=False,
    ),
    "mpnet": Architecture(
        MPNetConfig,
        MPNetModel,
        MPNetForSequenceClassification,
        MPNetForTokenClassification,
        "encoder.layer",
        ("attn.q", "attn.k", "attn.v", "attn.o", "dense"),
    ),
    "roberta": Architecture(
        RobertaConfig,
        RobertaModel,
        RobertaForSequenceClassification,
        RobertaForTokenClassification,
        "encoder.layer",
        _BERT_LINEARS,
    ),
    "xlm-roberta": Architecture(
        XLMRobertaConfig,
        XLMRobertaModel,
        XLMRobertaForSequenceClassification,
        XLMRobertaForTokenClassification,
        "encoder.layer",
        _BERT_LINEARS,
    ),
}
"""The allow-list, by `model_type`. ALBERT is not on it: its layers are one layer run many times, so none can be left
to one member alone."""

_UNUSED = re.compile(
    r"(pooler|cls|lm_head|classifier|pre_classifier|qa_outputs|discriminator_predictions|generator_predictions"
    r"|generator_lm_head|lm_predictions|mask_predictions|embeddings\.position_embeddings)\."
    r"|embeddings\.(position|token_type)_ids$"
)
"""What checkpoints hold beside the part that is loaded: heads of their pretraining, and tables of whole numbers."""
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


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
    with no_init_weights():
        model = build_encoder(config)
    prefix = model.base_model_prefix + "."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_tensors(root / WEIGHTS_FILE).items()}
    return _fill(model, tensors, root)


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A bare encoder of an allowed configuration, without the weights of any checkpoint."""
    kind = ARCHITECTURES[config.model_type]
    return kind.encoder(config, **({"add_pooling_layer": False} if kind.pooler else {}))


def load_classifier(root: Path, kind: TaskKind = "single") -> PreTrainedModel:
    """Load a base with the head of its own checkpoint, as `load_encoder` does.

    Args:
        root: directory of the base.
        kind: what the head is for: `spans` needs one that labels tokens, all else one that labels texts.

    Raises:
        BundleError: the files cannot be used, or the checkpoint's head is for something else.
    """
    config = read_config(root)
    architecture = ARCHITECTURES[config.model_type]
    wanted = architecture.tagger if kind == "spans" else architecture.classifier
    _check_purpose(config, wanted.__name__, kind, root)
    with no_init_weights():
        model = wanted(config)
    return _fill(model, load_tensors(root / WEIGHTS_FILE), root)


def _check_purpose(config: PreTrainedConfig, wanted: str, kind: TaskKind, root: Path) -> None:
    """Weights alone do not tell: a head on tokens and one on texts can have the same names and shapes."""
    declared = config.architectures or [wanted]
    if wanted not in declared:
        raise BundleError(f"{root / CONFIG_FILE} describes a {declared[0]}; a task of kind {kind} needs a {wanted}")
    allowed = ("multi_label_classification",) if kind == "multi" else ("single_label_classification",)
    if config.problem_type not in (None, *allowed):
        raise BundleError(f"{root / CONFIG_FILE}: a head for {config.problem_type} cannot serve a task of kind {kind}")


def _fill(model: PreTrainedModel, tensors: Mapping[str, Tensor], root: Path) -> PreTrainedModel:
    """Put the tensors into a model; those it has no place for must be known to be of no use."""
    try:
        missing, unexpected = model.load_state_dict({_renamed(k): v for k, v in tensors.items()}, strict=False)
    except RuntimeError as exc:
        raise BundleError(f"{root / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {exc}") from exc
    prefix = model.base_model_prefix + "."
    unexpected = [name for name in unexpected if not _UNUSED.match(name.removeprefix(prefix))]
    if missing or unexpected:
        raise BundleError(
            f"{root / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    for weight in model.parameters():
        weight.data = weight.data.float()
    model.train(mode=False).requires_grad_(requires_grad=False)
    return model


def _renamed(name: str) -> str:
    """The name a tensor has today; checkpoints converted from TensorFlow bear older ones."""
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


class _Passthrough(nn.Module):
    """Stands where embeddings stood, so that an encoder starts from hidden states."""

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        (hidden,) = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point())
        return hidden


class _NoLayer(nn.Module):
    """Stands where no layer is left, in an encoder that cannot run without one."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        return hidden, None


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


def token_limit(model: PreTrainedModel) -> int:
    """The longest text a model with embeddings has positions for, in tokens, special ones included."""
    encoder = encoder_of(model)
    # Where embeddings know the padding token, positions are counted from the one after its number.
    unused = getattr(encoder.embeddings, "padding_idx", -1) + 1
    limit: int = encoder.config.max_position_embeddings
    return limit - unused


def takes_types(config: PreTrainedConfig) -> bool:
    """Whether an encoder tells the two texts of a pair apart by more than the tokens between them."""
    return getattr(config, "type_vocab_size", 0) > 1


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
    encoder = encoder_of(piece)
    encoder.embeddings = _Passthrough()
    # ELECTRA widens its embeddings before the first layer; hidden states are wide already.
    if hasattr(encoder, "embeddings_project"):
        del encoder.embeddings_project
    return piece


def share(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the structure of a model, not its weights: new weights put into the copy leave the model as it is."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)


def _keep_layers(model: PreTrainedModel, kept: slice) -> None:
    parent, _, name = architecture_of(model).layers.rpartition(".")
    run = encoder_of(model).get_submodule(parent)
    layers = run.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    setattr(run, name, layers[kept])
    if isinstance(run, DebertaV2Encoder):
        # Its convolution is part of its first layer, and its loop needs at least one to run.
        run.conv = run.conv if 0 in range(len(layers))[kept] else None
        run.layer = run.layer if len(run.layer) else nn.ModuleList([_NoLayer()])
