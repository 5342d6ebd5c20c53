"""The state of one key and how it changes: its runs, and the life of an alert: pending, firing, resolved.

Pure decisions on values. An alert is pending while the test has crossed its threshold and the evidence is too thin to
tell anybody. While it fires it counts for itself, whatever becomes of the runs that raised it, and the baseline is
frozen.
"""

from collections.abc import Sequence
from math import expm1, log
from typing import Final, NamedTuple

from msgspec import json
from mypy_extensions import mypyc_attr

from schemas.events import AlertKind, KeyType, ResolveReason, Severity
from worker.surge.baseline import DAY_MS, HOUR_MS, Baseline, BaselineFields
from worker.surge.copies import Cluster
from worker.surge.exposure import BEFORE_ALL, Exposure, Moment, MomentFields
from worker.surge.keys import NEGATIVE, Target
from worker.surge.rules import Prior, Rules
from worker.surge.runs import Bank, Level, Reading, Run, RunFields, add_negative, no_runs, readings
from worker.surge.statistics import RATES

MAX_EVIDENCE: Final = 10
"""An alert cites the first cluster of its run and the latest nine."""

NO_RUN: Final = 2**63
"""Above every place in the merge: where a run begins that is not there."""

MAX_SOURCES: Final = 16
"""Sources remembered for a key: those of the open runs before others, recent ones first. ``n_sources`` stops here."""


AlertFields = tuple[str, AlertKind, RunFields, MomentFields, list[int], MomentFields | None, int, int, float, int]
KeyFields = tuple[
    int,
    BaselineFields,
    int,
    MomentFields,
    list[RunFields | None],
    list[int],
    dict[str, int],
    dict[str, int],
    AlertFields | None,
]


@mypyc_attr(acyclic=True)
class Alert:
    """A pending or firing alert. ``run`` is its own copy of the run that raised it and counts on until the end.

    ``evidence`` are clusters, by their places in the merge. ``fired`` is None while it is pending. ``height`` is the
    largest W/h since then.
    """

    __slots__ = (
        "clusters_when_fired",
        "evidence",
        "fired",
        "height",
        "id",
        "kind",
        "negatives_when_fired",
        "revision",
        "run",
        "started",
    )

    def __init__(self, id: str, kind: AlertKind, run: Run, started: Moment, evidence: list[int]) -> None:  # noqa: A002 (its field)
        self.id: Final = id
        self.kind = kind
        self.run = run
        self.started: Final = started
        self.evidence = evidence
        self.fired: Moment | None = None
        self.negatives_when_fired = 0
        self.clusters_when_fired = 0
        self.height = 0.0
        self.revision = 0

    @staticmethod
    def of(fields: AlertFields) -> "Alert":
        """The one that was written so."""
        name, kind, run, started, evidence, fired, negatives, clusters, height, revision = fields
        alert = Alert(name, kind, Run.of(run), Moment.of(started), evidence)
        alert.fired = None if fired is None else Moment.of(fired)
        alert.negatives_when_fired, alert.clusters_when_fired = negatives, clusters
        alert.height, alert.revision = height, revision
        return alert

    def fields(self) -> AlertFields:
        """What is written of it."""
        return (
            self.id,
            self.kind,
            self.run.fields(),
            self.started.fields(),
            self.evidence,
            None if self.fired is None else self.fired.fields(),
            self.negatives_when_fired,
            self.clusters_when_fired,
            self.height,
            self.revision,
        )


