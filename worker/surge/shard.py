"""The surge detector of one shard: all its keys and clusters, fed with events and timers in merge order.

Owns the state and knows which parts of it changed. Knows nothing of partitions, offsets and transactions. What belongs
to no key, and what an event does to it, is the same in every shard, so nothing here may depend on the keys of others.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from schemas.events import AlertEvent, AlertRef, ItemStatus, KeyType, ResolveReason, StackRef
from worker.labelled import News
from worker.surge.baseline import DAY_MS, HOUR_MS, Baseline
from worker.surge.copies import Cluster, Window, first_mention, fold_key, read_cluster
from worker.surge.exposure import Exposures, Moment
from worker.surge.keys import ENTITY, MARKET, OF_THE_MARKET, TOPIC, Key, Mentions, Target, count_on
from worker.surge.learning import Learning
from worker.surge.lifecycle import (
    Alert,
    KeyState,
    Resolution,
    close_old_runs,
    count_cluster,
    count_copy,
    fire,
    inhibits,
    is_spent,
    join,
    kind_of,
    open_alert,
    proven,
    resolution,
    resolve,
    take_back,
)
from worker.surge.ownership import WHOLE, Ownership
from worker.surge.revision import Context, Findings, alert_id, clock_of, revision_of
from worker.surge.rules import Rules
from worker.surge.runs import Banks, Level, has_crossed, readings
from worker.surge.similar import NO_SIGNATURE, read_signature
from worker.surge.store import Entry, Keys
from worker.surge.timers import Timers
from worker.surge.trends import Trends
from worker.surge.versions import CLUSTER_PREFIX, KEY_PREFIX, STATE, Versions

SWEPT_KEYS: Final = 1_000
"""Looked at in one step, so that no step takes long."""

_USABLE: Final = ItemStatus.usable
_WITHDRAWN: Final = ItemStatus.withdrawn


class Shard:
    """The state of the detector; events and timers change it at once and leave the names of what changed.

    ``apply`` wants events in merge order, ``fire_timer`` clocks between them. Owned by one thread.
    """

    def __init__(
        self, rules: Rules, versions: Versions = STATE, trends: Trends | None = None, ownership: Ownership = WHOLE
    ) -> None:
        self.rules = rules
        self._ownership = ownership
        self._alone = ownership.whole
        self._trends = trends
        self._versions = versions
        self.keys = Keys(rules, versions)
        self.exposures = Exposures(round(rules.max_silence_hours * HOUR_MS), rules.profiles.of)
        self._primed = None if rules.primed is None else rules.primed.stack_digest
        self.learning = Learning(round(rules.learning_days * DAY_MS), primed_digest=self._primed)
        self._version = rules.version
        self._banks = Banks(rules)
        self._priors = {key_type: rules.priors.of(key_type) for key_type in KeyType}
        self._mentions = Mentions(rules.watchlists)
        self._max_run_ms = round(rules.max_run_days * DAY_MS)
        self._window_ms = round(rules.copy_window_hours * HOUR_MS)
        self._seq = 0
        self._clusters: dict[int, Cluster] = {}
        self._holders: dict[int, int] = {}
        self._by_item: dict[str, list[Cluster]] = {}
        self._firing: dict[str, None] = {}
        self._waiting: dict[str, None] = {}
        self._window = Window(rules.copy_likeness, rules.max_window_stories)
        self._timers = Timers()
        self._changed_clusters: dict[int, None] = {}

    def restore(self, totals: list[Any], records: Iterable[tuple[str, bytes]]) -> None:
        """Take the state over from ``totals()``, and from the newest record of each name."""
        self._seq, exposure_ms, last_clock_ms, stack, epoch, since_ms, heard_ms, *others = totals
        self.exposures.restore(exposure_ms, last_clock_ms, *others)
        known = None if stack is None else StackRef(name=stack[0], digest=stack[1])
        self.learning = Learning(self.learning.needed_ms, known, epoch, since_ms, heard_ms, self._primed)
        for name, value in records:
            if name.startswith(KEY_PREFIX):
                entry = self.keys.restore(name.removeprefix(KEY_PREFIX), value)
                if entry is not None:
                    self._schedule(entry)
                    self._hold(entry.state.cited())
                    if entry.state.firing is not None:
                        self._firing[entry.name] = None
            elif name.startswith(CLUSTER_PREFIX):
                cluster = Cluster.of(self._versions.open(name, value, read_cluster))
                self._clusters[cluster.seq] = cluster
        for cluster in sorted(self._clusters.values(), key=lambda cluster: cluster.seq):
            if cluster.takes_copies:
                self._window.add(cluster)
            self._note_item(cluster)

    def totals(self) -> list[Any]:
        """What belongs to no key and no cluster, for the frontier record."""
        learning = self.learning
        stack = None if learning.stack is None else [learning.stack.name, learning.stack.digest]
        return [
            self._seq,
            self.exposures.flat.total_ms,
            self.exposures.flat.last_item_clock_ms,
            stack,
            learning.epoch,
            learning.since_ms,
            dict(learning.heard_ms),
            *self.exposures.others(),
        ]

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """One record for each name changed since the last call, None where it is gone."""
        changes = self.keys.seal_changes()
        for seq in self._changed_clusters:
            name, cluster = f"{CLUSTER_PREFIX}{seq}", self._clusters.get(seq)
            changes.append((name.encode(), None if cluster is None else self._versions.seal(name, cluster.fields())))
        self._changed_clusters.clear()
        return changes

    @property
    def changed(self) -> bool:
        """Whether ``take_changes`` would give anything."""
        return bool(self.keys.changed or self._changed_clusters)

    def apply(self, event: News, clock_ms: int, emitted_at: datetime) -> list[AlertEvent]:
        """Count an event; the revisions that come of it."""
        self.exposures.advance(clock_ms)
        self.learning.hear(event.stack, self.exposures.flat.total_ms)
        self._seq += 1
        if self._waiting:
            self._go_on()
        revisions: list[AlertEvent] = []
        revised: Collection[str] | None = ()
        status, similarity_key, source = event.status, event.similarity_key, event.source
        if status is not _USABLE:
            revisions, revised = self._revise_told(event, emitted_at)
        if revised is None or event.abstained or status is _WITHDRAWN:
            return revisions
        mentions = self._mentions.of(event)
        entities = tuple([mention.name for mention in mentions if mention.type is ENTITY])
        fold, signature = fold_key(event.title, similarity_key), NO_SIGNATURE
        known = self._window.same(fold)
        if known is None:
            signature = read_signature(similarity_key)
            known = self._window.alike(signature, entities)
        if self._trends is not None:
            self._trends.count(mentions, event, clock_ms, copy=known is not None)
        if known is not None:
            self._add_copy(known)
            return revisions
        counts = count_on(event, mentions, self.rules.targets)
        hits = tuple([count.state for count in counts if count.hit])
        cluster = Cluster(event.event_id, fold, self._seq, clock_ms, signature=signature, entities=entities)
        self._open_cluster(cluster, event, hits)
        if revised or not self._alone:
            cluster.keys = tuple([name for name in hits if name not in revised])
            keeps = self._ownership.keeps
            counts = [each for each in counts if keeps(each.mention.type, each.state) and each.state not in revised]
        learning = self.learning.at(self.exposures.flat.total_ms)
        for count in counts:
            now = self.exposures.of(count.mention.type).now
            entry = self._meet(count.state, now)
            count_cluster(entry.state, source, cluster.seq if count.hit else None, now, self.rules)
            self.keys.mark(entry)
            if count.hit and (entry.state.alert is not None or not learning):
                revisions += self._add_negative(entry, cluster.seq, now, emitted_at)
        return revisions

    def _note_item(self, cluster: Cluster) -> None:
        if cluster.story is not None:
            self._by_item.setdefault(cluster.story.item_id, []).append(cluster)

    def _revise_told(self, event: News, emitted_at: datetime) -> tuple[list[AlertEvent], Collection[str] | None]:
        """Revise the stories that an item corrects or takes back, as far as they are known.

        While the copies of one are known, that is all. Later on only the keys that cite it know of it: to all others
        the item is a new story.

        Returns:
            The revisions, and the names of the keys to which it is none; None where it is to nobody.
        """
        item_ids = dict.fromkeys((event.item_id, event.supersedes or ""))
        told = [cluster for item_id in item_ids for cluster in self._by_item.get(item_id, ())]
        if not told:
            return [], ()
        fresh = any(cluster.takes_copies for cluster in told)
        revisions, revised = self._revise_stories(told, event, emitted_at)
        return revisions, None if fresh else revised

    def _revise_stories(
        self, told: Sequence[Cluster], event: News, emitted_at: datetime
    ) -> tuple[list[AlertEvent], Collection[str]]:
        """Take stories off the keys on which they are negative no more, and revise the alerts that cite them.

        Keys on which only the corrected item is negative do not count it: it is no new story.

        Returns:
            The revisions, and the names of the keys that knew of the stories.
        """
        whole = event.status is _WITHDRAWN
        counts = () if whole or event.abstained else count_on(event, self._mentions.of(event), self.rules.targets)
        still = {count.state for count in counts if count.hit}
        stories_of: dict[str, list[Cluster]] = {}
        for cluster in told:
            assert cluster.story is not None
            cluster.story.revise(event)
            for name in self._concerned(cluster):
                stories_of.setdefault(name, []).append(cluster)
            cluster.keys = tuple([name for name in cluster.keys if name in still or not cluster.takes_copies])
            self._changed_clusters[cluster.seq] = None
        revisions: list[AlertEvent] = []
        for name, stories in stories_of.items():
            entry, lost = self.keys.get(name), name not in still
            assert entry is not None
            for cluster in stories if lost else ():
                take_back(entry.state, cluster, whole=whole)
                cluster.keys = tuple([each for each in cluster.keys if each != name])
            context = self._context(self.exposures.of(entry.key.type).now, emitted_at)
            revisions += self._revise_for(entry, stories, context, lost=lost)
        return revisions, stories_of.keys()

    def _concerned(self, cluster: Cluster) -> Iterator[str]:
        """The keys that a story is to be revised on: once its copies are not known any more, those that cite it."""
        for name in cluster.keys:
            entry = self.keys.get(name)
            if entry is not None and (cluster.takes_copies or cluster.seq in entry.state.cited()):
                yield name

    def _revise_for(
        self, entry: Entry, stories: Sequence[Cluster], context: Context, *, lost: bool
    ) -> Iterator[AlertEvent]:
        """What becomes of a key's alert when some of its stories were corrected or ``lost``."""
        self.keys.mark(entry)
        alert = entry.state.alert
        if alert is None or not (lost or any(cluster.seq in alert.evidence for cluster in stories)):
            return
        if lost and is_spent(entry.state, alert, self._banks.of(entry.key), self.rules, context.now):
            yield self._end(entry, alert, ResolveReason.withdrawn, context)
            return
        self._schedule(entry)
        yield self._revise(entry, alert, context)

    def _add_copy(self, cluster: Cluster) -> None:
        if cluster.story is None:
            return  # nobody is ever told how often
        cluster.copies += 1
        self._changed_clusters[cluster.seq] = None
        for name in cluster.keys:
            entry = self.keys.get(name)
            if entry is not None:
                count_copy(entry.state, cluster)
                self.keys.mark(entry)

    def _open_cluster(self, cluster: Cluster, event: News, hits: tuple[str, ...]) -> None:
        if hits:
            cluster.keys = hits
            cluster.story = first_mention(event, clock_of(event.received_at))
            self._note_item(cluster)
        self._clusters[cluster.seq] = cluster
        self._changed_clusters[cluster.seq] = None
        crowded_out = self._window.add(cluster)
        if crowded_out is not None:
            self._leave_window(crowded_out)

    def _schedule(self, entry: Entry) -> None:
        """Wake the key when it is due; a cluster that is not negative only ever puts that off."""
        due_ms = self._due_ms(entry)
        if due_ms is not None and entry.state.alert is not None:
            due_ms = min(due_ms, self.exposures.of(entry.key.type).still_from_ms)
        if due_ms is not None:
            self._timers.schedule(entry.name, due_ms)

    def _due_ms(self, entry: Entry) -> int | None:
        """The clock at which time alone changes this key: an alert ends, a run is too old. None where it is idle."""
        alert, oldest = entry.state.alert, entry.state.oldest_run()
        if alert is not None:
            return self._end_of(entry, alert).clock_ms
        return None if oldest is None else oldest.first.clock_ms + self._max_run_ms

    def _end_of(self, entry: Entry, alert: Alert) -> Resolution:
        key = entry.key
        return resolution(entry.state, alert, self._banks.of(key), self.rules, self.exposures.of(key.type))

    def _put_off(self, entry: Entry, clock_ms: int) -> None:
        """It is not due yet. Where exposure stands still, only an item can bring the end of an alert nearer."""
        alert = entry.state.alert
        if alert is not None and clock_ms >= self.exposures.of(entry.key.type).still_from_ms:
            self._waiting[entry.name] = None
            self._timers.schedule(entry.name, self._end_of(entry, alert).clock_ms)
        else:
            self._schedule(entry)

    def _go_on(self) -> None:
        """An item came: exposure goes on."""
        for name in self._waiting:
            entry = self.keys.get(name)
            if entry is not None:
                self._schedule(entry)
        self._waiting.clear()

    def _meet(self, name: str, now: Moment) -> Entry:
        """A key; in a new state where it is unknown or forgotten, or known from an earlier stack and not firing."""
        entry, epoch = self.keys.get(name), self.learning.epoch
        if entry is None:
            return self.keys.add(name, KeyState(epoch, self._first_baseline(name, now), now.clock_ms))
        state = entry.state
        if self.keys.is_forgotten(entry, now.clock_ms):
            entry.state = KeyState(epoch, self._first_baseline(name, now), now.clock_ms)
        elif state.epoch != epoch and state.alert is None:
            entry.state = KeyState(epoch, self._first_baseline(name, now), now.clock_ms)
            entry.state.heard, entry.state.blamed = state.heard, state.blamed
            self._release(state.cited())
        return entry

    def _first_baseline(self, name: str, now: Moment) -> Baseline:
        primed = self.rules.primed
        if primed is None or not self.learning.primed:
            return Baseline.starting_after(now.exposure_ms)
        return Baseline.starting_after(now.exposure_ms, primed.baselines.get(name, (0.0, 0.0, 0.0)))

    def count_keys(self) -> tuple[int, int, int]:
        """How many keys are its own, how many of them are young, and how many fire, as of the last batch."""
        guests = [] if self._alone else [name for name in self.keys if not self._ownership.owns(name)]
        entries = [entry for name in guests if (entry := self.keys.get(name)) is not None]
        young = self.keys.young - sum(entry.young for entry in entries)
        firing = self.keys.firing - sum(entry.firing for entry in entries)
        return len(self.keys) - len(guests), young, firing

    def baselines(self) -> dict[str, tuple[float, float, float]]:
        """What a primer would know of the keys that are known under the newest stack (see `Primed`)."""
        return {
            name: state.baseline.taken_to(self._frozen_ms(name, state), self.rules)
            for name, state in self.keys.states()
            if state.epoch == self.learning.epoch
        }

    def _frozen_ms(self, name: str, state: KeyState) -> int:
        """Up to when the baseline of a key counts: until its alert fired, or until the feed's last item."""
        fired = None if state.firing is None else state.firing.fired
        return self.exposures.of(Key.parse(name).type).total_ms if fired is None else fired.exposure_ms

    def _add_negative(self, entry: Entry, seq: int, now: Moment, emitted_at: datetime) -> list[AlertEvent]:
        state = entry.state
        before = state.cited()
        join(state, seq, now, self._level(entry))
        if state.firing is None:
            self._test(entry, now)
        after = state.cited()
        if seq in after:
            self._hold((seq,))
        alert = state.alert
        revisions = [] if alert is None else [self._revise(entry, alert, self._context(now, emitted_at))]
        self._release(before - after)
        if alert is not None or state.has_run_from(seq):  # else an earlier timer waits
            self._schedule(entry)
        return revisions

    def _test(self, entry: Entry, now: Moment) -> None:
        """Open an alert where a chart has crossed its threshold, and let it fire where the evidence is enough."""
        key, state, bank = entry.key, entry.state, self._banks.of(entry.key)
        if state.alert is None and not has_crossed(state.runs, bank, now.exposure_ms):
            return
        charts = readings(state.runs, bank, now.exposure_ms)
        run = charts[0].run
        if state.alert is None:
            first_id = self._clusters[run.first_seq].id
            open_alert(state, alert_id(self._version, key, first_id), kind_of(run, key.target), run, now)
        assert state.alert is not None
        enough = proven(state, key.type, charts, self.rules, now)
        if enough is not None:
            fire(state, state.alert, kind_of(enough, key.target), enough, now)
            self._firing[entry.name] = None

    def _level(self, entry: Entry) -> Level:
        key, baseline, rules = entry.key, entry.state.baseline, self.rules
        share = rules.share_prior_mean
        market = None if key.type is MARKET.type else self.keys.get(key.target.prefix + OF_THE_MARKET.key)
        if market is not None:
            share = market.state.baseline.share(share, rules.share_prior_clusters)
        a, b = baseline.rate(self._priors[key.type])
        return Level(a, b, baseline.share(share, rules.share_prior_clusters))

    def fire_timer(self, limit_ms: int, emitted_at: datetime) -> tuple[int, list[AlertEvent]] | None:
        """Fire the first timer below a clock: its instant and the revisions; None if there is none."""
        oldest = self._window.oldest
        window_ms = limit_ms if oldest is None else oldest.clock_ms + self._window_ms
        fired = self._fire_key(min(window_ms, limit_ms), emitted_at)
        if fired is None and window_ms < limit_ms:
            self._leave_window(self._window.end_oldest())
            return window_ms, []
        return fired

    def _leave_window(self, cluster: Cluster) -> None:
        self._changed_clusters[cluster.seq] = None
        self._drop_unused(cluster)

    def _fire_key(self, limit_ms: int, emitted_at: datetime) -> tuple[int, list[AlertEvent]] | None:
        while (timer := self._timers.take_before(limit_ms)) is not None:
            clock_ms, name = timer
            entry = self.keys.get(name)
            if entry is None:
                continue
            due_ms = self._due_ms(entry)
            if due_ms is None:
                continue
            if due_ms > clock_ms:
                self._put_off(entry, clock_ms)
                continue
            return clock_ms, self._wake(entry, self._context(self._moment(entry.key.type, clock_ms), emitted_at))
        return None

    def _wake(self, entry: Entry, context: Context) -> list[AlertEvent]:
        revisions, state = [], entry.state
        self.keys.mark(entry)
        if state.alert is not None:
            revisions.append(self._end(entry, state.alert, self._end_of(entry, state.alert).reason, context))
        else:
            before = state.cited()
            close_old_runs(state, context.now.clock_ms - self._max_run_ms)
            self._release(before - state.cited())
        self._schedule(entry)
        return revisions

    def sweep(self, clock_ms: int) -> None:
        """Free some memory of keys that are forgotten, as of a clock below which no event comes; no alert tells."""
        self.keys.sweep(clock_ms, SWEPT_KEYS)

    def _end(self, entry: Entry, alert: Alert, reason: ResolveReason, context: Context) -> AlertEvent:
        before = entry.state.cited()
        revision = self._revise(entry, alert, context, reason)
        resolve(entry.state, alert, reason, self._priors[entry.key.type], context.now)
        self._firing.pop(entry.name, None)
        self._release(before - entry.state.cited())
        return revision

    def _moment(self, key_type: KeyType, clock_ms: int) -> Moment:
        return Moment(clock_ms, self.exposures.of(key_type).at(clock_ms))

    def _context(self, now: Moment, emitted_at: datetime) -> Context:
        learning, flat_ms = self.learning, self.exposures.flat.at(now.clock_ms)
        assert learning.stack is not None
        changed = learning.changed_within(flat_ms, self.rules.model_changed_days * DAY_MS)
        return Context(self.rules, self._version, learning.stack, learning.at(flat_ms), changed, now, emitted_at)

    def _revise(self, entry: Entry, alert: Alert, context: Context, reason: ResolveReason | None = None) -> AlertEvent:
        key, state, bank = entry.key, entry.state, self._banks.of(entry.key)
        reading = readings(state.runs, bank, context.now.exposure_ms)[0]
        alert.revision += 1
        alert.height = max(alert.height, reading.ratio)
        findings = Findings(
            reading=reading,
            budget_a_day=bank.budget_a_day,
            n_sources=state.sources_since(alert.run.first_seq),
            evidence=self._evidence_of(alert),
            inhibited_by=self._inhibitors(entry, alert),
        )
        return revision_of(key, alert, findings, context, reason)

    def _evidence_of(self, alert: Alert) -> list[Cluster]:
        return [self._clusters[seq] for seq in alert.evidence]

    def _inhibitors(self, entry: Entry, alert: Alert) -> tuple[AlertRef, ...]:
        """The firing alerts of topics that tell the story of this entity's alert."""
        if entry.key.type is not ENTITY:
            return ()
        stories = self._evidence_of(alert)
        names = {name for story in stories for name in story.keys if name in self._firing}
        return tuple(
            AlertRef(alert_id=other.id, key_type=topic.key.type, key=topic.key.name)
            for topic, other in self._alerts_of_topics(names, entry.key.target)
            if inhibits(topic.name, self._evidence_of(other), entry.name, stories)
        )

    def _alerts_of_topics(self, names: Iterable[str], target: Target) -> Iterator[tuple[Entry, Alert]]:
        for name in sorted(names):
            entry = self.keys.get(name)
            if entry is not None and entry.key.type is TOPIC and entry.key.target == target:
                firing = entry.state.firing
                if firing is not None:
                    yield entry, firing

    def _hold(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self._holders[seq] = self._holders.get(seq, 0) + 1

    def _release(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self._holders[seq] -= 1
            if not self._holders[seq]:
                del self._holders[seq]
                self._drop_unused(self._clusters[seq])

    def _drop_unused(self, cluster: Cluster) -> None:
        if cluster.seq in self._holders or cluster.takes_copies:
            return
        del self._clusters[cluster.seq]
        self._changed_clusters[cluster.seq] = None
        if cluster.story is not None:
            told = self._by_item[cluster.story.item_id]
            told.remove(cluster)
            if not told:
                del self._by_item[cluster.story.item_id]
