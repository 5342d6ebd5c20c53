"""Tiny transformers, adapters and bundles with random weights, written to disk as real ones are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedConfig, PreTrainedModel

from stacknorm.bases.source import BASE_FILES, digest_files
from stacknorm.bundle import BaseSpec, HeadSpec, Manifest, MemberSpec, TaskSpec, save_manifest
from stacknorm.encoder.trunk import ARCHITECTURES
from stacknorm.labels import SENTIMENT
from stacknorm.pooling.calibrate import Identity, Temperature
from stacknorm.pooling.pool import PowerPool

WIDTH, LAYERS = 16, 4
WORDS = [
    "profit",
    "loss",
    "falls",
    "rises",
    "surges",
    "warns",
    "beats",
    "misses",
    "acme",
    "bank",
    "oil",
    "gold",
    "up",
    "down",
    "the",
    "of",
    "cuts",
    "raises",
]
_SPECIAL = {0: ["<pad>", "[UNK]", "[CLS]", "[SEP]"], 1: ["[UNK]", "<pad>", "[CLS]", "[SEP]"]}
"""By the number of the padding token: families that count positions from it take it to be 1."""
_PADDING = {"bert": 0, "deberta-v2": 0, "distilbert": 0, "electra": 0}

_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32}
_OWN_SIZES: dict[str, dict[str, Any]] = {
    "camembert": _SIZES | {"type_vocab_size": 1},
    "deberta-v2": _SIZES
    | {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    | {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
    "distilbert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32},
    "electra": _SIZES | {"embedding_size": 8},
    "roberta": _SIZES | {"type_vocab_size": 1},
    "xlm-roberta": _SIZES | {"type_vocab_size": 1},
}
"""As the published checkpoints of each family are shaped, but small."""


def write_tokenizer(root: Path, padding: int = 0) -> None:
    vocabulary = {word: number for number, word in enumerate([*_SPECIAL[padding], *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(root / "tokenizer.json"))


def tiny_config(kind: str, labels: int | None = None, **changes: Any) -> PreTrainedConfig:
    """The configuration of a tiny base; `changes` are fields of the family's own."""
    padding = _PADDING.get(kind, 1)
    sizes = {"vocab_size": len(_SPECIAL[padding]) + len(WORDS), "max_position_embeddings": 64, "pad_token_id": padding}
    counted = {"num_labels": labels} if labels else {}
    return ARCHITECTURES[kind].config(**sizes | _OWN_SIZES.get(kind, _SIZES) | counted | changes)


def write_base(
    root: Path, kind: str = "bert", seed: int = 0, labels: int | None = None, task: str = "single", **changes: Any
) -> Path:
    """Write a base; with `labels` it is a whole classifier, or a tagger where the task is `spans`."""
    root.mkdir(parents=True, exist_ok=True)
    architecture = ARCHITECTURES[kind]
    if task == "multi":
        changes["problem_type"] = "multi_label_classification"
    config = tiny_config(kind, labels, **changes)
    torch.manual_seed(seed)
    whole = architecture.tagger if task == "spans" else architecture.classifier
    model: PreTrainedModel = (whole if labels else architecture.encoder)(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, root / "model.safetensors")
    config.architectures = [type(model).__name__]
    (root / "config.json").write_text(json.dumps(config.to_dict()))
    write_tokenizer(root, _PADDING.get(kind, 1))
    return root