@mypyc_attr(acyclic=True)
class KeyState:
    """All that is remembered of a key.

    ``recent`` holds the places in the merge of the latest clusters of the open runs; ``heard``, least recent first, the
    exposure hour of each source's last cluster; ``blamed`` the place in the merge of its last negative one, if any.
    """

    __slots__ = ("alert", "baseline", "blamed", "epoch", "heard", "last_clock_ms", "last_negative", "recent", "runs")

    def __init__(self, epoch: int, baseline: Baseline, last_clock_ms: int) -> None:
        self.epoch: Final = epoch
        self.baseline: Final = baseline
        self.last_clock_ms = last_clock_ms
        self.last_negative = BEFORE_ALL
        self.runs = no_runs()
        self.recent: list[int] = []
        self.heard: dict[str, int] = {}
        self.blamed: dict[str, int] = {}
        self.alert: Alert | None = None

    @staticmethod
    def of(fields: KeyFields) -> "KeyState":
        """The one that was written so."""
        epoch, baseline, last_clock_ms, last_negative, runs, recent, heard, blamed, alert = fields
        state = KeyState(epoch, Baseline.of(baseline), last_clock_ms)
        state.last_negative = Moment.of(last_negative)
        state.runs = [None if run is None else Run.of(run) for run in runs]
        state.recent, state.heard, state.blamed = recent, heard, blamed
        state.alert = None if alert is None else Alert.of(alert)
        return state

    def fields(self) -> KeyFields:
        """What is written of it."""
        return (
            self.epoch,
            self.baseline.fields(),
            self.last_clock_ms,
            self.last_negative.fields(),
            [None if run is None else run.fields() for run in self.runs],
            self.recent,
            self.heard,
            self.blamed,
            None if self.alert is None else self.alert.fields(),
        )

    @property
    def firing(self) -> Alert | None:
        """The alert, if it fires: it is not pending."""
        return self.alert if self.alert is not None and self.alert.fired is not None else None

    def counting(self) -> list[Run]:
        """The runs that count clusters now: the open ones, and the alert's."""
        runs = [run for run in self.runs if run is not None]
        return runs if self.alert is None else [*runs, self.alert.run]

    def counts_from(self) -> int:
        """Where in the merge the first of the runs began that count clusters now; ``NO_RUN`` where none does."""
        first_seq = NO_RUN if self.alert is None else self.alert.run.first_seq
        for run in self.runs:
            if run is not None and run.first_seq < first_seq:
                first_seq = run.first_seq
        return first_seq

    def cited(self) -> set[int]:
        """The clusters that this key's next revision may show, by their places in the merge."""
        seqs = set(self.recent)
        for run in self.runs:
            if run is not None:
                seqs.add(run.first_seq)
        if self.alert is not None:
            seqs.update(self.alert.evidence)
        return seqs

    def has_run_from(self, seq: int) -> bool:
        """Whether an open run began with this cluster."""
        for run in self.runs:  # noqa: SIM110 (any() is slower)
            if run is not None and run.first_seq == seq:
                return True
        return False

    def is_idle(self) -> bool:
        """Whether nothing is under way: no run is open, no alert fires."""
        return self.alert is None and self.oldest_run() is None

    def oldest_run(self) -> Run | None:
        """The open run that began first."""
        oldest: Run | None = None
        for run in self.runs:
            if run is not None and (oldest is None or run.first_seq < oldest.first_seq):
                oldest = run
        return oldest

    def sources_since(self, seq: int) -> int:
        """Distinct sources of negative clusters from ``seq`` on, up to ``MAX_SOURCES``."""
        return sum(last >= seq for last in self.blamed.values())


read_key: Final[json.Decoder[KeyFields]] = json.Decoder(KeyFields)


def kind_of(run: Run, target: Target) -> AlertKind:
    """What a run claims: of its target's stories there is a larger share too, or only more."""
    if target == NEGATIVE:
        return AlertKind.negative_surge if run.share_is_up() else AlertKind.negative_volume
    return AlertKind.surge if run.share_is_up() else AlertKind.volume


def is_volume(kind: AlertKind) -> bool:
    """Whether it claims no rise of the share."""
    return kind in {AlertKind.negative_volume, AlertKind.volume}


def count_cluster(state: KeyState, source: str, hit_seq: int | None, now: Moment, rules: Rules) -> None:
    """Count a cluster in the runs that count now, for its source, and in the baseline.

    ``hit_seq`` is its place in the merge where it is negative, else None.
    """
    state.last_clock_ms = now.clock_ms
    for run in state.runs:
        if run is not None:
            run.clusters += 1
    alert, heard = state.alert, state.heard
    if alert is not None:
        alert.run.clusters += 1
    if source in heard:
        del heard[source]  # to be the last
    heard[source] = now.exposure_ms // HOUR_MS
    if hit_seq is not None:
        state.blamed[source] = hit_seq
    if len(heard) > MAX_SOURCES:
        unneeded = _least_needed(state)
        del heard[unneeded]
        state.blamed.pop(unneeded, None)
    if alert is None or alert.fired is None:
        state.baseline.add(now.exposure_ms, hit_seq is not None, rules)


