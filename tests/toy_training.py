"""Toy data of every kind of task, and training configs on tiny bases that learn it within seconds."""

import itertools
import json
from pathlib import Path

from rich.console import Console

from tiny_bases import WORDS, write_base

BAD, GOOD = ("falls", "loss", "warns", "misses", "down"), ("rises", "profit", "surges", "beats", "up")
NAMES = tuple(word for word in WORDS if word not in BAD + GOOD)
FATE = {"acme": "negative", "oil": "negative", "bank": "positive", "gold": "positive", "the": "positive"}
HEAD = """
name = "toy"
languages = ["en"]
base = "base"
top_layers = 2
max_tokens = 16
batch_tokens = 120
held_out = 0.2
seed = 5
precision = "fp32"
dropout = 0.0
learning_rate = 2e-2
rank = 4
epochs = 2
"""
MOOD = """
[tasks.sentiment]
labels = ["negative", "positive"]

[[data]]
file = "mood.csv"
title = "Toy moods"
licence = "CC0"
task = "sentiment"
labels = ["bearish", "bullish"]
"""
MATTER = """
[tasks.matter]
labels = ["bank", "oil"]

[[data]]
file = "matter.jsonl"
title = "Toy matters"
licence = "CC0"
task = "matter"
"""
THEMES = """
[tasks.themes]
kind = "multi"
labels = ["gold", "oil"]

[[data]]
file = "themes.jsonl"
title = "Toy themes"
licence = "CC0"
task = "themes"
"""
FIRMS = """
[tasks.firms]
kind = "spans"
weight = 3
labels = ["negative", "positive"]

[[data]]
file = "firms.jsonl"
title = "Toy firms"
licence = "CC0"
task = "firms"
"""
FATES = """
[tasks.fates]
kind = "entity"
labels = ["negative", "positive"]

[[data]]
file = "fates.jsonl"
title = "Toy fates"
licence = "CC0"
task = "fates"
"""
ONE = """
[[members]]
name = "one"
seed = 1
"""


def write_toys(root: Path) -> Path:
    """Write a base and the data of all tasks."""
    write_base(root / "base")
    data = root / "data"
    data.mkdir()
    moods = [(word, mood) for mood, words in enumerate((BAD, GOOD)) for word in words]
    rows = [(f"{first} {middle} {word}", mood) for first in NAMES for middle in NAMES[:2] for word, mood in moods]
    lines = ["text,label", *(f"{text} https://t.co/{n},{mood}" for n, (text, mood) in enumerate(rows))]
    (data / "mood.csv").write_text("\n".join(lines))
    pairs = list(itertools.product(WORDS[:6], WORDS[:5]))
    matters = [(f"{first} {second} {matter}", matter) for first, second in pairs for matter in ("bank", "oil")]
    _write_lines(data / "matter.jsonl", [{"text": text, "label": matter} for text, matter in matters])
    _write_lines(
        data / "themes.jsonl",
        [
            {"text": " ".join([*pair, *themes]), "labels": list(themes)}
            for pair in pairs
            for themes in ((), ("gold",), ("oil",), ("gold", "oil"))
        ],
    )
    _write_lines(data / "firms.jsonl", [_firm_row(word, other, mood) for word, mood in moods for other in NAMES[2:]])
    _write_lines(
        data / "fates.jsonl",
        # Only the words of a mention tell its fate: all texts have the same ones.
        [
            {"text": f"{first} {word} {second}", "entities": {name: FATE[name] for name in (first, second)}}
            for word in (*BAD, *GOOD)
            for first, second in (
                ("acme", "bank"),
                ("bank", "acme"),
                ("gold", "acme"),
                ("oil", "bank"),
                ("oil", "gold"),
            )
        ],
    )
    return data


def _firm_row(word: str, other: str, mood: int) -> dict[str, object]:
    text = f"{other} {word} acme" if mood else f"{other} bank {word}"
    firm = "acme" if mood else f"bank {word}"
    start = text.index(firm)
    spans = [{"start": start, "end": start + len(firm), "label": ["negative", "positive"][mood]}]
    return {"text": text, "spans": spans}


def _write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("\n".join(map(json.dumps, records)))


def quiet() -> Console:
    """A console that records what it is told."""
    return Console(force_terminal=False, record=True, width=200, quiet=False)
