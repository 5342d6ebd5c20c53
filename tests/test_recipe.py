import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stacknorm.bundle import WindowSpec
from stacknorm.errors import DataError
from stacknorm.training.recipe import (
    CascadeRecipe,
    ChannelRecipe,
    DataRecipe,
    MemberRecipe,
    Range,
    Recipe,
    SearchRecipe,
    TaskRecipe,
    load_recipe,
)
from toy_training import FATES, HEAD, MOOD, ONE, THEMES

ROOT = Path(__file__).parent.parent
TABLES = (Recipe, WindowSpec, TaskRecipe, DataRecipe, MemberRecipe, ChannelRecipe, CascadeRecipe, SearchRecipe, Range)


def load(text: str, root: Path) -> Recipe:
    (root / "toy.toml").write_text(text)
    return load_recipe(root / "toy.toml")


def test_what_stands_at_the_top_level_is_every_members_default(tmp_path: Path) -> None:
    two = '[[members]]\nname = "two"\nseed = 2\nbase = ["other", "mirror"]\nrank = 8\nmode = "full"\n'
    one, other = load(HEAD + MOOD + ONE + two, tmp_path).members
    assert (one.base, one.rank, one.mode, one.learning_rate) == (("base",), 4, "lora", 2e-2)
    assert (other.base, other.rank, other.mode, other.learning_rate) == (("other", "mirror"), 8, "full", 2e-2)
    assert (one.weight_decay, one.patience) == (0.01, None)


def test_a_member_has_heads_for_all_tasks_unless_it_names_some(tmp_path: Path) -> None:
    two = '[[members]]\nname = "two"\nseed = 2\ntasks = ["fates"]\n'
    recipe = load(HEAD + MOOD + FATES + ONE + two, tmp_path)
    assert [recipe.tasks_of(member) for member in recipe.members] == [("sentiment", "fates"), ("fates",)]


def test_windows_overlap_by_half_at_most(tmp_path: Path) -> None:
    windows = "[windows]\noverlap_tokens = {}\nmax_windows = 3\n"
    assert load(HEAD + windows.format(8) + MOOD + ONE, tmp_path).windows == WindowSpec(overlap_tokens=8, max_windows=3)
    with pytest.raises(DataError, match="windows of 16 tokens cannot overlap by 9: half of that at most"):
        load(HEAD + windows.format(9) + MOOD + ONE, tmp_path)


@pytest.mark.parametrize("config", [*ROOT.glob("stacknorm/bundles/*/train.toml"), ROOT / "docs" / "sentfin_folds.toml"])
def test_the_configs_that_are_shipped_can_be_read(config: Path) -> None:
    recipe = load_recipe(config)
    assert recipe.held_out == 0.08
    assert recipe.seed == 1987


@pytest.mark.parametrize(
    ("given", "slip", "message"),
    [
        ("rank = 4", "rnk = 4", "rnk: Extra"),
        ("seed = 5", "sed = 5", "sed: Extra"),
        ("[[data]]", "[[data", "TOML"),
        ('name = "one"', 'name = "one"\ninit = "random(1)"', "init random.1. needs mode 'full'"),
        ('name = "one"', 'name = "one"\ninit = "zeros"', "members.0.init: String should match"),
        ('name = "one"', 'name = "one"\ntasks = ["mood"]', "no such tasks: mood"),
        ('task = "sentiment"', 'task = "mood"', "no such tasks: mood"),
        ("seed = 1\n", 'seed = 1\n[[members]]\nname = "one"\nseed = 2\n', "two members share a name"),
        ("seed = 1\n", 'seed = 1\n[search]\nmember = "six"\nspace = { rank = [1] }\n', "search: no member six"),
        ("seed = 1\n", "seed = 1\n[search]\nspace = { rank = { low = 2, high = 1 } }\n", "no range from 2.0 to 1.0"),
    ],
)
def test_a_config_with_a_slip_names_what_is_wrong(given: str, slip: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load((HEAD + MOOD + ONE).replace(given, slip, 1), tmp_path)


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        ('[cascade]\nstages = [["one"]]\n', "cascade.stages: Tuple should have at least 2 items"),
        ('[cascade]\nstages = [["one"], ["one"]]\n', "stages of the cascade do not name each of one once"),
        ('[cascade]\nstages = [["one"], []]\n', "a cascade answers tasks of kind single and entity; themes is multi"),
        ('[[channels]]\nname = "both"\nmembers = ["one", "six"]\n', "channel both joins unknown members: six"),
        ('[[channels]]\nname = "one"\nmembers = ["one", "one"]\n', "two members share a name: one, one"),
    ],
)
def test_forms_that_do_not_fit_the_members_are_refused(forms: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(HEAD + MOOD + THEMES + ONE + forms, tmp_path)


def test_a_task_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no member has a head for fates"):
        load(HEAD + MOOD + FATES + ONE + 'tasks = ["sentiment"]\n', tmp_path)


def rows_of(model: type[BaseModel]) -> Iterator[str]:
    """The documentation's table of a part of the config, a row a field."""
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no docstring"
        default = "needed" if field.default is PydanticUndefined else f"`{toml(field.default)}`"
        yield f"| `{name}` | {default} | {' '.join(field.description.split())} |"


def toml(value: object) -> str:
    if value is None or value == ():
        return "none" if value is None else "[]"
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)


@pytest.mark.parametrize("model", TABLES)
def test_the_documentation_explains_every_field_in_the_words_of_the_code(model: type[BaseModel]) -> None:
    written = (ROOT / "docs/training.md").read_text().splitlines()
    missing = [row for row in rows_of(model) if row not in written]
    assert not missing, "docs/training.md lacks:\n" + "\n".join(missing)


def test_every_config_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    text = (ROOT / "docs/training.md").read_text()
    configs = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[members]]" in block]
    assert configs
    for config in configs:
        assert tomllib.loads(config)
        assert load(config, tmp_path).members
