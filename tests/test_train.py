import itertools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.text import fingerprint
from stacknorm.training.corpus import class_weights, hold_out, load_corpus
from stacknorm.training.recipe import Recipe, load_recipe
from stacknorm.training.train import train_bundle
from tiny_bases import WORDS, write_base

BAD, GOOD = ("falls", "loss", "warns", "misses", "down"), ("rises", "profit", "surges", "beats", "up")
NAMES = tuple(word for word in WORDS if word not in BAD + GOOD)
RECIPE = """
name = "toy"
languages = ["en"]
base = "base"
top_layers = 2
max_tokens = 16
batch_tokens = 120
held_out = 0.2
seed = 5
precision = "fp32"
tasks = { sentiment = { labels = ["negative", "positive"] }, matter = { labels = ["bank", "oil"] } }

[[data]]
file = "mood.csv"
title = "Toy moods"
licence = "CC0"
task = "sentiment"
labels = ["bearish", "bullish"]

[[data]]
file = "matter.jsonl"
title = "Toy matters"
licence = "CC0"
task = "matter"

[[members]]
name = "one"
seed = 1
rank = 4
dropout = 0.0
learning_rate = 2e-2
epochs = 6

[[members]]
name = "two"
seed = 2
rank = 2
dropout = 0.0
learning_rate = 2e-2
epochs = 6
pooling = "cls"
label_smoothing = 0.1
class_weight_power = 0.5
row_share = 0.9
"""


def write_data(root: Path) -> Path:
    root.mkdir()
    moods = [(word, mood) for mood, words in enumerate((BAD, GOOD)) for word in words]
    pairs = [(f"{first} {middle} {word}", mood) for first in NAMES for middle in NAMES[:4] for word, mood in moods]
    lines = ["text,label", *(f"{text} https://t.co/{n},{mood}" for n, (text, mood) in enumerate(pairs))]
    (root / "mood.csv").write_text("\n".join(lines))
    matters = [
        {"text": f"{first} {second} {matter}", "label": matter}
        for first, second, matter in itertools.product(WORDS[:8], WORDS[:8], ("bank", "oil"))
    ]
    (root / "matter.jsonl").write_text("\n".join(map(json.dumps, matters)))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    write_base(root / "base")
    write_data(root / "data")
    (root / "toy.toml").write_text(RECIPE)
    (root / "short.toml").write_text(RECIPE.replace("epochs = 6", "epochs = 1"))
    return root


def toy_recipe() -> Recipe:
    return Recipe.model_validate(tomllib.loads(RECIPE))


def train(root: Path, out: Path, config: str = "short.toml") -> str:
    console = Console(force_terminal=False, record=True, width=200, quiet=False)
    train_bundle(root / config, root / "data", out, console)
    return console.export_text()


def test_training_gives_a_bundle_that_has_learnt_and_says_how_well(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(trained / "base")
    said = train(trained, tmp_path / "out", "toy.toml")
    assert "2 of 2 trainings to do" in said
    assert "one: epoch 6" in said
    engine = Engine.load(_beside(trained, tmp_path / "out"), precision="fp32")
    bad, good = engine.predict(["acme oil warns", "bank oil beats"])
    assert bad.tasks["sentiment"].label == "negative"
    assert good.tasks["sentiment"].label == "positive"
    manifest = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert manifest["scores"]["matter"]["stack"]["accuracy"]["value"] > 0.8
    assert {row["licence"] for row in manifest["training"]["data"]} == {"CC0"}
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "Toy moods" in card
    assert "stacknorm train train.toml" in card
    assert not (tmp_path / "out" / ".training").exists()


def _beside(trained: Path, out: Path) -> Path:
    """The recipe names its base relative to itself; give the bundle one in the same place."""
    (out / "base").symlink_to(trained / "base")
    return out


def test_a_run_that_was_stopped_goes_on_with_the_members_that_are_missing(trained: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stopping(Console):
        def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]  # a subset is enough
            if str(objects[0]).startswith("two: epoch 1"):
                raise StopError

    with pytest.raises(StopError):
        train_bundle(trained / "short.toml", trained / "data", tmp_path, Stopping())
    said = train(trained, tmp_path)
    assert "1 of 2 trainings to do" in said
    assert "one: epoch" not in said
    assert "two: epoch 1" in said


def test_the_same_seeds_give_the_same_members(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(trained, tmp_path / name)
    first, second = (json.loads((tmp_path / name / "bundle.json").read_text())["scores"] for name in ("a", "b"))
    # The arithmetic may be of another precision each time: it is measured.
    assert first["matter"]["one"]["nll"]["value"] == pytest.approx(second["matter"]["one"]["nll"]["value"], abs=0.1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.integers(0, 2)), min_size=1), st.integers())
def test_copies_of_a_text_stay_on_one_side_whatever_their_task_and_order(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    prints, tasks, labels = (np.array(column) for column in zip(*rows, strict=True))
    held = hold_out(prints, tasks, labels, 0.3, seed)
    for text in set(prints.tolist()):
        assert len(set(held[prints == text].tolist())) == 1
    order = np.random.default_rng(0).permutation(len(rows))
    assert (hold_out(prints[order], tasks[order], labels[order], 0.3, seed) == held[order]).all()


def test_every_class_of_every_task_is_held_out_in_its_share() -> None:
    prints, tasks, labels = np.arange(1000), np.arange(1000) % 2, np.arange(1000) % 5
    held = hold_out(prints, tasks, labels, 0.1, 0)
    assert {int(held[(tasks == t) & (labels == c)].sum()) for t in range(2) for c in range(5)} == {10}


def test_urls_punctuation_and_case_do_not_make_another_text() -> None:
    assert fingerprint("Acme FALLS!! https://t.co/x") == fingerprint("acme falls")
    assert fingerprint("acme falls") != fingerprint("acme rises")


def test_class_weights_balance_at_one_and_do_nothing_at_zero() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert class_weights(labels, 2, 0).tolist() == [1, 1]
    assert class_weights(labels, 2, 1).tolist() == pytest.approx([1 / 1.8, 5])


def test_only_named_files_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    (data / "mood_valid.csv").write_text('not,even\na"csv')
    corpus = load_corpus(toy_recipe(), data)
    assert {source.file for source in corpus.sources} == {"mood.csv", "matter.jsonl"}
    (data / "matter.jsonl").unlink()
    with pytest.raises(DataError, match=r"matter\.jsonl cannot be read"):
        load_corpus(toy_recipe(), data)


@pytest.mark.parametrize(
    ("change", "message"), [("rank = 4", "members.0.rnk: Extra"), ("seed = 5", "sed: Extra"), ("[[data]]", "TOML")]
)
def test_a_config_with_a_slip_names_the_field(change: str, message: str, tmp_path: Path) -> None:
    slips = {"rank = 4": "rnk = 4", "seed = 5": "sed = 5", "[[data]]": "[[data"}
    (tmp_path / "slip.toml").write_text(RECIPE.replace(change, slips[change], 1))
    with pytest.raises(DataError, match=message):
        load_recipe(tmp_path / "slip.toml")
