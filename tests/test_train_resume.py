from pathlib import Path

import pytest
import torch
from rich.console import Console

from stacknorm.training.checkpoint import Checkpoint, Standing, load_checkpoint, save_checkpoint
from stacknorm.training.plan import make_plan, whole_jobs
from stacknorm.training.run import run_jobs
from toy_training import HEAD, MATTER, MOOD, ONE, quiet, write_toys

FULL = """
[[members]]
name = "full"
mode = "full"
init = "random(3)"
seed = 2
learning_rate = 5e-3
"""


class KilledError(Exception):
    pass


class Killing(Console):
    """Kills a training when it reports an epoch, before that epoch is kept."""

    def __init__(self, words: str) -> None:
        super().__init__(force_terminal=False)
        self.words = words

    def print(self, *objects: object, **options: object) -> None:
        if str(objects[0]).startswith(self.words):
            raise KilledError


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    write_toys(root)
    # Dropout draws random numbers at each step: they too must go on where they were.
    head = HEAD.replace("epochs = 2", "epochs = 3").replace("dropout = 0.0", "dropout = 0.1")
    (root / "toy.toml").write_text(head + MOOD + MATTER + ONE + FULL)
    return root


def run(root: Path, out: Path, console: Console | None = None) -> dict[str, bytes]:
    """Train; gives every file of every result."""
    plan = make_plan(root / "toy.toml", root / "data", out)
    jobs = whole_jobs(plan)
    run_jobs(plan, jobs, console or quiet())
    return {
        f"{job.member.name}/{file.name}": file.read_bytes()
        for job in jobs
        for file in sorted(job.folder.iterdir())
        if file.name != "cost.json"
    }


def test_a_training_killed_after_every_epoch_ends_with_the_weights_of_an_undisturbed_one(
    toys: Path, tmp_path: Path
) -> None:
    undisturbed = run(toys, tmp_path / "undisturbed")
    for words in ("one: epoch 2", "one: epoch 3", "full: epoch 1", "full: epoch 3"):
        with pytest.raises(KilledError):
            run(toys, tmp_path / "killed", Killing(words))
    assert list((tmp_path / "killed" / ".training").glob("full-*.checkpoint"))
    console = quiet()
    went_on = run(toys, tmp_path / "killed", console)
    said = console.export_text()
    assert "full: epoch 3" in said
    assert "full: epoch 2" not in said
    assert "one: epoch" not in said
    assert went_on == undisturbed
    assert not list((tmp_path / "killed" / ".training").glob("*.checkpoint*"))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimiser = torch.optim.AdamW([weight])
    torch.autograd.backward(weight.sum())
    optimiser.step()
    written = Checkpoint(
        Standing(2, 1, 0.1 + 0.2, 3.5),
        {"a": weight},
        {"a": weight},
        optimiser.state_dict(),
        {"last_epoch": 7, "phases": [1e-3]},
    )
    save_checkpoint(tmp_path / "deep" / "one.checkpoint", written)
    read = load_checkpoint(tmp_path / "deep" / "one.checkpoint")
    assert read.standing == written.standing
    assert read.schedule == written.schedule
    assert torch.equal(read.now["a"], weight)
    assert torch.equal(read.optimiser["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])
    assert read.optimiser["param_groups"][0]["lr"] == optimiser.param_groups[0]["lr"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.checkpoint"]


def test_patience_ends_a_training_that_gets_no_better(toys: Path, tmp_path: Path) -> None:
    config = HEAD.replace("learning_rate = 2e-2", "learning_rate = 1e-12").replace(
        "epochs = 2", "epochs = 9\npatience = 1"
    )
    (toys / "patient.toml").write_text(config + MOOD + ONE)
    plan = make_plan(toys / "patient.toml", toys / "data", tmp_path)
    console = quiet()
    run_jobs(plan, whole_jobs(plan), console)
    said = console.export_text()
    assert "one: epoch 2" in said
    assert "one: epoch 9" not in said
