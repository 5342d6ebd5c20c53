"""The README's block runs as it stands, on two classifiers of different families and label orders."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from stacknorm.labels import SENTIMENT
from tiny_classifiers import write_classifier

README = (Path(__file__).parents[1] / "README.md").read_text()
(BLOCK,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "assemble" in code)
ORDERS = {
    "finbert": ("bert", ["positive", "negative", "neutral"]),
    "finbert-tone": ("distilbert", ["Neutral", "Positive", "Negative"]),
}


def read_by_hand(root: Path, text: str) -> dict[str, float]:
    """What a classifier says, by the library it was made with, under the names in its configuration."""
    model = AutoModelForSequenceClassification.from_pretrained(root).eval()
    ids = torch.tensor([Tokenizer.from_file(str(root / "tokenizer.json")).encode(text).ids])
    with torch.inference_mode():
        (shares,) = model(input_ids=ids).logits.softmax(dim=1).tolist()
    return {SENTIMENT.canonical(model.config.id2label[place]): share for place, share in enumerate(shares)}


def test_the_block_has_ten_lines() -> None:
    assert len(BLOCK.splitlines()) <= 10


def test_the_block_stacks_two_models_of_different_label_orders_and_gives_their_mean(tmp_path: Path) -> None:
    for name, (kind, order) in ORDERS.items():
        write_classifier(tmp_path / "models" / name, kind, order, seed=3)
    done = subprocess.run([sys.executable, "-c", BLOCK], cwd=tmp_path, capture_output=True, text=True, check=True)
    for text, line in zip(["acme warns of a loss", "acme profit beats"], done.stdout.splitlines(), strict=True):
        said = [read_by_hand(tmp_path / "models" / name, text) for name in ORDERS]
        mean = {label: sum(one[label] for one in said) / 2 for label in SENTIMENT.labels}
        label, share, _ = line.split()
        assert label == max(mean, key=mean.__getitem__)
        # Where the hardware has bf16 the engine takes it, and weights made up at random feel it.
        assert float(share) == pytest.approx(mean[label], abs=0.1)
