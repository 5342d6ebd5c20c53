"""What must be in the output topics, recomputed from the raw records, and how what is there differs from it. Pure.

Outputs are compared without wall-clock fields. Every difference is a named violation; none means equal.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from schemas.events import AlertEvent, AlertRef, DeadLetter, Event, InputRef, LabelledEvent, Progress, TrendEvent
from worker.codec import InputRules
from worker.detector import run_through
from worker.labeller import Engine, label_unit
from worker.records import Record
from worker.surge.keys import Key
from worker.surge.ownership import find_owner
from worker.surge.revision import alert_id
from worker.surge.rules import Rules
from worker.units import Run, Unit

WALL_CLOCK_FIELDS = frozenset({"labelled_at", "emitted_at", "failed_at"})


class Placed(NamedTuple):
    """A labelled event, and where it lies."""

    partition: int
    offset: int
    event: LabelledEvent


class Marked(NamedTuple):
    """A progress mark, and the partition it lies in."""

    partition: int
    mark: Progress


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a read_committed reader finds: each partition in its order, partition by partition."""

    labelled: tuple[Placed, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    alerts: tuple[AlertEvent, ...] = ()
    marks: tuple[Marked, ...] = ()
    trends: tuple[TrendEvent, ...] = ()


class Violation(NamedTuple):
    """``what`` is lost, duplicated, foreign, altered, misplaced, disordered or broken; ``where`` names the output."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what}: {self.where}"


def expect(logs: Mapping[int, Sequence[Record]], engine: Engine, rules: Rules, *, trends: bool = False) -> Outputs:
    """The outputs of these raw partitions, each from its first record on, and of nothing else; time runs out.

    Trends, several for each record, are among them where asked for.
    """
    now = datetime.now(UTC)
    unit = Unit({partition: Run(tuple(records)) for partition, records in logs.items() if records})
    runs = label_unit(unit, {}, engine, InputRules(), now)
    events = [runs[partition].events if partition in runs else () for partition in range(len(logs))]
    batches = list(run_through(rules, *events, emitted_at=now, run_out=True, trends=trends))
    return Outputs(
        labelled=tuple(
            Placed(partition, offset, event) for partition, run in enumerate(events) for offset, event in enumerate(run)
        ),
        dead=tuple(letter for run in runs.values() for letter in run.dead),
        alerts=tuple(alert for batch in batches for alert in batch.alerts),
        trends=tuple(trend.event for batch in batches for trend in batch.trends),
    )


def find_violations(found: Outputs, expected: Outputs, tolerance: float = 0.0) -> list[Violation]:
    """Every way in which the outputs are not those expected, each input counted exactly once.

    ``tolerance`` is of every number with a fraction: a model's depend, in their last digits, on what else was in the
    batch.
    """
    violations = [*_find_misplaced(found), *_find_broken_promises(found)]
    for kind, name_all in (
        ("labelled", _labelled_by_input),
        ("dead letter", _dead_by_input),
        ("alert", _by_revision),
        ("trend", _by_window),
    ):
        seen, wanted = name_all(found), name_all(expected)
        differences = list(_compare(kind, seen, wanted, tolerance))
        violations += differences or _find_disorder(kind, seen, wanted)
    return violations


Named = list[tuple[str, Event]]


def _compare(kind: str, found: Named, expected: Named, tolerance: float) -> Iterator[Violation]:
    wanted = dict(expected)
    counted: Counter[str] = Counter()
    for name, event in found:
        counted[name] += 1
        if name not in wanted:
            yield Violation("foreign", f"{kind} {name}")
        elif differing := _differences(event, wanted[name], tolerance):
            yield Violation("altered", f"{kind} {name} in {', '.join(differing)}")
    yield from (Violation("lost", f"{kind} {name}") for name in wanted if name not in counted)
    yield from (Violation("duplicated", f"{kind} {name}, {n} times") for name, n in counted.items() if n > 1)


def _find_disorder(kind: str, found: Named, expected: Named) -> list[Violation]:
    """The first output that is not where it belongs among the others, of equal ones."""
    for (seen, _), (wanted, _) in zip(found, expected, strict=True):
        if seen != wanted:
            return [Violation("disordered", f"{kind} {seen} stands where {wanted} belongs")]
    return []


def canonical(event: Event) -> dict[str, Any]:
    """An output as plain values, without wall-clock fields."""
    told: dict[str, Any] = orjson.loads(event.to_json())
    return {name: value for name, value in told.items() if name not in WALL_CLOCK_FIELDS}


def _differences(event: Event, wanted: Event, tolerance: float) -> list[str]:
    left, right = canonical(event), canonical(wanted)
    names = sorted(left.keys() | right.keys())
    return [name for name in names if not _alike(left.get(name), right.get(name), tolerance)]


def _alike(left: Any, right: Any, tolerance: float) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= tolerance
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_alike(left[name], right[name], tolerance) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_alike, left, right, [tolerance] * len(left)))
    return bool(left == right)


def coordinates(ref: InputRef) -> str:
    """Coordinates of a raw record, in words."""
    return f"{ref.topic}-{ref.partition}@{ref.offset}"


def _labelled_by_input(outputs: Outputs) -> Named:
    return [(coordinates(placed.event.input), placed.event) for placed in outputs.labelled]


def _dead_by_input(outputs: Outputs) -> Named:
    """In the order of the raw partitions: those of different ones come as they come."""
    return [
        (coordinates(letter.input), letter) for letter in sorted(outputs.dead, key=lambda each: each.input.partition)
    ]


def _by_revision(outputs: Outputs) -> Named:
    return [(f"{alert.alert_id} of {alert.key} revision {alert.revision}", alert) for alert in outputs.alerts]


def _by_window(outputs: Outputs) -> Named:
    return [(f"{trend.record_key} at {trend.clock}", trend) for trend in outputs.trends]


def by_shard(outputs: Outputs, shards: int) -> Outputs:
    """Alerts and trends of one shard after those of another, each in its order: shards publish side by side."""

    def owner(event: AlertEvent | TrendEvent) -> int:
        key = Key.of(event) if isinstance(event, AlertEvent) else Key(event.key_type, event.key)
        return find_owner(str(key), shards)

    alerts, trends = sorted(outputs.alerts, key=owner), sorted(outputs.trends, key=owner)
    return replace(outputs, alerts=tuple(alerts), trends=tuple(trends))


def _find_misplaced(outputs: Outputs) -> Iterator[Violation]:
    """What lies in another partition than its input."""
    for partition, offset, event in outputs.labelled:
        if event.input.partition != partition:
            yield Violation("misplaced", f"{coordinates(event.input)} lies in labelled partition {partition}@{offset}")
    for partition, mark in outputs.marks:
        if mark.partition != partition:
            yield Violation("misplaced", f"mark of partition {mark.partition} lies in progress partition {partition}")


def _find_broken_promises(outputs: Outputs) -> Iterator[Violation]:
    """Marks behind which their partition has an event of an earlier clock."""
    logs: dict[int, list[Placed]] = {}
    for placed in outputs.labelled:
        logs.setdefault(placed.partition, []).append(placed)
    for partition, mark in outputs.marks:
        behind = [placed for placed in logs.get(partition, ()) if placed.offset >= mark.labelled_next_offset]
        early = min(behind, key=lambda placed: placed.event.clock, default=None)
        if early is not None and early.event.clock < mark.clock:
            where = f"{coordinates(early.event.input)} of {early.event.clock}"
            yield Violation("broken", f"the mark {mark.clock} of partition {partition} stands before {where}")


# Between runs


def detach(outputs: Outputs) -> Outputs:
    """The outputs as they would be with the raw topic named ``raw``: runs on topics of their own become comparable.

    Ids that contain the topic are made anew, those that do not follow from it are left as they are.
    """
    return Outputs(
        labelled=tuple(placed._replace(offset=0, event=_detach_event(placed.event)) for placed in outputs.labelled),
        dead=tuple(letter.model_copy(update={"input": _detach_ref(letter.input)}) for letter in outputs.dead),
        alerts=tuple(_detach_alerts(outputs.alerts)),
    )


def _detach_ref(ref: InputRef) -> InputRef:
    return ref.model_copy(update={"topic": "raw"})


def _event_id(ref: InputRef) -> str:
    return f"{ref.topic}-{ref.partition}-{ref.offset}"


def _detach_event(event: LabelledEvent) -> LabelledEvent:
    ref = _detach_ref(event.input)
    made = event.event_id == _event_id(event.input)
    return event.model_copy(update={"input": ref, "event_id": _event_id(ref) if made else event.event_id})


def _detach_alerts(alerts: Sequence[AlertEvent]) -> Iterator[AlertEvent]:
    """An alert is named by the first story of its first revision."""
    names = {alert.alert_id: _detached_id(alert) for alert in alerts if alert.revision == 1}
    for alert in alerts:
        inputs = tuple(_detach_ref(ref) for ref in alert.provenance.inputs)
        yield alert.model_copy(
            update={
                "alert_id": names.get(alert.alert_id, alert.alert_id),
                "inhibited_by": _detach_others(alert.inhibited_by, names),
                "provenance": alert.provenance.model_copy(update={"inputs": inputs}),
            }
        )


def _detach_others(refs: Sequence[AlertRef], names: Mapping[str, str]) -> tuple[AlertRef, ...]:
    return tuple(ref.model_copy(update={"alert_id": names.get(ref.alert_id, ref.alert_id)}) for ref in refs)


def _detached_id(alert: AlertEvent) -> str:
    first = alert.provenance.inputs[0]
    made = alert.alert_id == _alert_id(alert, first)
    return _alert_id(alert, _detach_ref(first)) if made else alert.alert_id


def _alert_id(alert: AlertEvent, first: InputRef) -> str:
    return alert_id(alert.provenance.rule_version, Key.of(alert), _event_id(first))
