"""An alert as the event that is published."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple

from schemas.events import (
    AlertEvent,
    AlertRef,
    AlertStatus,
    Baseline,
    Evidence,
    InputRef,
    Provenance,
    ResolveReason,
    StackRef,
)
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.copies import Cluster, Story
from worker.surge.exposure import Moment
from worker.surge.keys import Key
from worker.surge.lifecycle import Alert, severity
from worker.surge.rules import Rules
from worker.surge.runs import Reading
from worker.surge.statistics import chance_a_day, exceedance

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def clock_of(instant: datetime) -> int:
    """An instant as epoch milliseconds, cut as its published form is."""
    since = instant - EPOCH
    return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def instant_of(clock_ms: int) -> datetime:
    """Epoch milliseconds as an instant."""
    return EPOCH + clock_ms * MILLISECOND


def alert_id(rule_version: str, key: Key, first_event_id: str) -> str:
    """The same for the same surge, wherever and whenever it is computed."""
    text = "\0".join((rule_version, str(key), first_event_id))
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Context(NamedTuple):
    """What a revision says beside the alert itself."""

    rules: Rules
    rule_version: str
    stack: StackRef
    learning: bool
    model_changed: bool
    now: Moment
    emitted_at: datetime


class Findings(NamedTuple):
    """What a revision says of an alert beyond its own counts."""

    reading: Reading
    budget_a_day: float
    n_sources: int
    evidence: Sequence[Cluster]
    inhibited_by: tuple[AlertRef, ...] = ()


def revision_of(
    key: Key, alert: Alert, found: Findings, context: Context, reason: ResolveReason | None = None
) -> AlertEvent:
    """The current revision of an alert; with a ``reason`` the last one.

    Less than an hour of exposure counts as an hour: a burst within a minute has no rate to speak of. The cluster that
    opened the run is left out of the p-value: the run begins where it came.
    """
    run, level, now, reading = alert.run, alert.run.level, context.now, found.reading
    days = max(now.exposure_ms - run.first.exposure_ms, HOUR_MS) / DAY_MS
    expected = level.a / level.b * days
    return AlertEvent(
        alert_id=alert.id,
        revision=alert.revision,
        status=_status_of(alert, reason),
        kind=alert.kind,
        key_type=key.type,
        key=key.name,
        first_clock=instant_of(run.first.clock_ms),
        starts_at=instant_of(alert.started.clock_ms),
        detected_at=instant_of(now.clock_ms),
        emitted_at=context.emitted_at,
        ends_at=None if reason is None else instant_of(now.clock_ms),
        resolve_reason=reason,
        n_negative=run.negatives,
        n_total=run.clusters,
        n_copies=run.copies,
        n_sources=found.n_sources,
        expected=expected,
        ratio=run.negatives / expected,
        R=reading.rate,
        W=reading.statistic,
        h=reading.threshold,
        budget=found.budget_a_day,
        severity=severity(alert, context.rules),
        p_value=exceedance(run.negatives - 1, days, level.a, level.b),
        chance_a_day=chance_a_day(reading.statistic, reading.threshold, found.budget_a_day),
        target=str(key.target),
        inhibited_by=found.inhibited_by,
        quality=tuple(_quality(found.evidence, context)),
        baseline=Baseline(a=level.a, b=level.b, share=level.share, learning=context.learning),
        evidence=tuple(_evidence_of(cluster) for cluster in found.evidence),
        provenance=Provenance(
            stack=context.stack,
            rule_version=context.rule_version,
            inputs=tuple(_input_of(cluster.story) for cluster in found.evidence if cluster.story is not None),
        ),
    )


def _status_of(alert: Alert, reason: ResolveReason | None) -> AlertStatus:
    if reason is not None:
        return AlertStatus.resolved
    return AlertStatus.pending if alert.fired is None else AlertStatus.firing


def _quality(evidence: Sequence[Cluster], context: Context) -> Iterator[Literal["model_changed", "degraded_stack"]]:
    if context.model_changed:
        yield "model_changed"
    if any(cluster.story is not None and cluster.story.degraded for cluster in evidence):
        yield "degraded_stack"


def _input_of(story: Story) -> InputRef:
    topic, partition, offset = story.place
    return InputRef(topic=topic, partition=partition, offset=offset)


def _evidence_of(cluster: Cluster) -> Evidence:
    story = cluster.story
    assert story is not None, f"cluster {cluster.id} is cited and not negative"
    return Evidence(
        item_id=story.item_id,
        title=story.title,
        url=story.url,
        source=story.source,
        score=story.score,
        received_at=instant_of(story.received_at_ms),
        copies=cluster.copies,
        status=story.status,
    )
