import tomllib
from pathlib import Path

import pytest

from stacknorm.errors import DataError
from stacknorm.training.recipe import load_recipe
from stacknorm.training.search import search_recipe
from toy_training import HEAD, MOOD, ONE, quiet, write_toys

SEARCH = """
[search]
epochs = 2
row_share = 0.5
space = { learning_rate = { low = 1e-4, high = 1e-1, log = true }, rank = [2, 4], top_layers = { low = 1, high = 2 } }
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    write_toys(root)
    (root / "toy.toml").write_text(HEAD + MOOD + ONE + SEARCH)
    return root


# Optuna calls its journal experimental.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_search_that_was_stopped_goes_on_and_writes_a_config_that_trains(toys: Path, tmp_path: Path) -> None:
    search_recipe(toys / "toy.toml", toys / "data", tmp_path, 2, quiet())
    console = quiet()
    best = search_recipe(toys / "toy.toml", toys / "data", tmp_path, 3, console)
    said = console.export_text()
    assert "trial 2: epoch 1" in said
    assert "trial 1: epoch" not in said
    table = said[said.index("search of one") :]
    for column in ("trial", "learning_rate", "rank", "top_layers", "held-out NLL"):
        assert column in table
    found, given = load_recipe(best), load_recipe(toys / "toy.toml")
    assert found.members[0].rank in {2, 4}
    assert 1e-4 <= found.members[0].learning_rate <= 1e-1
    assert found.members[0].base == (str(toys / "base"),)
    assert (found.members[0].epochs, found.members[0].row_share) == (2, 1.0)
    assert (found.tasks, found.data, found.search) == (given.tasks, given.data, given.search)
    assert tomllib.loads(best.read_text())["name"] == "toy"
    assert not (tmp_path / ".training").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{ rank = [0, 4] }", "rank cannot be 0"),
        ("{ dropout = { low = 0.0, high = 1.0 } }", "dropout cannot be 1"),
        ("{ rank = [2.5] }", "rank cannot be 2.5"),
    ],
)
def test_a_space_beyond_what_a_field_allows_is_refused_before_any_trial(
    space: str, message: str, toys: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text(HEAD + MOOD + ONE + f"[search]\nspace = {space}")
    (tmp_path / "base").symlink_to(toys / "base")
    with pytest.raises(DataError, match=message):
        search_recipe(tmp_path / "bad.toml", toys / "data", tmp_path / "out", 1, quiet())


def test_a_config_without_a_search_says_so(toys: Path, tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text(HEAD + MOOD + ONE)
    (tmp_path / "base").symlink_to(toys / "base")
    with pytest.raises(DataError, match=r"no \[search\] table"):
        search_recipe(tmp_path / "none.toml", toys / "data", tmp_path / "out", 1, quiet())
