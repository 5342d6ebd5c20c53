"""The texts that all contenders read: tweets of the data set's validation part, or else the demo's headlines."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random

from stacknorm.text import clean_text, truncate_text

ROOT = Path(__file__).parents[2]
TWEETS = ROOT.parent / "shared" / "data" / "tfns_valid.csv"
HEADLINES = ROOT / "worker" / "demo"
SEED = 1987


@dataclass(frozen=True, slots=True)
class Texts:
    """Cleaned texts as the engine would clean them, so that all read the same, and where they are from."""

    values: tuple[str, ...]
    origin: str


def load_texts(count: int, max_tokens: int, tweets: Path = TWEETS) -> Texts:
    """So many texts, the same ones each time.

    Args:
        count: how many; more than there are repeats them.
        max_tokens: what the engine reads of a text at most; longer ones are cut as it cuts them.
        tweets: a CSV file with a column `text`; the demo's headlines are taken where it does not exist.
    """
    if tweets.is_file():
        with tweets.open(encoding="utf-8", newline="") as opened:
            found = _clean((row["text"] for row in csv.DictReader(opened)), max_tokens)
        origin = f"tweets of {tweets.name} (Twitter Financial News Sentiment)"
    else:
        lines = [line for path in sorted(HEADLINES.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
        items = [json.loads(line) for line in lines]
        found = _clean((f"{item['title']} {item.get('body', '')}" for item in items), max_tokens)
        origin = "headlines of the demo"
    Random(SEED).shuffle(found)
    return Texts(tuple(islice(cycle(found), count)), f"{min(count, len(found))} different {origin}, seed {SEED}")


def _clean(texts: Iterable[str], max_tokens: int) -> list[str]:
    """Each text once; those that cleaning a second time would change are left out."""
    cleaned = dict.fromkeys(truncate_text(clean_text(text), max_tokens) for text in texts)
    return [text for text in cleaned if text and clean_text(text) == text]
