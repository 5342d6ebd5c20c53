"""A config's channels and cascade are fitted by the finished members on what was held out."""

from pathlib import Path

import pytest

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.engine import Engine
from stacknorm.training.plan import make_plan
from stacknorm.training.train import train_bundle
from toy_training import FATES, HEAD, MOOD, ONE, quiet, write_toys

TWO = """
[[members]]
name = "two"
seed = 2
pooling = "cls"
"""
BOUNDED = """
[[channels]]
name = "both"
members = ["one", "two"]

[cascade]
stages = [["one"], ["two"]]
max_loss = 0.05
"""
EXACT = """
[cascade]
mode = "exact"
stages = [["one"], ["two"]]
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    write_toys(root)
    return root


def train(toys: Path, out: Path, forms: str) -> Bundle:
    config = toys / "toy.toml"
    config.write_text(HEAD.replace("epochs = 2", "epochs = 6") + MOOD + FATES + ONE + TWO + forms)
    train_bundle(config, toys / "data", out, quiet())
    (out / "base").symlink_to(toys / "base")
    return load_bundle(out)


def test_a_bounded_cascade_and_a_channel_are_fitted_on_what_was_held_out(toys: Path, tmp_path: Path) -> None:
    bundle = train(toys, tmp_path / "out", BOUNDED)
    manifest = bundle.manifest
    assert manifest.members_of("sentiment") == ("one", "two", "both")
    assert manifest.members_of("fates") == ("one", "two")
    assert all(member.base.references == ("base",) for member in manifest.members)
    cascade = manifest.cascade
    assert cascade is not None
    assert cascade.report is not None
    assert cascade.stages[0].tasks.keys() == {"sentiment", "fates"}
    assert cascade.report.texts == make_plan(toys / "toy.toml", toys / "data", tmp_path).corpus.held_out.sum()
    assert set(cascade.report.kept) == {"sentiment", "fates"}
    found = Engine.load(bundle.root, precision="fp32").predict(["acme oil warns", "bank oil beats"])
    assert [prediction.tasks["sentiment"].label for prediction in found] == ["negative", "positive"]


def test_in_exact_mode_only_pools_are_chosen_that_can_be_bounded(toys: Path, tmp_path: Path) -> None:
    bundle = train(toys, tmp_path / "out", EXACT)
    for task in bundle.manifest.tasks.values():
        assert task.pool.kind == "power"
        assert task.pool.exponent == 1
        assert task.calibrator.keeps_order
    texts = [f"{first} {word} oil" for first in ("acme", "bank", "gold") for word in ("falls", "beats", "up", "loss")]
    width, cascade = (Engine.load(bundle.root, precision="fp32", form=form) for form in ("width", "cascade"))
    labels = [[p.tasks["sentiment"].label for p in engine.predict(texts)] for engine in (width, cascade)]
    assert labels[0] == labels[1]
