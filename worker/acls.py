"""What the broker must allow a principal, by what it does: the least, as data and as `kafka-acls.sh` commands."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from types import MappingProxyType

from worker.settings import Settings


class Duty(StrEnum):
    """What a principal does."""

    labeller = "labeller"
    detector = "detector"
    feed = "feed"
    subscriber = "subscriber"
    viewer = "viewer"
    responder = "responder"
    redrive = "redrive"
    notifier = "notifier"
    topics = "topics"


MEANINGS: Mapping[Duty, str] = MappingProxyType(
    {
        Duty.labeller: "`run --only labeller`",
        Duty.detector: "`run --only detector`",
        Duty.feed: "`feed`, and any producer of raw news",
        Duty.subscriber: "any consumer of labels, alerts and actions that reads partitions by number, without a group",
        Duty.viewer: "`check`, `topics describe`, `status`, `tail`, `alerts list`, `alerts show`, `alerts silences`, "
        "`dlq list`, `dlq show`, `dlq export`",
        Duty.responder: "all of `alerts`",
        Duty.redrive: "`dlq redrive`",
        Duty.notifier: "`notify`",
        Duty.topics: "`topics create`",
    }
)

READ, WRITE = ("Read",), ("Write",)
LOOK = ("Describe", "DescribeConfigs")  # whoever starts looks at all topics first

_ALL = ("raw", "labelled", "progress", "dead", "alerts", "actions", "notify_state", "surge_state")

# Read and Write imply Describe.
_TOPICS: Mapping[Duty, Mapping[str, tuple[str, ...]]] = {
    Duty.labeller: {
        "raw": READ,
        "labelled": READ + WRITE,
        "progress": READ + WRITE,
        "dead": WRITE,
        "surge_state": READ,
    },
    Duty.detector: {"labelled": READ, "progress": READ, "alerts": WRITE, "surge_state": READ + WRITE},
    Duty.feed: {"raw": WRITE},
    Duty.subscriber: {"labelled": READ, "alerts": READ, "actions": READ},
    Duty.viewer: dict.fromkeys(("raw", "labelled", "dead", "alerts", "actions", "surge_state"), READ),
    Duty.responder: {"alerts": READ, "actions": READ + WRITE},
    Duty.redrive: {"raw": WRITE, "dead": READ + WRITE},
    Duty.notifier: {"alerts": READ, "actions": READ, "notify_state": READ + WRITE},
    Duty.topics: dict.fromkeys(_ALL, ("Create",)),
}
_LOOKED_AT: Mapping[Duty, tuple[str, ...]] = {Duty.feed: ("raw",), Duty.subscriber: ()}


@dataclass(frozen=True, slots=True)
class Grant:
    """Operations on one resource, in Kafka's words; ``prefixed``: on all whose names begin so."""

    resource: str
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False


def list_grants(duty: Duty, settings: Settings) -> list[Grant]:
    """The least that this duty needs, under these settings."""
    return [*_on_topics(duty, settings), *_on_groups(duty, settings), *_on_transactions(duty, settings)]


def _on_topics(duty: Duty, settings: Settings) -> Iterator[Grant]:
    for topic in _ALL:
        used = _TOPICS[duty].get(topic, ())
        looked_at = topic in _LOOKED_AT.get(duty, _ALL)
        implied = {"Describe"} if {*used} & {"Read", "Write"} else set()
        operations = used + tuple(each for each in LOOK if looked_at and each not in implied)
        if operations:
            yield Grant("topic", getattr(settings.topic_names, topic), operations)


def _on_groups(duty: Duty, settings: Settings) -> Iterator[Grant]:
    groups = {Duty.labeller: settings.labeller_group, Duty.detector: settings.detector_group}
    if duty in groups:
        yield Grant("group", groups[duty], READ)
    if duty is Duty.notifier:
        yield Grant("group", f"{settings.group_prefix}-notify-", READ, prefixed=True)
    if duty is Duty.viewer:
        yield from (Grant("group", group, ("Describe",)) for group in groups.values())


def _on_transactions(duty: Duty, settings: Settings) -> Iterator[Grant]:
    if duty is Duty.labeller and settings.exactly_once:
        yield Grant("transactional-id", f"{settings.labeller_group}-", WRITE, prefixed=True)
    if duty is Duty.detector:
        yield Grant("transactional-id", f"{settings.detector_group}-shard-", WRITE, prefixed=True)
    if duty is Duty.redrive:
        yield Grant("transactional-id", f"{settings.group_prefix}-redrive", WRITE)


def render_commands(grants: Iterable[Grant], principal: str, bootstrap_servers: str) -> list[str]:
    """`kafka-acls.sh` lines that grant them; each line names the resources on which the same is allowed."""
    lines = []
    ordered = sorted(grants, key=_what)
    for (resource, prefixed, operations), alike in groupby(ordered, key=_what):
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--command-config", "admin.properties"]
        words += ["--add", "--allow-principal", principal]
        words += [word for operation in operations for word in ("--operation", operation)]
        words += ["--resource-pattern-type", "prefixed"] if prefixed else []
        words += [word for grant in alike for word in (f"--{resource}", grant.name)]
        lines.append(shlex.join(words))
    return lines


def _what(grant: Grant) -> tuple[str, bool, tuple[str, ...]]:
    return grant.resource, grant.prefixed, grant.operations


def render_table(settings: Settings) -> str:
    """All duties and their grants as a Markdown table."""
    rows = ["| duty | resource | operations |", "|---|---|---|"]
    for duty in Duty:
        title = f"**{duty}**: {MEANINGS[duty]}"
        for grant in list_grants(duty, settings):
            name = grant.name + ("*" if grant.prefixed else "")
            rows.append(f"| {title} | {grant.resource} `{name}` | {', '.join(grant.operations)} |")
            title = ""
    return "\n".join(rows)
