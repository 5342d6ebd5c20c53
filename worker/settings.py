"""One frozen Settings, from defaults, then a TOML file, then the environment; the only reader of both.

An environment variable is ``STACKNORM_`` and the path to the setting, nested with ``__``:
``STACKNORM_KAFKA__BOOTSTRAP_SERVERS=broker:9092``. Kafka's settings keep Kafka's names and units.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import to_json
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from worker.breaker import BreakerRules
from worker.codec import InputRules
from worker.errors import Misconfigured
from worker.kafka_settings import KafkaSettings, Positive, Section
from worker.primer import Primer, read_primer
from worker.surge.keys import Target, Watchlist
from worker.surge.rules import Rules
from worker.surge.versions import STATE, Versions
from worker.topics import Topics, TopicSpec, plan_topics
from worker.units import BacklogLimits, UnitLimits

FENCE_MARGIN_MS = 10_000  # the broker looks for transactions past their time-out every ten seconds


class TopicSettings(Section):
    """Names and sizes of the topics."""

    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]*$", max_length=200)] = "news."
    """In front of every topic's name."""
    raw: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$", max_length=249)] | None = None
    """Whole name of the raw topic where it is not the prefix and ``raw``: other outputs of the same input."""
    partitions: Annotated[int, Field(gt=0, le=1000)] = 6
    """Of the raw, labelled and progress topics; it cannot change later."""
    replication_factor: Annotated[int, Field(gt=0, le=10)] = 1
    """Copies of each topic that `topics create` asks for; 3 in production."""


class EngineSettings(Section):
    """What labels the texts."""

    kind: Literal["stack", "deterministic"] = "stack"
    """``deterministic`` labels by a hash of the text, for fault tests; every event then names it as its stack."""
    bundle: str = "finance"
    """A bundle that comes with the package, or a folder."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the stack runs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` takes bf16 where the hardware computes in it; workers of one group should agree."""
    form: Literal["auto", "width", "cascade"] = "auto"
    """``width`` runs all members on every text, ``cascade`` stops early; ``auto`` is what the bundle has."""
    member_timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """A member that takes longer for a batch is left out of it; none: it is waited for."""
    language_guard: bool = True
    """Abstain from texts that are certainly in a language the bundle does not know."""
    aliases: Path | None = None
    """A table of names and symbols of your own, which goes before the packaged one."""
    deterministic_seconds_per_text: Annotated[float, Field(ge=0)] = 0.0
    """Slows the deterministic engine down."""