def _least_needed(state: KeyState) -> str:
    """The source heard longest ago of those that say nothing of the runs, else of all."""
    first_seq = state.counts_from()
    for source in state.heard:
        if state.blamed.get(source, -1) < first_seq:
            return source
    return next(iter(state.heard))


def count_copy(state: KeyState, cluster: Cluster) -> None:
    """Count a copy in the runs that its cluster belongs to."""
    for run in state.counting():
        run.copies += cluster.seq >= run.first_seq


def join(state: KeyState, seq: int, now: Moment, level: Level) -> None:
    """A negative cluster joins the runs, and the alert."""
    add_negative(state.runs, seq, now, level)
    state.last_negative = now
    if state.firing is None:
        state.recent = [*_of_open_runs(state), seq][1 - MAX_EVIDENCE :]
    if state.alert is not None:
        state.alert.run.negatives += 1
        first, *latest = state.alert.evidence
        state.alert.evidence = [first, *[*latest, seq][1 - MAX_EVIDENCE :]]


def _of_open_runs(state: KeyState) -> list[int]:
    oldest, recent = state.oldest_run(), state.recent
    if oldest is None:
        return []
    first_seq = oldest.first_seq
    return recent if recent and recent[0] >= first_seq else [seq for seq in recent if seq >= first_seq]


def proven(state: KeyState, key_type: KeyType, readings: list[Reading], rules: Rules, now: Moment) -> Run | None:
    """The run at or above its threshold with enough evidence; the furthest one if there are several.

    A run that shows no rise of the share needs more clusters: it is a claim on volume alone, and until then the share
    may yet tell. Two independent sources are asked for where the key has three active ones. A ``source`` key is held to
    the number of clusters alone: it has one source by definition.
    """
    if not readings or readings[0].ratio < 1:
        return None
    oldest_hour = (now.exposure_ms - rules.active_days * DAY_MS) / HOUR_MS
    active = sum(hour >= oldest_hour for hour in state.heard.values())
    needed = rules.min_sources if key_type is not KeyType.source and active >= rules.active_sources else 1
    for reading in readings:
        run = reading.run
        least = rules.min_clusters if run.share_is_up() else rules.min_volume_clusters
        enough = run.negatives >= least and state.sources_since(run.first_seq) >= needed
        if reading.ratio >= 1 and enough:
            return run
    return None


def open_alert(state: KeyState, alert_id: str, kind: AlertKind, run: Run, now: Moment) -> Alert:
    """An alert on a run that has crossed its threshold, pending until it fires."""
    state.alert = Alert(alert_id, kind, run.copy(), now, _evidence_of(state, run))
    return state.alert


def fire(state: KeyState, alert: Alert, kind: AlertKind, run: Run, now: Moment) -> None:
    """Let an alert fire on a run with enough evidence. The charts are not reset: they tell when it is over.

    A run that began since the alert did is part of its own, and says nothing of how it began.
    """
    if run.first_seq != alert.run.first_seq and run.first.clock_ms <= alert.started.clock_ms:
        alert.run, alert.evidence = run.copy(), _evidence_of(state, run)
    alert.kind, alert.fired = kind, now
    alert.negatives_when_fired, alert.clusters_when_fired = alert.run.negatives, alert.run.clusters
    state.recent = []


def severity(alert: Alert, rules: Rules) -> Severity:
    """By its height; more news of the usual mix is never critical."""
    warning, critical = rules.severity_ratios
    if alert.height < warning:
        return Severity.info
    return Severity.critical if alert.height >= critical and not is_volume(alert.kind) else Severity.warning


def take_back(state: KeyState, cluster: Cluster, *, whole: bool) -> None:
    """A negative cluster is none any more, nor are its copies; ``whole``: it never was. A run keeps its beginning."""
    for run in state.counting():
        if cluster.seq >= run.first_seq:
            run.negatives -= 1
            run.clusters -= whole
            run.copies -= cluster.copies
    alert = state.alert
    before = alert is not None and alert.fired is not None and cluster.clock_ms <= alert.fired.clock_ms
    if alert is not None and before and cluster.seq >= alert.run.first_seq:
        alert.negatives_when_fired -= 1
        alert.clusters_when_fired -= whole


