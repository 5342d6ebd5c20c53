"""The surge detector of one shard: all its keys and clusters, fed with events and timers in merge order.

Owns the state and knows which parts of it changed. Knows nothing of partitions, offsets and transactions.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from schemas.events import AlertEvent, AlertKind, ItemStatus, ResolveReason, StackRef
from worker.labelled import News
from worker.surge.baseline import DAY_MS, HOUR_MS, Baseline
from worker.surge.codec import (
    CLUSTER_PREFIX,
    KEY_PREFIX,
    pack_cluster,
    unpack_cluster,
)
from worker.surge.copies import Cluster, first_mention, fold_key
from worker.surge.exposure import Exposure
from worker.surge.keys import MARKET, Key, is_negative, keys_of, name_key
from worker.surge.learning import Learning
from worker.surge.lifecycle import (
    Alert,
    KeyState,
    close_old_runs,
    count_cluster,
    count_copy,
    crossed,
    due_ms,
    fire,
    join,
    note_source,
    resolution,
    resolve,
)
from worker.surge.revision import Context, alert_id, clock_of, revision_of
from worker.surge.rules import Rules
from worker.surge.runs import Level, Moment, readings, thresholds
from worker.surge.store import Keys
from worker.surge.timers import Timers
from worker.surge.versions import STATE, Versions

MARKET_NAME = str(MARKET)

SWEPT_KEYS = 1_000
"""Looked at in one step, so that no step takes long."""


class Shard:
    """The state of the detector; events and timers change it at once and leave their names in the dirty set.

    ``apply`` wants events in merge order, ``fire_timer`` clocks between them. Owned by one thread.
    """

    def __init__(self, rules: Rules, versions: Versions = STATE) -> None:
        self.rules = rules
        self._versions = versions
        self.keys = Keys(rules, versions)
        self.exposure = Exposure(round(rules.max_silence_hours * HOUR_MS))
        self.learning = Learning(round(rules.learning_days * DAY_MS))
        self._version = rules.version
        self._bank = thresholds(rules)
        self._window_ms = round(rules.copy_window_hours * HOUR_MS)
        self._seq = 0
        self._clusters: dict[str, Cluster] = {}
        self._by_fold: dict[str, Cluster] = {}
        self._window: deque[Cluster] = deque()
        self._timers = Timers()
        self._dirty: dict[str, None] = {}

    def restore(self, totals: list[Any], records: Iterable[tuple[str, bytes]], clock_ms: int) -> None:
        """Take the state over from ``totals()``, and from the newest record of each name, as of a merge clock."""
        self._seq, exposure_ms, last_clock_ms, stack, epoch, since_ms, heard_ms = totals
        self.exposure = replace(self.exposure, total_ms=exposure_ms, last_item_clock_ms=last_clock_ms)
        known = None if stack is None else StackRef(name=stack[0], digest=stack[1])
        self.learning = Learning(self.learning.needed_ms, known, epoch, since_ms, heard_ms)
        active: dict[str, KeyState] = {}
        for name, value in records:
            if name.startswith(KEY_PREFIX):
                state = self.keys.restore(name.removeprefix(KEY_PREFIX), value)
                if state is not None:
                    active[name.removeprefix(KEY_PREFIX)] = state
            elif name.startswith(CLUSTER_PREFIX):
                cluster_id = name.removeprefix(CLUSTER_PREFIX)
                self._clusters[cluster_id] = unpack_cluster(cluster_id, self._versions.open(name, value))
        for name, state in active.items():
            self._schedule(name, state)
            self._hold(state.cited())
        self._window.extend(sorted(self._clusters.values(), key=lambda cluster: cluster.seq))
        while self._window and self._window[0].clock_ms + self._window_ms < clock_ms:
            self._window.popleft()
        self._by_fold = {cluster.fold: cluster for cluster in self._window}

    def totals(self) -> list[Any]:
        """What belongs to no key and no cluster, for the frontier record."""
        learning = self.learning
        stack = None if learning.stack is None else [learning.stack.name, learning.stack.digest]
        return [
            self._seq,
            self.exposure.total_ms,
            self.exposure.last_item_clock_ms,
            stack,
            learning.epoch,
            learning.since_ms,
            dict(learning.heard_ms),
        ]

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """One record for each name changed since the last call, None where it is gone."""
        changes = [(name.encode(), self._record(name)) for name in self._dirty]
        self._dirty.clear()
        self.keys.cool()
        return changes

    def _record(self, name: str) -> bytes | None:
        if name.startswith(KEY_PREFIX):
            return self.keys.seal(name.removeprefix(KEY_PREFIX))
        cluster = self._clusters.get(name.removeprefix(CLUSTER_PREFIX))
        return None if cluster is None else self._versions.seal(name, pack_cluster(cluster))

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` would give anything."""
        return bool(self._dirty)

    def apply(self, event: News, clock_ms: int, emitted_at: datetime) -> list[AlertEvent]:
        """Count an event; the revisions that come of it."""
        now = Moment(clock_ms, self.exposure.advance(clock_ms))
        self.learning.hear(event.stack, now.exposure_ms)
        self._seq += 1
        if event.abstained or event.status is ItemStatus.withdrawn:
            return []
        fold = fold_key(event.title, event.similarity_key)
        known = self._by_fold.get(fold)
        if known is not None:
            self._add_copy(known)
            return []
        keys = {name_key(key): key for key in keys_of(event)}
        cluster = self._open_cluster(event, fold, keys, clock_ms)
        context = self._context(now, emitted_at)
        revisions = [self._add_cluster(name, key, cluster, event.source, context) for name, key in keys.items()]
        return [revision for revision in revisions if revision is not None]

    def _add_copy(self, cluster: Cluster) -> None:
        cluster.copies += 1
        self._dirty[CLUSTER_PREFIX + cluster.id] = None
        for name in cluster.keys:
            state = self.keys.get(name)
            if state is not None:
                count_copy(state, cluster)
                self._dirty[KEY_PREFIX + name] = None

    def _open_cluster(self, event: News, fold: str, keys: Iterable[str], clock_ms: int) -> Cluster:
        cluster = Cluster(event.event_id, fold, self._seq, clock_ms)
        if is_negative(event):
            cluster.keys = tuple(keys)
            cluster.story = first_mention(event, clock_of(event.received_at))
        self._clusters[cluster.id] = self._by_fold[fold] = cluster
        self._window.append(cluster)
        self._dirty[CLUSTER_PREFIX + cluster.id] = None
        return cluster

    def _add_cluster(self, name: str, key: Key, cluster: Cluster, source: str, context: Context) -> AlertEvent | None:
        now, negative = context.now, cluster.story is not None
        state = self._state_of(name, now)
        state.last_clock_ms = now.clock_ms
        note_source(state, source, now.exposure_ms, cluster.seq if negative else None)
        count_cluster(state)
        if state.alert is None:
            state.baseline.add(now.exposure_ms, negative, self.rules)
        self._dirty[KEY_PREFIX + name] = None
        if not negative or (context.learning and state.alert is None):
            return None
        revision = self._add_negative(key, state, cluster, context)
        self._schedule(name, state)
        return revision

    def _schedule(self, name: str, state: KeyState) -> None:
        """Wake the key when it is due; a cluster that is not negative only ever puts that off."""
        due = due_ms(state, self._bank, self.rules)
        if due is not None:
            self._timers.schedule(name, due)

    def _state_of(self, name: str, now: Moment) -> KeyState:
        """The state of a key; a new one where it is unknown, or known from an earlier stack and not firing."""
        state = self.keys.meet(name, now.clock_ms)
        epoch = self.learning.epoch
        if state is None or (state.epoch != epoch and state.alert is None):
            cited, sources = (set(), {}) if state is None else (state.cited(), state.sources)
            state = self.keys[name] = KeyState(epoch, Baseline.starting_after(now.exposure_ms), now.clock_ms)
            state.sources = sources
            self._release(cited)
        return state

    def _add_negative(self, key: Key, state: KeyState, cluster: Cluster, context: Context) -> AlertEvent | None:
        before = state.cited()
        join(state, cluster, context.now, self._level(key, state))
        if state.alert is None:
            charts = readings(state.runs, self._bank, context.now.exposure_ms)
            run = crossed(state, key.type, charts, self.rules, context.now)
            if run is not None:
                kind = AlertKind.negative_surge if run.share_is_up() else AlertKind.negative_volume
                fire(state, alert_id(self._version, kind, key, run.first_id), kind, run, context.now)
        after = state.cited()
        self._hold(after - before)
        revision = None if state.alert is None else self._revise(key, state, state.alert, context)
        self._release(before - after)
        return revision

    def _level(self, key: Key, state: KeyState) -> Level:
        rules = self.rules
        share = rules.share_prior_mean
        market = self.keys.get(MARKET_NAME)
        if key != MARKET and market is not None:
            share = market.baseline.share(share, rules.share_prior_clusters)
        a, b = state.baseline.rate(rules.priors.of(key.type))
        return Level(a, b, state.baseline.share(share, rules.share_prior_clusters))

    def fire_timer(self, limit_ms: int, emitted_at: datetime) -> tuple[int, list[AlertEvent]] | None:
        """Fire the first timer below a clock: its instant and the revisions; None if there is none."""
        window_ms = self._window[0].clock_ms + self._window_ms if self._window else limit_ms
        fired = self._fire_key(min(window_ms, limit_ms), emitted_at)
        if fired is None and window_ms < limit_ms:
            self._end_window(self._window.popleft())
            return window_ms, []
        return fired

    def _end_window(self, cluster: Cluster) -> None:
        if self._by_fold.get(cluster.fold) is cluster:
            del self._by_fold[cluster.fold]
        self._drop_unused(cluster)

    def _fire_key(self, limit_ms: int, emitted_at: datetime) -> tuple[int, list[AlertEvent]] | None:
        while (timer := self._timers.take_before(limit_ms)) is not None:
            clock_ms, name = timer
            state = self.keys.get(name)
            if state is None:
                continue
            due = due_ms(state, self._bank, self.rules)
            if due is None:
                continue
            if due > clock_ms:
                self._timers.schedule(name, due)
                continue
            return clock_ms, self._wake(name, state, Moment(clock_ms, self.exposure.at(clock_ms)), emitted_at)
        return None

    def _wake(self, name: str, state: KeyState, now: Moment, emitted_at: datetime) -> list[AlertEvent]:
        before, revisions = state.cited(), []
        if state.alert is not None:
            end = resolution(state, state.alert, self._bank, self.rules)
            revisions.append(self._resolve(Key.parse(name), state, end.reason, self._context(now, emitted_at)))
        else:
            close_old_runs(state, self.rules, now)
        self._schedule(name, state)
        self._dirty[KEY_PREFIX + name] = None
        self._release(before - state.cited())
        return revisions

    def sweep(self, clock_ms: int) -> None:
        """Free some memory of keys that are forgotten, as of a clock below which no event comes; no alert tells."""
        for name in self.keys.sweep(clock_ms, SWEPT_KEYS):
            self._dirty[KEY_PREFIX + name] = None

    def _resolve(self, key: Key, state: KeyState, reason: ResolveReason, context: Context) -> AlertEvent:
        alert = state.alert
        assert alert is not None
        revision = self._revise(key, state, alert, context, reason)
        resolve(state, alert, reason, context.now)
        return revision

    def _context(self, now: Moment, emitted_at: datetime) -> Context:
        stack = self.learning.stack
        assert stack is not None
        learning = self.learning.at(now.exposure_ms)
        return Context(self._version, self.rules.budget_a_day, stack, learning, now, emitted_at)

    def _revise(
        self, key: Key, state: KeyState, alert: Alert, context: Context, reason: ResolveReason | None = None
    ) -> AlertEvent:
        alert.revision += 1
        reading = readings(state.runs, self._bank, context.now.exposure_ms)[0]
        n_sources = state.sources_since(alert.run.first_seq)
        evidence = [self._clusters[cluster_id] for cluster_id in alert.evidence]
        return revision_of(key, alert, reading, n_sources, evidence, context, reason)

    def _hold(self, cluster_ids: Iterable[str]) -> None:
        for cluster_id in cluster_ids:
            self._clusters[cluster_id].holders += 1

    def _release(self, cluster_ids: Iterable[str]) -> None:
        for cluster_id in cluster_ids:
            cluster = self._clusters[cluster_id]
            cluster.holders -= 1
            self._drop_unused(cluster)

    def _drop_unused(self, cluster: Cluster) -> None:
        if not cluster.holders and self._by_fold.get(cluster.fold) is not cluster:
            del self._clusters[cluster.id]
            self._dirty[CLUSTER_PREFIX + cluster.id] = None
