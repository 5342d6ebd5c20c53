"""What a replay reads, what it writes, and what speaks against it. Pure: takes what the broker said, and ``now``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.events import format_instant
from worker.codec import to_instant, to_ms
from worker.errors import Misconfigured
from worker.kafka.connection import Place
from worker.kafka.stretch import Bounds, Found
from worker.settings import Settings, TopicSettings
from worker.topics import TopicSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """A replay: ``settings`` are those of its labeller and detector; records are from ``since``, before ``until``."""

    settings: Settings
    since: datetime
    until: datetime
    stretch: Sequence[Bounds]

    @property
    def raw(self) -> str:
        """The topic that is read."""
        return self.settings.topic_names.raw

    @property
    def bounds(self) -> Mapping[Place, Bounds]:
        """The stretch by place."""
        return {Place(self.raw, partition): bounds for partition, bounds in enumerate(self.stretch)}

    @property
    def records(self) -> int:
        """Records of the stretch, transaction markers counted as records."""
        return sum(bounds.end - bounds.start for bounds in self.stretch)

    @property
    def outputs(self) -> list[TopicSpec]:
        """The topics that are made and written."""
        return [spec for spec in self.settings.topic_specs if spec.name != self.raw]


def derive_settings(live: Settings, output_prefix: str, bundle: str | None, now: datetime) -> Settings:
    """The settings of a replay: outputs, groups and transactions of its own, the input of the live ones.

    The groups carry the time, so that no offset of an earlier replay is gone on from. The clock of a drained partition
    is not told by the feed, as in an archive: the replay knows where its stretch ends.

    Raises:
        Misconfigured: outputs would lie among the live topics, or the prefix is none.
    """
    try:
        topics = TopicSettings.model_validate(
            live.topics.model_dump() | {"prefix": output_prefix, "raw": live.topic_names.raw}
        )
    except ValidationError as error:
        raise Misconfigured(f"--output-prefix {output_prefix!r}: {error.errors()[0]['msg']}") from error
    engine = live.engine if bundle is None else live.engine.model_copy(update={"kind": "stack", "bundle": bundle})
    changes = {
        "topics": topics,
        "engine": engine,
        "group_prefix": f"{live.group_prefix}-replay-{now:%Y%m%dT%H%M%S}",
        "idle_clock": "wall",
    }
    replay = live.model_copy(update=changes)
    taken = {spec.name for spec in live.topic_specs} & {spec.name for spec in replay.topic_specs[1:]}
    if taken:
        raise Misconfigured(
            f"--output-prefix {output_prefix!r} names live topics ({', '.join(sorted(taken))}), which a replay must "
            "not touch: give another, such as --output-prefix replay."
        )
    return replay


def check_times(since: datetime, until: datetime, now: datetime) -> None:
    """Refuse a stretch that is empty, or not over yet.

    Raises:
        Misconfigured: says so.
    """
    if to_ms(since) >= to_ms(until):
        raise Misconfigured(f"--from {format_instant(since)} is not before --to {format_instant(until)}")
    if until > now:
        raise Misconfigured(f"--to {format_instant(until)} is still to come: a replay needs a stretch that is over")


def make_plan(settings: Settings, since: datetime, until: datetime, found: Sequence[Found]) -> Plan:
    """The plan, if the stretch can be read whole.

    Args:
        settings: of the replay.
        since: the first time that belongs to it.
        until: the first that no longer does.
        found: by partition, where that lies.

    Raises:
        Misconfigured: a part has expired or is held back, or nothing is there.
    """
    plan = Plan(settings, since, until, [each.bounds for each in found])
    oldest_ms = {
        partition: each.oldest_ms
        for partition, each in enumerate(found)
        if each.oldest_ms is not None and each.oldest_ms > to_ms(since)
    }
    if oldest_ms:
        left = ", ".join(f"{partition} from {format_instant(to_instant(at))}" for partition, at in oldest_ms.items())
        whole = format_instant(to_instant(max(oldest_ms.values())))
        raise Misconfigured(
            f"{plan.raw} has lost records after --from {format_instant(since)} to its retention; left are those of "
            f"partition {left} on. All partitions can be replayed --from {whole}"
        )
    for partition, each in enumerate(found):
        if each.stable < each.bounds.end:
            raise Misconfigured(
                f"an open transaction holds {plan.raw}-{partition} back at offset {each.stable}, and the stretch ends "
                f"at {each.bounds.end}: try again when it has ended"
            )
    if plan.records == 0:
        raise Misconfigured(
            f"{plan.raw} has no records from {format_instant(since)} to {format_instant(until)}; times are those of "
            "the records, and without a zone UTC"
        )
    return plan


def describe_view(settings: Settings) -> str:
    """The environment in which the other commands look at a replay's outputs."""
    return f"STACKNORM_TOPICS__PREFIX={settings.topics.prefix} STACKNORM_TOPICS__RAW={settings.topic_names.raw}"


def render_plan(plan: Plan) -> RenderableType:
    """For the terminal."""
    settings = plan.settings
    engine = settings.engine
    facts = Table(show_header=False, box=None, padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("reads", f"{plan.raw} from {format_instant(plan.since)} to before {format_instant(plan.until)}")
    facts.add_row("records", f"{plan.records:,}, transaction markers counted as records")
    facts.add_row("labels with", f"bundle {engine.bundle}" if engine.kind == "stack" else f"the {engine.kind} engine")
    facts.add_row("writes", ", ".join(spec.name for spec in plan.outputs))
    facts.add_row("groups", f"{settings.labeller_group}, {settings.detector_group}")
    facts.add_row("detector", _describe_learning(plan))
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("partition", "from offset", "to before", "records"):
        table.add_column(column, justify="right")
    for partition, (start, end) in enumerate(plan.stretch):
        table.add_row(str(partition), str(start), str(end), f"{end - start:,}")
    return Group(facts, Text(), table)


def _describe_learning(plan: Plan) -> str:
    if all(bounds.start == 0 for bounds in plan.stretch):
        return "from the start of the log: the alerts are those of a live detector that began there too"
    rules = plan.settings.rules
    begins = (
        f"begins with no baselines in the middle of the log: it learns for {rules.learning_days:g} days of news before "
        "anything fires"
        if rules.primed is None
        else "begins in the middle of the log, with the baselines of surge.primer if these labels are of its stack"
    )
    return f"{begins}, and its alerts need not be those of the live one"
