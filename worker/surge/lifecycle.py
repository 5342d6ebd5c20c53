"""The state of one key and how it changes: its runs, and the life of an alert, firing and then resolved.

Pure decisions on values. While an alert fires it counts for itself, whatever becomes of the runs that raised it, and
the baseline is frozen.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from schemas.events import AlertKind, KeyType, ResolveReason
from worker.surge.baseline import DAY_MS, HOUR_MS, Baseline
from worker.surge.copies import Cluster
from worker.surge.rules import Rules
from worker.surge.runs import Level, Moment, Reading, Run, Runs, add_negative, no_runs
from worker.surge.statistics import RATES

NEVER = Moment(0, 0)

MAX_EVIDENCE = 10
"""An alert cites the first cluster of its run and the latest nine."""

MAX_SOURCES = 16
"""Sources remembered for a key: those of the open runs before others, recent ones first. ``n_sources`` stops here."""


@dataclass(slots=True)
class Alert:
    """A firing alert. ``run`` is its own copy of the run that raised it and counts on until the end."""

    id: str
    kind: AlertKind
    run: Run
    started: Moment
    evidence: list[str]
    negatives_at_start: int
    clusters_at_start: int
    revision: int = 0


@dataclass(slots=True)
class KeyState:
    """All that is remembered of a key.

    ``recent`` holds (seq, id) of the latest clusters of the open runs; ``sources``, least recent first, the exposure
    hour of each source's last cluster and the seq of its last negative one.
    """

    epoch: int
    baseline: Baseline
    last_clock_ms: int
    last_negative: Moment = NEVER
    runs: Runs = field(default_factory=no_runs)
    recent: list[tuple[int, str]] = field(default_factory=list)
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    alert: Alert | None = None

    def counting(self) -> list[Run]:
        """The runs that count clusters now: the open ones, and the alert's."""
        runs = [run for run in self.runs if run is not None]
        return runs if self.alert is None else [*runs, self.alert.run]

    def cited(self) -> set[str]:
        """Ids of the clusters that this key's next revision may show."""
        ids = {cluster_id for _, cluster_id in self.recent}
        ids.update(run.first_id for run in self.runs if run is not None)
        ids.update(self.alert.evidence if self.alert is not None else ())
        return ids

    def is_idle(self) -> bool:
        """Whether nothing is under way: no run is open, no alert fires."""
        return self.alert is None and not any(self.runs)

    def sources_since(self, seq: int) -> int:
        """Distinct sources of negative clusters from ``seq`` on, up to ``MAX_SOURCES``."""
        return sum(last_negative >= seq for _, last_negative in self.sources.values())


