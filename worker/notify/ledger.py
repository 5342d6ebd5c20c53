"""The alerts that one receiver may still have to hear of, and how far its offset may be committed. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from schemas.events import AlertEvent, AlertStatus
from worker.notify.decision import UNTOLD, Decision, News, Outcome, People, Route, Told, choose_route, decide

MAX_OWED = 10_000  # alerts; a receiver that is behind with more is not given more
MAX_TOLD = 20_000


@dataclass(slots=True)
class Live:
    """An alert that goes on, or whose end is not told. ``offset`` is None once its newest revision needs no record."""

    alert: AlertEvent
    offset: int | None
    since: datetime
    decision: Decision | None = None


class Ledger:
    """Of each alert the newest revision, and what the receiver was told. Owned by the loop of that receiver."""

    def __init__(
        self, receiver: str, routes: Sequence[Route], told: Mapping[str, Told], most_owed: int = MAX_OWED
    ) -> None:
        self._receiver = receiver
        self._most_owed = most_owed
        self._routes = routes
        self._told = dict(told)
        self._live: dict[str, Live] = {}
        self._changed: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more should be read for now: too much of what was read is still to be sent."""
        return sum(live.offset is not None for live in self._live.values()) >= self._most_owed

    def told(self, alert_id: str) -> Told:
        """What the receiver knows of an alert."""
        return self._told.get(alert_id, UNTOLD)

    def resume(self, alert: AlertEvent, now: datetime) -> None:
        """An alert as it stands at the start: one that goes on, or whose end was not told to who knew of it."""
        told = self.told(alert.alert_id)
        if alert.status is not AlertStatus.resolved or (told.sent and told.settled < alert.revision):
            self._live[alert.alert_id] = Live(alert, None, now)

    def take(self, alert: AlertEvent, offset: int, now: datetime) -> None:
        """A revision as it comes; only the newest of an alert is kept."""
        live = self._live.get(alert.alert_id)
        if alert.revision <= self.told(alert.alert_id).settled or (live and alert.revision < live.alert.revision):
            return
        if live is None:
            self._live[alert.alert_id] = Live(alert, offset, now)
            return
        owed = self._is_owed(live)
        live.alert = alert
        live.offset = offset if live.offset is None else live.offset
        live.since = live.since if owed else now

    def review(self, now: datetime, people: People) -> list[News]:
        """Decide on all that is not settled; what is to be sent, the oldest first."""
        owed = []
        for alert_id, live in list(self._live.items()):
            told = self.told(alert_id)
            if live.alert.revision <= told.settled:
                continue
            route = choose_route(self._routes, self._receiver, live.alert)
            live.decision = decide(live.alert, told, route, now, people)
            if live.decision.withheld is not told.withheld:
                self._put(alert_id, replace(told, withheld=live.decision.withheld))
            if live.decision.outcome is Outcome.send:
                owed.append(News(live.alert, self.told(alert_id)))
            elif live.decision.outcome is Outcome.drop:
                self._settle(live, self.told(alert_id).without(live.alert), keep=live.decision.why != "no route")
            else:
                live.offset = None  # it is found again by what it is
        return owed

    def sent(self, news: News, reference: str | None = None, *, grouped: bool = False) -> None:
        """A revision was delivered."""
        told = self.told(news.alert.alert_id).after(news.alert, reference, grouped=grouped)
        self._settle_sent(news, told)

    def pass_by(self, news: News) -> None:
        """A revision that was refused, or is not for this kind of receiver: what it knows stays as it is."""
        told = self.told(news.alert.alert_id).without(news.alert)
        self._settle_sent(news, replace(told, withheld=not told.sent))

    def lose_reference(self, news: News) -> None:
        """The receiver no longer has the message."""
        self._put(news.alert.alert_id, replace(self.told(news.alert.alert_id), reference=None))

    def firing(self) -> Iterator[News]:
        """What the receiver believes to go on, and does."""
        for alert_id, live in self._live.items():
            told = self.told(alert_id)
            if told.sent and told.status is AlertStatus.firing and live.alert.status is AlertStatus.firing:
                yield News(live.alert, told, again=True)

    def take_changes(self) -> dict[str, Told]:
        """What is to be remembered over a restart, since the last call."""
        changed = {alert_id: self.told(alert_id) for alert_id in self._changed}
        self._changed.clear()
        return changed

    def next_offset(self, position: int) -> int:
        """Up to where nothing is needed any more, of what was read up to ``position``."""
        return min((live.offset for live in self._live.values() if live.offset is not None), default=position)

    def oldest_owed(self) -> datetime | None:
        """Since when the oldest revision waits that should have been sent."""
        return min((live.since for live in self._live.values() if self._is_owed(live)), default=None)

    def _is_owed(self, live: Live) -> bool:
        wanted = live.decision is not None and live.decision.outcome is Outcome.send
        return wanted and live.alert.revision > self.told(live.alert.alert_id).settled

    def _settle_sent(self, news: News, told: Told) -> None:
        live = self._live.get(news.alert.alert_id)
        if live is not None and live.alert.revision == news.alert.revision:
            self._settle(live, told, keep=True)
        else:
            self._put(news.alert.alert_id, told)

    def _settle(self, live: Live, told: Told, *, keep: bool) -> None:
        live.offset = None
        self._put(live.alert.alert_id, told, keep=keep)
        if live.alert.status is AlertStatus.resolved:
            del self._live[live.alert.alert_id]
            self._forget_oldest()

    def _put(self, alert_id: str, told: Told, *, keep: bool = True) -> None:
        self._told[alert_id] = told
        if keep:
            self._changed.add(alert_id)

    def _forget_oldest(self) -> None:
        """Bounds what is remembered of alerts that are over."""
        if len(self._told) > MAX_TOLD:
            for alert_id in [each for each in self._told if each not in self._live][: MAX_TOLD // 10]:
                del self._told[alert_id]