def write_adapter(folder: Path, kind: str = "bert", layers: Sequence[int] = (2, 3), seed: int = 1) -> None:
    """Write a LoRA adapter of rank 2 on the query and output maps of the given layers."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    query = {
        "deberta-v2": "attention.self.query_proj",
        "distilbert": "attention.q_lin",
        "mpnet": "attention.attn.q",
    }
    name = query.get(kind, "attention.self.query")
    tensors = {}
    for layer in layers:
        module = f"base_model.model.{ARCHITECTURES[kind].layers}.{layer}.{name}"
        tensors[f"{module}.lora_A.weight"] = torch.randn(2, WIDTH, generator=random).half()
        tensors[f"{module}.lora_B.weight"] = torch.randn(WIDTH, 2, generator=random).half()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": [name.split(".")[-1]]}
    config |= {"layers_to_transform": list(layers), "layers_pattern": "layer"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def write_heads(folder: Path, heads: Mapping[str, Sequence[str]], seed: int = 2, width: int = WIDTH) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for task, labels in heads.items():
        tensors[f"{task}.weight"] = torch.randn(len(labels), width, generator=random).half()
        tensors[f"{task}.bias"] = torch.randn(len(labels), generator=random).half()
    save_file(tensors, folder / "heads.safetensors")


def member_spec(
    bundle: Path, name: str, base: Path, labels: Sequence[str] = SENTIMENT.labels, layers: Sequence[int] = (2, 3)
) -> MemberSpec:
    """Write one sentiment member and give its part of the manifest; no layers means no adapter."""
    kind = json.loads((base / "config.json").read_text())["model_type"]
    seed = sum(name.encode())
    files = ["heads.safetensors"]
    write_heads(bundle / name, {"sentiment": labels}, seed)
    if layers:
        write_adapter(bundle / name, kind, layers, seed)
        files += ["adapter_config.json", "adapter_model.safetensors"]
    return MemberSpec(
        name=name,
        base=BaseSpec(references=(str(base),), files=digest_files(base, BASE_FILES)),
        heads={"sentiment": HeadSpec(labels=tuple(labels), pooling="mean")},
        files=digest_files(bundle / name, files),
    )


STANCE = ("negative", "positive")


def give_entity_head(bundle: Path, spec: MemberSpec) -> MemberSpec:
    """Let a member of `member_spec` also answer the task `stance`, of the kind `entity`, without an opinion."""
    heads = bundle / spec.name / "heads.safetensors"
    head = {"stance.weight": torch.ones(len(STANCE), 2 * WIDTH), "stance.bias": torch.zeros(len(STANCE))}
    save_file(load_file(heads) | head, heads)
    named = dict(spec.heads) | {"stance": HeadSpec(labels=STANCE, pooling="entity")}
    return spec.model_copy(update={"heads": named, "files": digest_files(heads.parent, spec.files)})


def entity_task(member: str) -> TaskSpec:
    """The task `stance`, which one member answers."""
    return TaskSpec(
        kind="entity", labels=STANCE, pool=PowerPool(weights=(1.0,)), calibrator=Identity(), best_member=member
    )


def native_spec(name: str, base: Path, labels: Sequence[str]) -> MemberSpec:
    """A checkpoint used as it is, with its own head."""
    return MemberSpec(
        name=name,
        base=BaseSpec(references=(str(base),), files=digest_files(base, BASE_FILES)),
        heads={"sentiment": HeadSpec(labels=tuple(labels), pooling="native")},
    )


def write_stack(bundle: Path, members: Sequence[MemberSpec], max_tokens: int = 16) -> Path:
    """Write the manifest of a stack of sentiment members with equal weights."""
    bundle.mkdir(parents=True, exist_ok=True)
    task = TaskSpec(
        labels=SENTIMENT.labels,
        pool=PowerPool(weights=(1 / len(members),) * len(members)),
        calibrator=Temperature(temperature=1.5),
        best_member=members[0].name,
    )
    save_manifest(
        bundle,
        Manifest(
            name="tiny", languages=("en",), max_tokens=max_tokens, tasks={"sentiment": task}, members=tuple(members)
        ),
    )
    return bundle


def write_tiny_bundle(root: Path) -> Path:
    """Two adapted members on one tiny base."""
    base = write_base(root / "base")
    bundle = root / "bundle"
    return write_stack(bundle, [member_spec(bundle, name, base) for name in ("first", "second")])