def note_source(state: KeyState, source: str, exposure_ms: int, negative_seq: int | None) -> None:
    """Remember that a source spoke on this key, and with which negative cluster."""
    _, last_negative = state.sources.pop(source, (0, -1))
    state.sources[source] = (exposure_ms // HOUR_MS, last_negative if negative_seq is None else negative_seq)
    if len(state.sources) > MAX_SOURCES:
        del state.sources[_least_needed_source(state)]


def _least_needed_source(state: KeyState) -> str:
    runs = state.counting()
    if runs:
        first_seq = min([run.first_seq for run in runs])
        for source, (_, seq) in state.sources.items():
            if seq < first_seq:
                return source
    return next(iter(state.sources))


def count_cluster(state: KeyState) -> None:
    """Count a cluster in the runs that count now."""
    for run in state.runs:
        if run is not None:
            run.clusters += 1
    if state.alert is not None:
        state.alert.run.clusters += 1


def count_copy(state: KeyState, cluster: Cluster) -> None:
    """Count a copy in the runs that its cluster belongs to."""
    for run in state.counting():
        run.copies += cluster.seq >= run.first_seq


def join(state: KeyState, cluster: Cluster, now: Moment, level: Level) -> None:
    """A negative cluster joins the runs, and the alert that is firing."""
    add_negative(state.runs, cluster.id, cluster.seq, now, level)
    state.last_negative = now
    if state.alert is None:
        state.recent = [*_of_open_runs(state), (cluster.seq, cluster.id)][1 - MAX_EVIDENCE :]
    else:
        state.alert.run.negatives += 1
        first, *latest = state.alert.evidence
        state.alert.evidence = [first, *[*latest, cluster.id][1 - MAX_EVIDENCE :]]


def _of_open_runs(state: KeyState) -> list[tuple[int, str]]:
    first_seq = min((run.first_seq for run in state.runs if run is not None), default=None)
    return [] if first_seq is None else [entry for entry in state.recent if entry[0] >= first_seq]


def crossed(state: KeyState, key_type: KeyType, readings: list[Reading], rules: Rules, now: Moment) -> Run | None:
    """The run at or above its threshold with enough evidence; the furthest one if there are several.

    A run that shows no rise of the share needs more clusters: it is a claim on volume alone, and until then the share
    may yet tell. Two independent sources are asked for where the key has three active ones. A ``source`` key is held to
    the number of clusters alone: it has one source by definition.
    """
    if not readings or readings[0].ratio < 1:
        return None
    oldest_hour = (now.exposure_ms - rules.active_days * DAY_MS) / HOUR_MS
    active = sum(hour >= oldest_hour for hour, _ in state.sources.values())
    needed = rules.min_sources if key_type is not KeyType.source and active >= rules.active_sources else 1
    for reading in readings:
        run = reading.run
        least = rules.min_clusters if run.share_is_up() else rules.min_volume_clusters
        enough = run.negatives >= least and state.sources_since(run.first_seq) >= needed
        if reading.ratio >= 1 and enough:
            return run
    return None


def fire(state: KeyState, alert_id: str, kind: AlertKind, run: Run, now: Moment) -> Alert:
    """Open an alert on a run. The charts are not reset: they tell when it is over."""
    later = [cluster_id for seq, cluster_id in state.recent if seq > run.first_seq]
    alert = Alert(alert_id, kind, replace(run), now, [run.first_id, *later], run.negatives, run.clusters)
    state.alert = alert
    state.recent = []
    return alert


class Resolution(NamedTuple):
    """When a firing alert ends, and why."""

    clock_ms: int
    reason: ResolveReason


def resolution(state: KeyState, alert: Alert, bank: tuple[float, ...], rules: Rules) -> Resolution:
    """The end of a firing alert if no more negative clusters come.

    The key's last negative cluster was an item of the feed, so for ``quiet_hours`` after it exposure runs with the
    clock, and the instant at which every W has fallen below ``resolve_below`` h has a closed form.
    """
    last = state.last_negative
    below_ms = last.clock_ms
    for rate, h, run in zip(RATES, bank, state.runs, strict=True):
        if run is not None:
            exposure_ms = run.exposure_below_ms(rules.resolve_below * h, rate)
            below_ms = max(below_ms, last.clock_ms + exposure_ms - last.exposure_ms)
    ends = (
        Resolution(below_ms, ResolveReason.below_threshold),
        Resolution(last.clock_ms + round(rules.quiet_hours * HOUR_MS), ResolveReason.quiet),
        Resolution(alert.started.clock_ms + round(rules.max_frozen_hours * HOUR_MS), ResolveReason.new_level),
    )
    return min(ends, key=lambda end: end.clock_ms)


def resolve(state: KeyState, alert: Alert, reason: ResolveReason, now: Moment) -> None:
    """End an alert: the runs start afresh, the baseline goes on without the surge or takes it as the new level."""
    if reason is ResolveReason.new_level:
        state.baseline.rebase(
            now.exposure_ms,
            negatives=alert.run.negatives - alert.negatives_at_start,
            clusters=alert.run.clusters - alert.clusters_at_start,
            exposure_days=(now.exposure_ms - alert.started.exposure_ms) / DAY_MS,
        )
    else:
        state.baseline.thaw(now.exposure_ms)
    state.alert = None
    state.runs = no_runs()
    state.recent = []


def close_old_runs(state: KeyState, rules: Rules, now: Moment) -> None:
    """Close the runs that have reached the age limit."""
    state.runs = [run if run is not None and _run_ends_ms(run, rules) > now.clock_ms else None for run in state.runs]
    state.recent = _of_open_runs(state)


def _run_ends_ms(run: Run, rules: Rules) -> int:
    return run.first.clock_ms + round(rules.max_run_days * DAY_MS)


def due_ms(state: KeyState, bank: tuple[float, ...], rules: Rules) -> int | None:
    """The clock at which time alone changes this key: an alert ends, a run is too old. None where it is idle."""
    if state.alert is not None:
        return resolution(state, state.alert, bank, rules).clock_ms
    ends = [_run_ends_ms(run, rules) for run in state.runs if run is not None]
    return min(ends, default=None)
