"""What becomes of a revision of an alert for one receiver: sent, kept for later, or dropped. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from schemas.events import AlertAction, AlertEvent, AlertStatus, Matcher, Severity
from worker.matchers import match_all
from worker.notify.hours import Hours

SEVERITIES = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Route:
    """Which alerts go to a receiver, and when; the first route that matches an alert takes it, unless ``goes_on``."""

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    active: Hours | None = None
    outside: Literal["hold", "drop"] = "hold"
    goes_on: bool = False
    include_pending: bool = False
    inhibited: Literal["hide", "send"] = "hide"


@dataclass(frozen=True, slots=True)
class Told:
    """What a receiver knows of an alert; travels over a restart.

    ``settled`` is the newest revision that needs no more work, sent or not; ``sent`` the newest that was sent, 0 while
    none was. ``severity`` and ``status`` are those that were sent. ``grouped``: it was only named in a digest.
    ``withheld``: the last decision was not to send it, so that its end is no news either. ``reference`` is where the
    message stands, in the receiver's terms.
    """

    settled: int = 0
    sent: int = 0
    severity: Severity | None = None
    status: AlertStatus | None = None
    grouped: bool = False
    withheld: bool = False
    reference: str | None = None

    def after(self, alert: AlertEvent, reference: str | None, *, grouped: bool) -> "Told":
        """Once this revision was sent."""
        return Told(
            settled=alert.revision,
            sent=alert.revision,
            severity=alert.severity,
            status=alert.status,
            grouped=grouped,
            reference=self.reference if reference is None else reference,
        )

    def without(self, alert: AlertEvent) -> "Told":
        """Once it is clear that this revision will not be sent."""
        return replace(self, settled=alert.revision)


UNTOLD = Told()


class Outcome(StrEnum):
    """What to do with a revision: ``keep`` means to ask again later."""

    send = "send"
    keep = "keep"
    drop = "drop"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why in a few words; ``withheld`` as in `Told`."""

    outcome: Outcome
    why: str
    withheld: bool = False


class People(Protocol):
    """What people did about alerts."""

    def silence_of(self, alert: AlertEvent, now: datetime) -> AlertAction | None:
        """The silence that holds for the alert now."""

    def acknowledgement_of(self, alert_id: str) -> AlertAction | None:
        """Who has taken the alert on."""


def choose_route(routes: Iterable[Route], receiver: str, alert: AlertEvent) -> Route | None:
    """The route by which an alert reaches a receiver; None if it does not."""
    for route in routes:
        if match_all(route.matchers, alert):
            if route.receiver == receiver:
                return route
            if not route.goes_on:
                return None
    return None


def is_rise(alert: AlertEvent, told: Told) -> bool:
    """Whether the alert is graver than what was sent of it."""
    if alert.severity is None or alert.severity is told.severity:
        return False
    return told.severity is None or SEVERITIES.index(alert.severity) > SEVERITIES.index(told.severity)


def decide(alert: AlertEvent, told: Told, route: Route | None, now: datetime, people: People) -> Decision:
    """What becomes of the newest revision of an alert.

    Who was told of an alert is told of its end, even if no route leads there any more. An alert that began and ended
    while nothing could be sent is news once; one that was withheld until its end is none.
    """
    if alert.revision <= told.settled:
        return Decision(Outcome.drop, "known")
    if told.sent:
        return _decide_further(alert, told, route, now, people)
    if route is None:
        return Decision(Outcome.drop, "no route")
    return _decide_first(alert, told, route, now, people)


def _decide_first(alert: AlertEvent, told: Told, route: Route, now: datetime, people: People) -> Decision:
    ended = alert.status is AlertStatus.resolved
    if ended and told.withheld:
        return Decision(Outcome.drop, "ended untold", withheld=True)
    if (reason := _never_now(alert, route)) is not None:
        return Decision(Outcome.drop, reason, withheld=True)
    if (reason := _not_now(alert, route, now, people)) is not None:
        dropped = ended or (reason == "closed" and route.outside == "drop")
        return Decision(Outcome.drop if dropped else Outcome.keep, reason, withheld=True)
    return Decision(Outcome.send, "new")


def _decide_further(alert: AlertEvent, told: Told, route: Route | None, now: datetime, people: People) -> Decision:
    """Of an alert that the receiver knows: closed hours and silences delay, and drop nothing."""
    ended = alert.status is AlertStatus.resolved
    if not ended and route is None:
        return Decision(Outcome.drop, "no route")
    if not ended and not is_rise(alert, told):
        if told.grouped:
            return Decision(Outcome.drop, "grouped")
        if people.acknowledgement_of(alert.alert_id) is not None:
            return Decision(Outcome.drop, "acknowledged")
    if (reason := _not_now(alert, route, now, people)) is not None:
        return Decision(Outcome.keep, reason)
    return Decision(Outcome.send, "ended" if ended else "revised")


def _never_now(alert: AlertEvent, route: Route) -> str | None:
    if alert.status is AlertStatus.pending and not route.include_pending:
        return "pending"
    if alert.inhibited_by and route.inhibited == "hide":
        return "inhibited"
    return None


def _not_now(alert: AlertEvent, route: Route | None, now: datetime, people: People) -> str | None:
    if people.silence_of(alert, now) is not None:
        return "silenced"
    if route is not None and route.active is not None and not route.active.is_open(now):
        return "closed"
    return None


@dataclass(frozen=True, slots=True)
class News:
    """A revision to be sent, and what the receiver knew before.

    ``again``: it knows of it already, and is told that it goes on.
    """

    alert: AlertEvent
    told: Told = UNTOLD
    again: bool = False

    @property
    def ended(self) -> bool:
        """Whether the alert is over."""
        return self.alert.status is AlertStatus.resolved

    @property
    def is_end(self) -> bool:
        """Whether the receiver hears for the first time that the alert is over."""
        return self.ended and self.told.status is not AlertStatus.resolved

    @property
    def is_new(self) -> bool:
        """Whether it counts against the storm cap: the receiver has no message of its own about the alert."""
        return not self.told.sent or self.told.grouped


def strongest_first(news: Iterable[News]) -> Sequence[News]:
    """By severity, then by how far beyond the threshold; ended ones last."""

    def rank(each: News) -> tuple[bool, int, float]:
        severity = each.alert.severity
        return each.ended, -(SEVERITIES.index(severity) if severity else -1), -each.alert.W / each.alert.h

    return sorted(news, key=rank)
