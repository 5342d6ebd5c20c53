"""State records: keys and clusters as the fields of compact JSON arrays, of the newest version.

Names start with ``k:`` or ``c:``. Numbers survive the round trip bit for bit, which is what makes a restored detector
go on exactly.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from schemas.events import AlertKind, InputRef, ItemStatus
from worker.surge.baseline import Baseline
from worker.surge.copies import Cluster, Story
from worker.surge.lifecycle import Alert, KeyState
from worker.surge.runs import Level, Moment, Run, Runs

KEY_PREFIX = "k:"
CLUSTER_PREFIX = "c:"

_SAME = 0
"""Written for a run that equals the one before it, as the charts of a sparse key mostly do."""


def pack_key(state: KeyState) -> tuple[object, ...]:
    """The record of a key."""
    baseline = state.baseline
    return (
        state.epoch,
        (
            baseline.folded_hour,
            baseline.negatives,
            baseline.clusters,
            baseline.exposure_days,
            baseline.pending,
        ),
        state.last_clock_ms,
        tuple(state.last_negative),
        _pack_runs(state.runs),
        state.recent,
        [(source, hour, seq) for source, (hour, seq) in state.sources.items()],
        None if state.alert is None else _pack_alert(state.alert),
    )


def unpack_key(fields: Sequence[Any]) -> KeyState:
    """The state of a key from its record."""
    epoch, baseline, last_clock_ms, last_negative, runs, recent, sources, alert = fields
    return KeyState(
        epoch=epoch,
        baseline=Baseline(*baseline),
        last_clock_ms=last_clock_ms,
        last_negative=Moment(*last_negative),
        runs=_unpack_runs(runs),
        recent=[(seq, cluster_id) for seq, cluster_id in recent],
        sources={source: (hour, seq) for source, hour, seq in sources},
        alert=None if alert is None else _unpack_alert(alert),
    )


def _pack_run(run: Run) -> tuple[object, ...]:
    return (run.first_id, run.first_seq, *run.first, *run.level, run.negatives, run.clusters, run.copies)


def _unpack_run(fields: Sequence[Any]) -> Run:
    first_id, first_seq, clock_ms, exposure_ms, a, b, share, negatives, clusters, copies = fields
    return Run(first_id, first_seq, Moment(clock_ms, exposure_ms), Level(a, b, share), negatives, clusters, copies)


def _pack_runs(runs: Runs) -> list[object]:
    packed: list[object] = []
    before: Run | None = None
    for run in runs:
        packed.append(None if run is None else _SAME if run == before else _pack_run(run))
        before = run
    return packed


def _unpack_runs(packed: list[Any]) -> Runs:
    runs: Runs = []
    for index, fields in enumerate(packed):
        runs.append(None if fields is None else _unpack_run(packed[index - 1] if fields == _SAME else fields))
    return runs


def _pack_alert(alert: Alert) -> tuple[object, ...]:
    return (
        alert.id,
        alert.kind.value,
        _pack_run(alert.run),
        tuple(alert.started),
        alert.evidence,
        None if alert.fired is None else tuple(alert.fired),
        alert.negatives_when_fired,
        alert.clusters_when_fired,
        alert.height,
        alert.revision,
    )


def _unpack_alert(fields: Sequence[Any]) -> Alert:
    alert_id, kind, run, started, evidence, fired, *rest = fields
    fired = None if fired is None else Moment(*fired)
    return Alert(alert_id, AlertKind(kind), _unpack_run(run), Moment(*started), evidence, fired, *rest)


def pack_cluster(cluster: Cluster) -> tuple[object, ...]:
    """The record of a cluster."""
    story = cluster.story
    return (
        cluster.fold,
        cluster.seq,
        cluster.clock_ms,
        urlsafe_b64encode(cluster.signature).decode(),
        cluster.entities,
        cluster.copies,
        cluster.keys,
        None
        if story is None
        else (
            story.item_id,
            story.title,
            story.url,
            story.source,
            story.score,
            story.received_at_ms,
            story.input.topic,
            story.input.partition,
            story.input.offset,
            story.degraded,
            story.status,
        ),
    )


def unpack_cluster(cluster_id: str, fields: Sequence[Any]) -> Cluster:
    """The cluster from its record."""
    fold, seq, clock_ms, signature, entities, copies, keys, told = fields
    story = None
    if told is not None:
        item_id, title, url, source, score, received_at_ms, topic, partition, offset, degraded, status = told
        ref = InputRef(topic=topic, partition=partition, offset=offset)
        status = None if status is None else ItemStatus(status)
        story = Story(item_id, title, url, source, score, received_at_ms, ref, degraded, status)
    place = (cluster_id, fold, seq, clock_ms, urlsafe_b64decode(signature), tuple(entities))
    return Cluster(*place, copies, tuple(keys), story)
