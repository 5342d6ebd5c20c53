"""One model in both forms: as Hugging Face loads it, and as a bundle. Nothing here runs the code that is compared."""
# mypy: allow-untyped-calls

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from stacknorm.bases.source import BASE_FILES, digest_files
from stacknorm.bundle import (
    HEADS_FILE,
    BaseSpec,
    Bundle,
    HeadSpec,
    Manifest,
    MemberSpec,
    Pooling,
    TaskSpec,
    save_manifest,
)
from stacknorm.labels import SENTIMENT
from stacknorm.pooling.calibrate import Temperature
from stacknorm.pooling.pool import PowerPool

TASK = "sentiment"
HEAD_SPREAD = 0.3  # wide enough for probabilities that differ from text to text


def write_classifier(base: Path, folder: Path, seed: int = 1) -> Path:
    """Write `base` as a plain checkpoint for sequence classification, with a random head for sentiment."""
    torch.manual_seed(seed)
    labels = dict(enumerate(SENTIMENT.labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=len(labels), id2label=labels
    )
    nn.init.normal_(model.classifier.weight, std=HEAD_SPREAD)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def write_bundle(folder: Path, classifier: Path, max_tokens: int) -> Path:
    """Write a bundle of one member: that checkpoint as it is."""
    folder.mkdir(parents=True)
    member = MemberSpec(
        name="classifier",
        base=BaseSpec(references=(str(classifier),), files=digest_files(classifier, BASE_FILES)),
        heads={TASK: HeadSpec(labels=SENTIMENT.labels, pooling="native")},
    )
    task = TaskSpec(
        labels=SENTIMENT.labels,
        pool=PowerPool(weights=(1.0,)),
        calibrator=Temperature(temperature=1.0),
        best_member=member.name,
    )
    save_manifest(
        folder,
        Manifest(name="bench", languages=("en",), max_tokens=max_tokens, tasks={TASK: task}, members=(member,)),
    )
    return folder


class PooledClassifier(PreTrainedModel):
    """An encoder and a linear head on its pooled token states: what a user without the bundle's code would write."""

    _supports_sdpa = True  # the encoder does, and keeps it

    def __init__(self, encoder: PreTrainedModel, head: Mapping[str, Tensor], pooling: Pooling) -> None:
        super().__init__(encoder.config)
        self.encoder = encoder
        labels, width = head["weight"].shape
        self.head = nn.Linear(width, labels)
        self.head.load_state_dict(dict(head))
        self.pooling = pooling

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> SequenceClassifierOutput:
        states = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state  # [n, tokens, width]
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = attention_mask[..., None].to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return SequenceClassifierOutput(logits=self.head(pooled))


def load_members(bundle: Bundle) -> list[PreTrainedModel]:
    """Each member of a bundle that speaks on sentiment as a model of its own: base, adapter merged by peft, head."""
    return [_load_member(bundle, member) for member in bundle.manifest.members if TASK in member.heads]


def _load_member(bundle: Bundle, member: MemberSpec) -> PreTrainedModel:
    head = member.heads[TASK]
    if head.pooling == "native":
        native: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(bundle.base_directory(member))
        return native
    encoder = AutoModel.from_pretrained(
        bundle.base_directory(member),
        dtype=torch.float32,
        add_pooling_layer=False,
        num_labels=len(head.labels),
        id2label=dict(enumerate(head.labels)),
    )
    folder = bundle.root / member.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        merged = PeftModel.from_pretrained(encoder, str(folder)).merge_and_unload()
    tensors = {name: tensor.float() for name, tensor in load_file(folder / HEADS_FILE).items()}
    own = {part: tensors[f"{TASK}.{part}"] for part in ("weight", "bias")}
    model = PooledClassifier(merged, own, head.pooling)
    model.eval()
    return model
