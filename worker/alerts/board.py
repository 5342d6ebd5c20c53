"""All alerts with what people did about them, as somebody asks for them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from schemas.events import AlertAction, AlertEvent, AlertStatus, Matcher
from worker.actions import Actions, decode_action
from worker.errors import WorkerError
from worker.matchers import match_all

SHORT_CHARS = 8
TOLD = 5
_ORDER = (AlertStatus.firing, AlertStatus.pending, AlertStatus.resolved)


class NotFound(WorkerError):  # noqa: N818 -- names what it is
    """What was asked for is not there, or not just once; the message says what is."""


@dataclass(frozen=True, slots=True)
class Board:
    """The newest revision of each alert, and the actions; ``foreign`` counts records that are neither."""

    alerts: Mapping[str, AlertEvent]
    actions: Actions
    foreign: int = 0

    def find(self, prefix: str) -> AlertEvent:
        """The alert whose id is this, or alone begins so.

        Raises:
            NotFound: names what might have been meant.
        """
        mend = "`stacknorm-worker alerts list --all` shows which there are"
        return self.alerts[_find_only("alert", prefix, self.alerts, mend)]

    def find_action(self, prefix: str) -> str:
        """The id of the action whose id is this, or alone begins so.

        Raises:
            NotFound: names what might have been meant.
        """
        mend = "`stacknorm-worker alerts show ALERT` and `alerts silences` name them"
        return _find_only("action", prefix, self.actions, mend)

    def select(self, matchers: Sequence[Matcher], *, everything: bool) -> list[AlertEvent]:
        """The alerts that match: those that fire, the strongest first; others only if told, or if a status is named."""
        everything = everything or any(matcher.field == "status" for matcher in matchers)
        meant = (alert for alert in self.alerts.values() if everything or alert.status is AlertStatus.firing)
        return sorted((alert for alert in meant if match_all(matchers, alert)), key=_rank)

    def shorten(self) -> dict[str, str]:
        """The beginning of each alert's id that is unique, eight characters at least."""
        ordered = sorted(self.alerts)
        shared = [0, *(_count_shared(one, other) for one, other in pairwise(ordered)), 0]
        return {
            each: each[: max(SHORT_CHARS, before + 1, after + 1)]
            for each, (before, after) in zip(ordered, pairwise(shared), strict=False)
        }

    def done_about(self, alert: AlertEvent, now: datetime) -> list[AlertAction]:
        """What people did about an alert, oldest first, and the silence on it."""
        ours = (
            self.actions.acknowledgement_of(alert.alert_id),
            self.actions.disposition_of(alert.alert_id),
            self.actions.silence_of(alert, now),
            *self.actions.notes_of(alert.alert_id),
        )
        return sorted((each for each in ours if each is not None), key=lambda each: (each.at, each.action_id))

    def find_included(self, alert: AlertEvent) -> list[AlertEvent]:
        """The narrower alerts whose story this one tells, as they say."""
        narrower = (
            other for other in self.alerts.values() if any(ref.alert_id == alert.alert_id for ref in other.inhibited_by)
        )
        return sorted(narrower, key=_rank)

    def describe(self, alert: AlertEvent, now: datetime) -> dict[str, Any]:
        """An alert, what people did about it and the alerts it includes, for scripts; absent where there is none."""
        said = {
            "alert": alert,
            "acknowledgement": self.actions.acknowledgement_of(alert.alert_id),
            "silence": self.actions.silence_of(alert, now),
            "disposition": self.actions.disposition_of(alert.alert_id),
        }
        told: dict[str, Any] = {name: as_data(event) for name, event in said.items() if event is not None}
        notes = [as_data(each) for each in self.actions.notes_of(alert.alert_id)]
        includes = [each.alert_id for each in self.find_included(alert)]
        return told | ({"notes": notes} if notes else {}) | ({"includes": includes} if includes else {})


def as_data(event: AlertEvent | AlertAction) -> dict[str, Any]:
    """An event as its JSON says it."""
    return event.model_dump(mode="json", exclude_none=True)


def _find_only(what: str, prefix: str, ids: Iterable[str], mend: str) -> str:
    found = sorted(each for each in ids if prefix and each.startswith(prefix))
    if not found:
        raise NotFound(f"no {what} begins with {prefix!r}; {mend}")
    if found[0] != prefix and len(found) > 1:
        more = ", ..." if len(found) > TOLD else ""
        raise NotFound(f"{len(found)} {what}s begin with {prefix!r}: {', '.join(found[:TOLD])}{more}")
    return found[0]


def _count_shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


def _rank(alert: AlertEvent) -> tuple[int, float, str]:
    resolved = alert.status is AlertStatus.resolved
    within = -alert.starts_at.timestamp() if resolved else -alert.W / alert.h  # of those that are over, the newest
    return _ORDER.index(alert.status), within, alert.alert_id


def make_board(alerts: Mapping[bytes, bytes | None], actions: Mapping[bytes, bytes | None]) -> Board:
    """The board from the newest values of both topics."""
    read = [_decode_alert(value) for value in alerts.values() if value is not None]
    done = {key.decode(errors="replace"): decode_action(value) for key, value in actions.items() if value is not None}
    state = Actions()
    for action_id, action in done.items():
        state.apply(action_id, action)
    foreign = [*read, *done.values()].count(None)
    return Board({alert.alert_id: alert for alert in read if alert is not None}, state, foreign)


def _decode_alert(value: bytes) -> AlertEvent | None:
    try:
        return AlertEvent.model_validate_json(value)
    except ValidationError:
        return None
