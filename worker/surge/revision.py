"""A firing or resolved alert as the event that is published."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from schemas.events import (
    AlertEvent,
    AlertKind,
    AlertStatus,
    Baseline,
    Evidence,
    Provenance,
    ResolveReason,
    StackRef,
)
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.copies import Cluster
from worker.surge.keys import Key
from worker.surge.lifecycle import Alert
from worker.surge.runs import Moment, Reading

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def clock_of(instant: datetime) -> int:
    """An instant as epoch milliseconds, cut as its published form is."""
    since = instant - EPOCH
    return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def instant_of(clock_ms: int) -> datetime:
    """Epoch milliseconds as an instant."""
    return EPOCH + clock_ms * MILLISECOND


def alert_id(rule_version: str, kind: AlertKind, key: Key, first_event_id: str) -> str:
    """The same for the same surge, wherever and whenever it is computed."""
    text = "\0".join((rule_version, kind.value, str(key), first_event_id))
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Context(NamedTuple):
    """What a revision says beside the alert itself."""

    rule_version: str
    budget: float
    stack: StackRef
    learning: bool
    now: Moment
    emitted_at: datetime


def revision_of(  # noqa: PLR0917 -- six values that have nothing else in common
    key: Key,
    alert: Alert,
    reading: Reading,
    n_sources: int,
    evidence: Sequence[Cluster],
    context: Context,
    reason: ResolveReason | None = None,
) -> AlertEvent:
    """The current revision of an alert; with a ``reason`` the last one.

    Less than an hour of exposure counts as an hour in ``expected``: a burst within a minute has no rate to speak of.
    """
    run, level, now = alert.run, alert.run.level, context.now
    hours = max(now.exposure_ms - run.first.exposure_ms, HOUR_MS) / HOUR_MS
    expected = level.a / level.b * hours / 24
    return AlertEvent(
        alert_id=alert.id,
        revision=alert.revision,
        status=AlertStatus.firing if reason is None else AlertStatus.resolved,
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
        n_sources=n_sources,
        expected=expected,
        ratio=run.negatives / expected,
        R=reading.rate,
        W=reading.statistic,
        h=reading.threshold,
        budget=context.budget,
        baseline=Baseline(a=level.a, b=level.b, learning=context.learning),
        evidence=tuple(_evidence_of(cluster) for cluster in evidence),
        provenance=Provenance(
            stack=context.stack,
            rule_version=context.rule_version,
            inputs=tuple(cluster.story.input for cluster in evidence if cluster.story is not None),
        ),
    )


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
    )
