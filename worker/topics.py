"""The topics: their names, and how each must be set up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

MAX_MESSAGE_BYTES = 4 << 20
"""Of a dead letter, which holds a raw record in base64; larger than the broker's default."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics under one prefix; ``raw_name`` is a raw topic that lies elsewhere."""

    prefix: str = "news."
    raw_name: str | None = None

    @property
    def raw(self) -> str:
        """Items as producers write them."""
        return self.raw_name or f"{self.prefix}raw"

    @property
    def labelled(self) -> str:
        """Labelled events; partition p comes from raw partition p."""
        return f"{self.prefix}labelled"

    @property
    def progress(self) -> str:
        """Promises on the clock of each labelled partition."""
        return f"{self.prefix}progress"

    @property
    def dead(self) -> str:
        """Records that will never work."""
        return f"{self.prefix}dead"

    @property
    def alerts(self) -> str:
        """Revisions of alerts."""
        return f"{self.prefix}alerts"

    @property
    def trends(self) -> str:
        """Counts and mean sentiment of each key in windows of time."""
        return f"{self.prefix}trends"

    @property
    def actions(self) -> str:
        """What people did about alerts: acknowledged, silenced, noted."""
        return f"{self.prefix}actions"

    @property
    def notify_state(self) -> str:
        """What each receiver of notifications was told of each alert."""
        return f"{self.prefix}notify-state"

    @property
    def surge_state(self) -> str:
        """The changelog of the detector's shards."""
        return f"{self.prefix}surge-state"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic must be: its partitions and the settings that matter, under Kafka's own names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    counted_by: str = "topics.partitions"
    """The setting that says how many partitions."""
    unless_begun: str = "nothing is labelled yet"
    """When their number may still be changed."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """How a topic is on the broker."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


def plan_topics(topics: Topics, partitions: int, *, archive: bool, shards: int = 1) -> tuple[TopicSpec, ...]:
    """What `topics create` makes.

    Args:
        topics: their names.
        partitions: of raw, labelled and progress.
        shards: of the detector, each of which has a partition of its state.
        archive: old records will be replayed, so raw keeps records whatever their timestamps.
    """
    kept_30_days = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
    kept_90_days = {"cleanup.policy": "compact,delete", "retention.ms": str(90 * DAY_MS)}
    raw = {
        "cleanup.policy": "delete",
        "retention.ms": "-1" if archive else str(7 * DAY_MS),
        "message.timestamp.type": "CreateTime",
    }
    return (
        TopicSpec(topics.raw, partitions, raw),
        TopicSpec(topics.labelled, partitions, kept_30_days),
        TopicSpec(topics.progress, partitions, kept_30_days),
        TopicSpec(topics.dead, 1, kept_30_days | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}),
        TopicSpec(topics.alerts, 1, kept_90_days),
        TopicSpec(topics.trends, 1, kept_90_days),
        TopicSpec(topics.actions, 1, kept_90_days),
        TopicSpec(topics.notify_state, 1, kept_90_days),
        TopicSpec(
            topics.surge_state,
            shards,
            {"cleanup.policy": "compact", "segment.ms": str(HOUR_MS)},
            counted_by="surge.shards",
            unless_begun="the detector has not begun yet",
        ),
    )


def find_differences(spec: TopicSpec, state: TopicState | None) -> list[str]:
    """What is wrong with a topic, each with its mend; empty when it is as it must be."""
    if state is None:
        return [f"topic {spec.name} does not exist: run `stacknorm-worker topics create`"]
    differences = []
    if state.partitions != spec.partitions:
        differences.append(
            f"topic {spec.name} has {state.partitions} partitions, not {spec.partitions}: "
            f"set {spec.counted_by} to match if {spec.unless_begun}, else begin anew (docs/operations.md)"
        )
    for name, wanted in spec.config.items():
        found = state.config.get(name, "unset")
        if not _config_agrees(name, wanted, found):
            differences.append(
                f"topic {spec.name} has {name}={found}, not {wanted}: kafka-configs.sh --alter "
                f"--entity-type topics --entity-name {spec.name} --add-config '{name}=[{wanted}]'"
            )
    return differences


def describe_retention(state: TopicState) -> str:
    """How long a topic keeps its records, in words."""
    if "delete" not in state.config.get("cleanup.policy", "delete"):
        return "the newest of each key"
    retention_ms = int(state.config.get("retention.ms", "-1"))
    return "for ever" if retention_ms < 0 else f"{retention_ms / DAY_MS:g} days"


def _config_agrees(name: str, wanted: str, found: str) -> bool:
    if name == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    if name == "message.timestamp.type":  # LogAppendTime is fine live, and only an archive needs the producer's time
        return found in {wanted, "LogAppendTime"}
    if name == "retention.ms":  # keeping longer loses nothing
        return found == "-1" or (wanted != "-1" and found.lstrip("-").isdigit() and int(found) >= int(wanted))
    if name == "max.message.bytes":
        return found.isdigit() and int(found) >= int(wanted)
    if name == "segment.ms":
        return found.isdigit() and int(found) <= int(wanted)
    return found == wanted
