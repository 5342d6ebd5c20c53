"""The training config: what `stacknorm train CONFIG.toml` reads."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from stacknorm.bundle import Name
from stacknorm.errors import DataError
from stacknorm.frozen import Frozen
from stacknorm.labels import LabelSpace, label_space


class DataRecipe(Frozen):
    """One labelled file of the data directory."""

    file: str
    title: str
    licence: str
    task: Name
    labels: tuple[str, ...] = ()
    """What the integers 0, 1, ... in the file mean."""


class TaskRecipe(Frozen):
    """One task."""

    labels: tuple[str, ...]


class MemberRecipe(Frozen):
    """How one member is made; members that differ here disagree where it helps the pool."""

    name: Name
    seed: int
    rank: int = Field(16, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    """Before the heads; the layers keep the dropout of the base."""
    learning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(4, ge=1)
    pooling: Literal["mean", "cls"] = "mean"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weight_power: float = Field(0.0, ge=0, le=1)
    """Rows of a class of share s weigh s^-power: 0 leaves classes as they are, 1 balances them."""
    row_share: float = Field(1.0, gt=0, le=1)
    """Share of the training rows this member sees, drawn once by its seed."""


class Recipe(Frozen):
    """All of a training config."""

    name: Name
    languages: tuple[str, ...] = Field(min_length=1)
    base: str
    top_layers: int = Field(ge=1)
    """Layers that get adapters; those below stay frozen, so members share them and their states are computed once."""
    max_tokens: int = Field(128, ge=8)
    batch_tokens: int = Field(960, ge=32)
    """Padded tokens in a batch; best a number with many divisors."""
    weight_decay: float = Field(0.01, ge=0)
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.08
    """Share of each class kept for early stopping, pools and temperatures."""
    seed: int
    tasks: Mapping[Name, TaskRecipe] = Field(min_length=1)
    data: tuple[DataRecipe, ...] = Field(min_length=1)
    members: tuple[MemberRecipe, ...] = Field(min_length=1)

    def spaces(self) -> dict[str, LabelSpace]:
        """Task -> label space."""
        return {task: label_space(task, recipe.labels) for task, recipe in self.tasks.items()}


def load_recipe(path: Path) -> Recipe:
    """Read a training config.

    Raises:
        DataError: unreadable or malformed; names the field.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise DataError(f"{path} cannot be read as TOML: {exc}") from exc
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:5])
        raise DataError(f"{path} is not a training config: {problems}") from exc
