"""Tiny whole classifiers that know something: random encoders whose head was solved on sentences of known sentiment."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stacknorm.encoder.tokens import load_tokenizer, pad, tokenise
from stacknorm.encoder.trunk import load_classifier
from stacknorm.labels import SENTIMENT
from tiny_bases import write_base

_SAID = {
    "negative": ("loss", "falls", "warns", "misses", "cuts", "down"),
    "neutral": ("the", "of", "bank", "oil"),
    "positive": ("profit", "rises", "surges", "beats", "raises", "up"),
}
_SURENESS = 6.0
_RIDGE = 1.0


def write_sentences(rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Sentences, and the sentiment of each: two words of it after a subject."""
    random = np.random.default_rng(seed)
    labels = [SENTIMENT.labels[place] for place in random.integers(3, size=rows)]
    texts = [
        " ".join([str(random.choice(["acme", "gold"])), *map(str, random.choice(_SAID[label], size=2))])
        for label in labels
    ]
    return texts, labels


def write_rows(path: Path, rows: int = 300, seed: int = 1) -> Path:
    """Write a labelled CSV."""
    texts, labels = write_sentences(rows, seed)
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def write_classifier(
    root: Path, kind: str, names: Sequence[str], meanings: Sequence[str] | None = None, seed: int = 0
) -> Path:
    """Write a classifier of sentiment.

    Args:
        root: its directory.
        kind: its family.
        names: its labels, in the order of its logits.
        meanings: what each of them means; the names themselves unless given.
        seed: of its weights.
    """
    id2label = dict(enumerate(names))
    write_base(root, kind, seed, labels=len(names), id2label=id2label, label2id={v: k for k, v in id2label.items()})
    texts, labels = write_sentences(600, seed=0)
    known = [SENTIMENT.canonical(meaning) for meaning in meanings or names]
    rows = [row for row, label in enumerate(labels) if label in known]
    model = load_classifier(root)
    seen: list[torch.Tensor] = []
    head = "classifier.out_proj" if hasattr(model.get_submodule("classifier"), "out_proj") else "classifier"
    model.get_submodule(head).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tokens = tokenise(load_tokenizer(root, 16), [texts[row] for row in rows])
    batch = pad(range(len(rows)), tokens, model.config.pad_token_id or 0, 16)
    with torch.inference_mode():
        model(input_ids=batch.ids, attention_mask=batch.mask)
    features = torch.cat([seen[0].double(), torch.ones(len(rows), 1, dtype=torch.double)], dim=1)
    target = torch.eye(len(names), dtype=torch.double)[[known.index(labels[row]) for row in rows]]
    # A ridge keeps weights small, so that bf16 does not move answers.
    gram = features.T @ features + _RIDGE * torch.eye(features.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(gram, features.T @ target * _SURENESS).float()
    tensors = load_file(root / "model.safetensors")
    tensors[f"{head}.weight"], tensors[f"{head}.bias"] = solved[:-1].T.contiguous(), solved[-1].contiguous()
    save_file(tensors, root / "model.safetensors")
    return root
