"""The loop of one receiver: reads alerts as a group of its own, decides, sends, remembers, commits.

In that order, so that a crash repeats and never loses: what was sent is written down before its offset is committed.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.events import AlertEvent
from worker.codec import decode_event
from worker.errors import Fenced, Retriable
from worker.kafka.connection import Committed, Place
from worker.kafka.sink import Writer
from worker.kafka.source import GroupSource, Ownership
from worker.log import get_logger
from worker.metrics import NOTIFIED, NOTIFY_OLDEST_SECONDS, NOTIFY_REFUSED, NOTIFY_RETRIED
from worker.notify.backoff import Backoff
from worker.notify.decision import News, People, Route, strongest_first
from worker.notify.ledger import Ledger
from worker.notify.letters import Channel, Letter, Refused, TryAgain, idempotency_key
from worker.notify.memory import encode_told, read_alerts, read_told
from worker.notify.sending import Post
from worker.notify.storm import StormCap
from worker.records import Record
from worker.runner.surroundings import read_wall_clock
from worker.runner.vitals import Vitals
from worker.settings import Settings
from worker.sinks.tail import open_reader

FETCH_RECORDS = 500
FETCH_SECONDS = 0.5
TURN_SECONDS = 5.0  # of sending, before it is looked for what is new
PAUSE_SECONDS = 1.0
SAID_ALERTS = 10
READ_MARK = "read"  # the metadata of a committed offset; a group without any is new

log = get_logger()


@dataclass(slots=True)
class Desk:
    """What a courier works with. ``storm`` is None where the receiver groups by itself."""

    receiver: str
    channel: Channel
    post: Post
    storm: StormCap | None
    backoff: Backoff = field(default_factory=Backoff)
    now: Callable[[], datetime] = read_wall_clock


class Courier:
    """Brings alerts to one receiver. Owned by one event loop; ``run`` is its only task."""

    def __init__(self, settings: Settings, routes: Sequence[Route], people: People, desk: Desk, vitals: Vitals) -> None:
        self._settings = settings
        self._routes = routes
        self._people = people
        self._desk = desk
        self._vitals = vitals
        self._place = Place(settings.topic_names.alerts, 0)
        self._ledger = Ledger(desk.receiver, routes, {})
        self._epoch = -1
        self._position = 0
        self._committed = -1
        self._hurries = False
        self._tried: dict[str, int] = {}
        self._said_at: dict[str, datetime] = {}
        self._digest: tuple[News, ...] = ()
        self.turned_at_seconds: float | None = None
        self._source = GroupSource(
            settings.kafka,
            self._place.topic,
            f"{settings.group_prefix}-notify-{desk.receiver}",
            stable=False,
            when_revoked=_let_go,
            recall=_recall_nothing,
        )
        self._writer = Writer(settings.kafka, f"notify {desk.receiver}")

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what is not sent by then is sent after the next start.

        Raises:
            Fatal: what only a person mends.
        """
        self._vitals.waiting_for = "the broker"
        try:
            await self._writer.start()
            await self._source.start()
            while not stop.is_set():
                await self._turn(stop)
        finally:
            await self._source.stop()
            await self._writer.stop()

    async def _turn(self, stop: asyncio.Event) -> None:
        wait_seconds = 0.0 if self._hurries else FETCH_SECONDS
        records = await self._source.fetch(FETCH_RECORDS, wait_seconds, hold=self._ledger.is_full)
        self.turned_at_seconds = asyncio.get_running_loop().time()
        ownership = self._source.ownership
        self._vitals.waiting_for = "its group" if ownership is None else None
        if ownership is None or self._place.partition not in ownership.committed:
            NOTIFY_OLDEST_SECONDS.labels(self._desk.receiver).set(0)
            return  # another one brings the alerts, or it is not clear yet who does
        try:
            if ownership.epoch != self._epoch and not await self._begin(ownership):
                return
            self._take(records)
            await self._deliver(stop)
            await self._remember()
            await self._commit(self._ledger.next_offset(self._position), ownership)
        except (Fenced, Retriable) as error:
            self._vitals.waiting_for = "the broker"
            log.warning("notify.waiting", receiver=self._desk.receiver, error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
            await self._writer.start()
            self._source.reopen()  # a new epoch begins with what is written

    async def _begin(self, ownership: Ownership) -> bool:
        """Take the receiver over: what it was told, and what goes on. False where the group had to be begun first."""
        start = ownership.committed[self._place.partition]
        async with open_reader(self._settings, f"notify {self._desk.receiver}") as reader:
            told = await read_told(reader, self._settings, self._desk.receiver)
            alerts, end = await read_alerts(reader, self._settings)
        self._committed = -1
        if not start.metadata:  # a new group: what is over is no news, what goes on is
            await self._commit(end, ownership)
            self._source.reopen()
            return False
        self._ledger = Ledger(self._desk.receiver, self._routes, told)
        for alert in alerts:
            self._ledger.resume(alert, self._desk.now())
        self._position = start.offset
        self._digest = ()
        self._epoch = ownership.epoch
        log.info("notify.began", receiver=self._desk.receiver, offset=start.offset, alerts=len(alerts), told=len(told))
        return True

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            self._position = record.offset + 1
            if record.value is not None:
                self._ledger.take(decode_event(AlertEvent, record), record.offset, self._desk.now())

    async def _deliver(self, stop: asyncio.Event) -> None:
        """Send what is due, until one fails, or it is time to look for what is new."""
        now = self._desk.now()
        owed = self._sift(self._ledger.review(now, self._people))
        oldest = self._ledger.oldest_owed()
        NOTIFY_OLDEST_SECONDS.labels(self._desk.receiver).set((now - oldest).total_seconds() if oldest else 0)
        self._hurries = False
        if not self._desk.backoff.is_over(now):
            return
        loop = asyncio.get_running_loop()
        deadline_seconds = loop.time() + TURN_SECONDS
        for batch in self._batches([*owed, *self._due_again(now)]):
            if stop.is_set():
                return
            if loop.time() > deadline_seconds:
                self._hurries = True
                return
            now = self._desk.now()
            if not await self._send(self._desk.channel.compose(batch, now), batch):
                return
        await self._deliver_digest(owed)

    def _sift(self, owed: Sequence[News]) -> Sequence[News]:
        """Without what this kind of receiver is never told; those that failed least come first."""
        told = []
        for news in strongest_first(owed):
            if self._desk.channel.revises or news.is_new or news.is_end:
                told.append(news)
            else:
                self._ledger.pass_by(news)
        alert_ids = {news.alert.alert_id for news in told}
        self._tried = {alert_id: count for alert_id, count in self._tried.items() if alert_id in alert_ids}
        if self._desk.storm is not None:
            self._desk.storm.retain(alert_ids)
        return sorted(told, key=lambda news: self._tried.get(news.alert.alert_id, 0))

    def _due_again(self, now: datetime) -> Iterator[News]:
        """What the receiver would take as over if it were not said again."""
        if self._desk.channel.resend_seconds is None:
            return
        pause = timedelta(seconds=self._desk.channel.resend_seconds)
        firing = {news.alert.alert_id: news for news in self._ledger.firing()}
        self._said_at = {alert_id: at for alert_id, at in self._said_at.items() if alert_id in firing}
        for alert_id, news in firing.items():
            if alert_id not in self._said_at or now >= self._said_at[alert_id] + pause:
                yield news

    def _batches(self, due: Sequence[News]) -> Iterator[Sequence[News]]:
        """As many at once as a letter holds; without those over the storm cap, which is asked as late as can be."""
        for start in range(0, len(due), self._desk.channel.most):
            batch = due[start : start + self._desk.channel.most]
            if storm := self._desk.storm:
                now = self._desk.now()
                batch = [news for news in batch if not news.is_new or storm.admit(news.alert.alert_id, now)]
            if batch:
                yield batch

    async def _deliver_digest(self, owed: Sequence[News]) -> None:
        storm, now = self._desk.storm, self._desk.now()
        if storm is None or not storm.is_digest_due(now):
            self._digest = ()
            return
        if not self._digest:  # the same until it has arrived, so that its key is the same
            self._digest = tuple(news for news in owed if storm.is_over(news.alert.alert_id))
        letter = self._desk.channel.compose_digest(self._digest, now)
        if await self._send(letter, self._digest, grouped=True):
            storm.close({news.alert.alert_id for news in self._digest}, self._desk.now())
            self._digest = ()

    async def _send(self, letter: Letter, batch: Sequence[News], *, grouped: bool = False) -> bool:
        """Send a letter and write down what became of it; False if it is to be sent again."""
        answer = await self._desk.post.send(letter, self._desk.channel, self._desk.now())
        if isinstance(answer, TryAgain):
            self._fail(answer, batch)
            return False
        self._recover()
        for news in batch:
            self._said_at[news.alert.alert_id] = self._desk.now()
            if news.again:
                continue
            if isinstance(answer, Refused):
                self._ledger.pass_by(news)
                continue
            own = not grouped and news.told.reference is None  # a digest is no alert's own message, nor is a reply
            self._ledger.sent(news, answer.reference if own else None, grouped=grouped)
            if self._desk.storm is not None and news.is_new and not grouped:
                self._desk.storm.count(self._desk.now())
        counter = NOTIFY_REFUSED if isinstance(answer, Refused) else NOTIFIED
        counter.labels(self._desk.receiver).inc(sum(not news.again for news in batch))
        if isinstance(answer, Refused):
            revisions = [idempotency_key(news) for news in batch[:SAID_ALERTS]]
            log.error("notify.refused", receiver=self._desk.receiver, alerts=revisions, answer=answer.reason)
        await self._remember()
        return True

    def _fail(self, answer: TryAgain, batch: Sequence[News]) -> None:
        for news in batch:
            alert_id = news.alert.alert_id
            self._tried[alert_id] = self._tried.get(alert_id, 0) + 1
            if answer.lost:
                self._ledger.lose_reference(news)
        NOTIFY_RETRIED.labels(self._desk.receiver).inc()
        backoff = self._desk.backoff
        seconds = backoff.fail(self._desk.now(), random.random(), answer.after_seconds)  # noqa: S311 -- no secret
        if backoff.is_worth_saying:
            log.warning(
                "notify.failing",
                receiver=self._desk.receiver,
                failures=backoff.failures,
                wait_seconds=round(seconds, 1),
                answer=answer.reason,
            )

    def _recover(self) -> None:
        if self._desk.backoff.failures:
            log.info("notify.recovered", receiver=self._desk.receiver, failures=self._desk.backoff.failures)
        self._desk.backoff.succeed()

    async def _remember(self) -> None:
        """Write down what the receiver was told since the last time."""
        changes = self._ledger.take_changes()
        if changes:
            await self._writer.write(encode_told(self._settings.topic_names.notify_state, self._desk.receiver, changes))

    async def _commit(self, offset: int, ownership: Ownership) -> None:
        if offset > self._committed:
            await self._source.commit({self._place: Committed(offset, READ_MARK)}, ownership.membership)
            self._committed = offset


async def _let_go() -> None:
    """Nothing is under way that another could not repeat."""


async def _recall_nothing(partitions: Collection[int]) -> Mapping[int, str]:  # noqa: ARG001 -- the source's signature
    return {}