class UnitSettings(Section):
    """How much one transaction moves, and how much may wait."""

    max_records: Positive = 2000
    """Raw records in one transaction."""
    max_bytes: Positive = 1 << 20
    """Bytes of raw records in one transaction."""
    max_delay_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long a unit may wait to grow when there is little to do."""
    max_seconds: Annotated[float, Field(gt=0)] = 5.0
    """How long labelling a unit should take: where the stack is slower, units get fewer records."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A worker that labels one unit for so long ends; at half of it, or of a backlog unmoved, ``/livez`` fails."""
    backlog_high_bytes: Positive = 8 << 20
    """Fetching stops above this."""
    backlog_low_bytes: Positive = 4 << 20
    """Fetching goes on below this."""
    backlog_high_records: Positive = 20_000
    """Fetching stops above this too."""
    backlog_low_records: Positive = 10_000
    """Fetching goes on below this."""

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.max_seconds > self.timeout_seconds / 4:
            raise ValueError(
                f"max_seconds = {self.max_seconds:g} is over a quarter of timeout_seconds = {self.timeout_seconds:g}"
            )
        for low, high in (("backlog_low_bytes", "backlog_high_bytes"), ("backlog_low_records", "backlog_high_records")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is over {high} = {getattr(self, high)}")
        return self


class InputSettings(Section):
    """How raw records are read."""

    format: Literal["json", "text"] = "json"
    """``json``: a NewsItem; ``text``: the record's value is the text."""
    max_value_bytes: Positive = 1 << 20
    """A longer value is a dead letter."""
    max_text_chars: Positive = 100_000
    """A longer text is a dead letter."""


class DeadLetterSettings(Section):
    """When a worker stops instead of writing dead letters."""

    window_records: Positive = 1000
    """How many of the last records are looked at; heartbeats are not counted."""
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A worker stops before more than this share of them become dead letters; 0: never."""
    min_letters: Positive = 100
    """It does not stop for fewer dead letters than these."""

    @model_validator(mode="after")
    def _window_holds_enough(self) -> Self:
        if self.min_letters > self.window_records:
            raise ValueError(f"min_letters = {self.min_letters} is over window_records = {self.window_records}")
        return self


class WatchlistSettings(Section):
    """A set of entities and topics that counts as one key."""

    entities: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    budget_a_day: Annotated[float, Field(gt=0)] | None = None
    negatives_a_day: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        if not (self.entities or self.topics):
            raise ValueError("it has neither entities nor topics")
        return self


SENSITIVITIES: Mapping[str, float] = MappingProxyType({"fewer": 0.5, "balanced": 2.0, "more": 8.0})
"""False alerts a day of each preset."""


class SurgeSettings(Section):
    """The alarm: how many false ones a day are worth it."""

    sensitivity: Literal["fewer", "balanced", "more"] = "balanced"
    """How many alerts: a budget of 0.5, 2 or 8 false ones a day."""
    budget_a_day: Annotated[float, Field(gt=0)] | None = None
    """F, instead of ``sensitivity``: the false alerts a day the desk accepts, over all keys together."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("sentiment=negative",)
    """What is watched for, each apart: labels of the sentiment or the topic, such as ``topic=Opinion``."""
    watchlists: dict[Annotated[str, Field(pattern=r"^[\w .-]{1,64}$")], WatchlistSettings] = {}  # noqa: RUF012 -- pydantic copies it
    """Sets that are one key: ``[surge.watchlists.NAME]`` with ``entities`` or ``topics``, and a ``budget_a_day``."""
    negatives_a_day: Annotated[float, Field(gt=0)] = 20_000.0
    """V: negative stories a day, each counted once for each of its keys; sets the thresholds together with F."""
    trends: bool = True
    """Whether counts and mean sentiment of each key are written to the trends topic: 5 minutes, hours, days."""
    primer: Path | None = None
    """What `backfill` learned from an archive: the detector starts from it instead of learning for three days."""
    shards: Annotated[int, Field(gt=0, le=64)] = 1
    """Parts that the detector's keys are shared out in, each run by one process; it cannot change later."""
    state_version: Annotated[int, Field(ge=STATE.oldest, le=STATE.newest)] = STATE.oldest
    """Of the state's records that are written; the newest once no worker of the last version runs."""

    @field_validator("targets")
    @classmethod
    def _are_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for text in targets:
            Target.parse(text)
        return targets


class HttpSettings(Section):
    """Metrics and health over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless you say otherwise."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes a free port and logs it."""


class LogSettings(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["json", "console"] = "json"
    """``console`` is for people."""


class Settings(BaseSettings):
    """All settings of a worker."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="STACKNORM_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    processing_guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """``at_least_once`` saves the transactions; a crash then repeats events (same event_id)."""
    idle_clock: Literal["wall", "data"] = "wall"
    """What moves the clock of a partition without records: time, or (for archives) only the feed's heartbeats."""
    group_prefix: Annotated[str, Field(min_length=1)] = "stacknorm"
    """Consumer groups are ``<prefix>-labeller`` and ``<prefix>-detector``."""
    instance: Annotated[str, Field(default_factory=lambda: secrets.token_hex(4), min_length=1)]
    """Tells a group's workers apart. Random; a stable one (a pod's ordinal) makes recovery faster."""
    shutdown_grace_seconds: Annotated[float, Field(gt=0)] = 25.0
    """How long a stopping worker may drain."""
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    input: InputSettings = InputSettings()
    engine: EngineSettings = EngineSettings()
    unit: UnitSettings = UnitSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    surge: SurgeSettings = SurgeSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the signature is the library's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def to_environment(self) -> dict[str, str]:
        """The environment variables that give another process these settings, secrets too; none for what is not set."""
        found = {each.variable: _look_up(self, each.name) for each in describe_settings()}
        return {variable: _reveal(value) for variable, value in found.items() if value is not None}

    @property
    def exactly_once(self) -> bool:
        """Whether outputs and offsets share a transaction."""
        return self.processing_guarantee == "exactly_once"

    @property
    def labeller_group(self) -> str:
        """The consumer group on the raw topic."""
        return f"{self.group_prefix}-labeller"

    @property
    def detector_group(self) -> str:
        """The consumer group that shares out the detector's shards."""
        return f"{self.group_prefix}-detector"

    @property
    def topic_names(self) -> Topics:
        """The names of the topics."""
        return Topics(self.topics.prefix, self.topics.raw)

    @property
    def topic_specs(self) -> tuple[TopicSpec, ...]:
        """How the topics must be."""
        archive = self.idle_clock == "data"
        return plan_topics(self.topic_names, self.topics.partitions, archive=archive, shards=self.surge.shards)

    @property
    def unit_limits(self) -> UnitLimits:
        """When a unit is full."""
        return UnitLimits(
            self.unit.max_records, self.unit.max_bytes, self.unit.max_delay_seconds, self.unit.max_seconds
        )

    @property
    def backlog_limits(self) -> BacklogLimits:
        """When fetching stops, and goes on."""
        return BacklogLimits(
            self.unit.backlog_high_bytes,
            self.unit.backlog_low_bytes,
            self.unit.backlog_high_records,
            self.unit.backlog_low_records,
        )

    @property
    def input_rules(self) -> InputRules:
        """How raw records are read."""
        return InputRules(self.input.format, self.input.max_value_bytes, self.input.max_text_chars)

    @property
    def breaker_rules(self) -> BreakerRules:
        """When so many dead letters stop a worker."""
        return BreakerRules(
            self.dead_letters.window_records, self.dead_letters.max_share, self.dead_letters.min_letters
        )

    @property
    def state_versions(self) -> Versions:
        """Which versions of the state's records are read and written."""
        return replace(STATE, writes=self.surge.state_version)

    @property
    def rules_without_primer(self) -> Rules:
        """The detector's rules before any archive has taught it."""
        surge = self.surge
        return Rules(
            targets=tuple(Target.parse(text) for text in surge.targets),
            watchlists=tuple(Watchlist(name, **dict(told)) for name, told in sorted(surge.watchlists.items())),
            negatives_a_day=surge.negatives_a_day,
            budget_a_day=surge.budget_a_day or SENSITIVITIES[surge.sensitivity],
        )

    @cached_property
    def primer(self) -> Primer | None:
        """What an archive has taught the detector, read once.

        Raises:
            Misconfigured: it cannot be.
        """
        return None if self.surge.primer is None else read_primer(self.surge.primer)

    @cached_property
    def rules(self) -> Rules:
        """The detector's rules, with its primer's if it has one.

        Raises:
            Misconfigured: it cannot be.
        """
        rules = self.rules_without_primer
        return rules if self.primer is None else self.primer.apply(rules)


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from defaults, the file, the environment and ``overrides``, later ones winning.

    Raises:
        Misconfigured: names each wrong setting, its value and what is wrong.
    """
    if path is not None and not path.is_file():
        raise Misconfigured(f"settings file {path} does not exist")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FromFile(**overrides)
    except ValidationError as error:
        raise Misconfigured(_explain(error)) from error
    except ValueError as error:  # TOML that does not parse, or an environment value that is no JSON
        raise Misconfigured(f"settings cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Described:
    """A setting as documentation shows it."""

    name: str
    default: str
    meaning: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "STACKNORM_" + self.name.upper().replace(".", "__")


def describe_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Described]:
    """Every setting, in the order of the model."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            yield from describe_settings(section, f"{prefix}{name}.")
        else:
            default = "random" if field.default_factory else _spell(field.default)
            secret = SecretStr in get_args(field.annotation)
            yield Described(prefix + name, default, field.description or "", secret)


def _look_up(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _reveal(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return _spell(value)


def _spell(value: object) -> str:
    return to_json(value).decode() if isinstance(value, tuple | dict) else str(value)


def _explain(error: ValidationError) -> str:
    """What is wrong, setting by setting; a value is shown only where it can be no secret."""
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        hidden = problem["type"] in {"missing", "value_error"} or _may_be_secret(name)
        given = "" if hidden else f" (given: {problem['input']!r})"
        lines.append(f"{name or 'settings'}: {problem['msg']}{given}")
    return "; ".join(lines)


def _may_be_secret(name: str) -> bool:
    """Whether a setting may hold a secret: it is one, it is a table, or it is none of ours, such as a misspelt one."""
    described = {each.name: each.secret for each in describe_settings()}
    return described.get(name, True)