def is_spent(state: KeyState, alert: Alert, bank: Bank, rules: Rules, now: Moment) -> bool:
    """Whether an alert that has lost a cluster has nothing left to stand on."""
    charts = readings(state.runs, bank, now.exposure_ms)
    return alert.run.negatives <= 0 or all(reading.ratio < rules.resolve_below for reading in charts)


def inhibits(topic: str, its: Sequence[Cluster], entity: str, theirs: Sequence[Cluster]) -> bool:
    """Whether a topic's alert tells the story of an entity's.

    Half of the entity's stories are on the topic, and the topic's are not mainly about the entity, which would then say
    more than the topic does.

    Args:
        topic: the name of its key.
        its: the stories it cites.
        entity: the name of its key.
        theirs: the stories it cites.
    """
    shared = sum(topic in story.keys for story in theirs)
    its_own = sum(entity in story.keys for story in its)
    return 2 * shared >= len(theirs) and 2 * its_own <= len(its)


def _evidence_of(state: KeyState, run: Run) -> list[int]:
    return [run.first_seq, *[seq for seq in state.recent if seq > run.first_seq]]


class Resolution(NamedTuple):
    """When an alert ends, and why."""

    clock_ms: int
    reason: ResolveReason


def resolution(state: KeyState, alert: Alert, bank: Bank, rules: Rules, exposure: Exposure) -> Resolution:
    """The end of an alert if no more items come: those ends that exposure reaches before it stands still.

    Each is the first clock at which an exposure is reached, so items that come before it do not move it.
    """
    last = state.last_negative
    below_ms = last.exposure_ms
    for rate, h, run in zip(RATES, bank.thresholds, state.runs, strict=True):
        if run is not None:
            below_ms = max(below_ms, run.exposure_below_ms(rules.resolve_below * h, rate))
    quiet_ms = last.exposure_ms + _quiet_ms(alert.run, last, rules)
    stays = alert.fired is None or alert.run.negatives > alert.negatives_when_fired  # else nothing came since it fired
    ends = (
        (exposure.clock_at(below_ms), ResolveReason.below_threshold),
        (exposure.clock_at(quiet_ms), ResolveReason.quiet),
        (
            (alert.fired or alert.started).clock_ms + round(rules.max_frozen_hours * HOUR_MS),
            ResolveReason.new_level if stays else ResolveReason.quiet,
        ),
    )
    return min(Resolution(clock_ms, reason) for clock_ms, reason in ends if clock_ms is not None)


def _quiet_ms(run: Run, last: Moment, rules: Rules) -> int:
    """Exposure without a negative cluster that ends an alert: while its surge goes on, a gap as long is no chance.

    Of a Poisson process whose n gaps took G in all, the next is longer than t with the chance (1 + t/G)^-n (predictive
    distribution under the prior 1/rate). That of a few gaps is wide: a run that alarms is a dense one by choice.
    """
    gaps, span_ms = max(run.negatives - 1, 1), last.exposure_ms - run.first.exposure_ms
    return round(max(rules.quiet_hours * HOUR_MS, span_ms * expm1(-log(rules.quiet_chance) / gaps)))


def resolve(state: KeyState, alert: Alert, reason: ResolveReason, prior: Prior, now: Moment) -> None:
    """End an alert: the runs start afresh, the baseline goes on without the surge or takes it as the new level.

    A baseline that was not frozen, since the alert was pending, has seen all of it.
    """
    if alert.fired is not None and reason is ResolveReason.new_level:
        state.baseline.rebase(
            now.exposure_ms,
            negatives=alert.run.negatives - alert.negatives_when_fired,
            clusters=alert.run.clusters - alert.clusters_when_fired,
            exposure_days=(now.exposure_ms - alert.fired.exposure_ms) / DAY_MS,
            prior=prior,
        )
    elif alert.fired is not None:
        state.baseline.thaw(now.exposure_ms)
    state.alert = None
    state.runs = no_runs()
    state.recent = []


def close_old_runs(state: KeyState, oldest_ms: int) -> None:
    """Close the runs that began at this clock or before."""
    state.runs = [run if run is not None and run.first.clock_ms > oldest_ms else None for run in state.runs]
    state.recent = _of_open_runs(state)
