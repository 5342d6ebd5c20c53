import json
from pathlib import Path

import numpy as np
import pytest

from stacknorm.bundle import load_bundle
from stacknorm.engine import Engine
from stacknorm.errors import BundleError, DataError
from stacknorm.training.finetune import read_answers
from stacknorm.training.plan import make_plan, waiting_folders, whole_jobs
from stacknorm.training.run import run_jobs
from stacknorm.training.train import train_bundle
from tiny_bases import write_base
from toy_training import HEAD, MATTER, MOOD, ONE, quiet, write_toys

TWO = """
[[members]]
name = "two"
seed = 2
rank = 2
pooling = "cls"
label_smoothing = 0.1
class_weight_power = 0.5
row_share = 0.9
head_bias = "prior"
"""
WHOLE = """
[[members]]
name = "whole"
base = "other"
mode = "full"
learning_rate = 5e-3
tasks = ["sentiment"]
seed = 3
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    write_toys(root)
    write_base(root / "other", "distilbert", seed=4)
    (root / "toy.toml").write_text(HEAD.replace("epochs = 2", "epochs = 5") + MOOD + MATTER + ONE + TWO + WHOLE)
    (root / "short.toml").write_text(HEAD.replace("epochs = 2", "epochs = 1") + MOOD + MATTER + ONE + TWO)
    return root


def train(root: Path, out: Path, config: str = "short.toml") -> str:
    console = quiet()
    train_bundle(root / config, root / "data", out, console)
    return console.export_text()


@pytest.fixture(scope="module")
def trained(toys: Path) -> Path:
    """A bundle of members with adapters on one base and one with whole layers on another; bases lie beside it."""
    out = toys / "out"
    (toys / "said.txt").write_text(train(toys, out, "toy.toml"))
    for name in ("base", "other"):
        (out / name).symlink_to(toys / name)
    return out


def test_training_gives_a_bundle_that_has_learnt_and_says_how_well(trained: Path) -> None:
    engine = Engine.load(trained, precision="fp32")
    bad, good = engine.predict(["acme oil warns", "bank oil beats"])
    assert bad.tasks["sentiment"].label == "negative"
    assert good.tasks["sentiment"].label == "positive"
    manifest = load_bundle(trained).manifest
    assert manifest.scores["matter"]["stack"]["accuracy"].value > 0.8
    assert manifest.training is not None
    assert {row.licence for row in manifest.training.data} == {"CC0"}
    card = (trained / "MODEL_CARD.md").read_text()
    assert "Toy moods" in card
    assert "stacknorm train train.toml" in card
    assert not (trained / ".training").exists()


def test_an_adapter_names_its_base_as_the_config_does_and_not_where_it_lay(trained: Path) -> None:
    config = json.loads((trained / "one" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert str(trained.parent) not in (trained / "bundle.json").read_text()


def test_every_epoch_is_told_in_one_line(trained: Path) -> None:
    said = (trained.parent / "said.txt").read_text()
    assert "3 of 3 trainings to do" in said
    assert sum(line.startswith("one: epoch ") for line in said.splitlines()) == 5
    assert "one: epoch 5" in said
    assert "MB in memory" in said


def test_a_member_of_whole_layers_ships_a_base_of_its_own_and_answers_only_its_tasks(trained: Path) -> None:
    bundle = load_bundle(trained)
    whole = bundle.manifest.members[2]
    assert whole.base.references == ("whole",)
    assert set(whole.heads) == {"sentiment"}
    assert bundle.base_directory(whole) == trained / "whole"
    assert bundle.manifest.members_of("matter") == ("one", "two")


def test_the_engine_says_of_held_out_texts_what_the_members_said_when_they_were_trained(
    toys: Path, tmp_path: Path
) -> None:
    plan = make_plan(toys / "toy.toml", toys / "data", tmp_path / "out")
    jobs = whole_jobs(plan)
    run_jobs(plan, jobs, quiet())
    then = [read_answers(job.folder) for job in jobs]
    train(toys, tmp_path / "out", "toy.toml")
    for name in ("base", "other"):
        (tmp_path / "out" / name).symlink_to(toys / name)
    engine = Engine.load(tmp_path / "out", precision="fp32")
    for task, members in (("sentiment", 3), ("matter", 2)):
        rows = plan.corpus.rows(held_out=True, task=task)
        now = engine.member_probabilities([plan.corpus.examples[row].text for row in rows.tolist()])[task]
        assert len(now) == members
        for member in range(members):
            # Weights are shipped in fp16, states of frozen layers were kept in bf16.
            assert np.abs(now[member] - then[member][task]).max() < 0.05


def test_the_same_seeds_give_the_same_members_to_the_bit(toys: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(toys, tmp_path / name)
    first, second = ((tmp_path / name / "one" / "adapter_model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_member_trained_elsewhere_is_taken_over_from_its_waiting_folder(toys: Path, tmp_path: Path) -> None:
    def stop_before_the_bundle(folder: Path) -> dict[str, Path]:
        return waiting_folders(toys / "short.toml", toys / "data", folder)

    here, there = stop_before_the_bundle(tmp_path / "here"), stop_before_the_bundle(tmp_path / "there")
    assert {name: path.name for name, path in here.items()} == {name: path.name for name, path in there.items()}
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text((toys / "short.toml").read_text().replace('title = "Toy moods"', 'title = "Moods"'))
    (tmp_path / "base").symlink_to(toys / "base")
    assert waiting_folders(elsewhere, toys / "data", tmp_path / "here") == here
    other_rank = elsewhere.read_text().replace("rank = 4", "rank = 5")
    elsewhere.write_text(other_rank)
    changed = waiting_folders(elsewhere, toys / "data", tmp_path / "here")
    assert changed["one"] != here["one"]
    assert changed["two"] == here["two"]


def test_a_base_is_found_in_the_first_place_that_has_the_weights_meant(toys: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "altered", seed=9)
    digest = make_plan(toys / "short.toml", toys / "data", tmp_path).bases["one"].files["model.safetensors"]
    config = tmp_path / "mirrors.toml"
    places = f'base = ["nowhere", "altered", "{toys / "base"}"]\nweights_sha256 = "{digest}"'
    config.write_text(HEAD.replace('base = "base"', places) + MOOD + ONE)
    assert make_plan(config, toys / "data", tmp_path).bases["one"].root == toys / "base"
    config.write_text(config.read_text().replace(str(toys / "base"), "altered"))
    with pytest.raises(BundleError, match="expected sha256"):
        make_plan(config, toys / "data", tmp_path)


def test_more_layers_than_a_base_has_are_refused(toys: Path, tmp_path: Path) -> None:
    (toys / "deep.toml").write_text(HEAD.replace("top_layers = 2", "top_layers = 5") + MOOD + ONE)
    with pytest.raises(DataError, match="no more than 4 layers"):
        train(toys, tmp_path, "deep.toml")


def test_a_run_that_was_stopped_goes_on_with_the_members_that_are_missing(toys: Path, tmp_path: Path) -> None:
    plan = make_plan(toys / "short.toml", toys / "data", tmp_path)
    run_jobs(plan, whole_jobs(plan)[:1], quiet())
    said = train(toys, tmp_path)
    assert "1 of 2 trainings to do" in said
    assert "one: epoch" not in said
    assert "two: epoch 1" in said
