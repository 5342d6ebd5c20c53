"""What people did about alerts: making actions, and what the newest of them say of an alert. Pure.

Alerts are published whatever people do; whoever shows or sends them asks here.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from schemas.events import ActionKind, AlertAction, AlertEvent, Matcher
from worker.matchers import match_all

Disposition = Literal["true_alert", "false_alert", "duplicate", "expected"]

KEPT = timedelta(days=90)
"""How long the topic keeps an action; a silence must end within it, else it would go while it holds."""
SWEPT_FROM = 1000


class Actions:
    """The state of the compacted topic, as far as it still says something. Owned by one task.

    ``now`` should not fall from question to question: what had ended by the latest of them, or is older than the topic
    keeps, is forgotten while later actions come, so that memory is bounded by what holds.
    """

    def __init__(self) -> None:
        self._actions: dict[str, AlertAction] = {}
        self._silences: dict[str, AlertAction] = {}
        self._of_alerts: dict[str, dict[str, AlertAction]] = {}
        self._now: datetime | None = None
        self._swept_to = SWEPT_FROM

    def __len__(self) -> int:
        return len(self._actions)

    def apply(self, action_id: str, action: AlertAction | None) -> None:
        """Take up a record of the topic; None: undone."""
        self._forget(action_id)
        if action is None or self._is_over(action):
            return
        self._actions[action_id] = action
        self._group_of(action)[action_id] = action
        if len(self._actions) >= 2 * self._swept_to:
            self._sweep()

    def __iter__(self) -> Iterator[str]:
        return iter(self._actions)

    def get(self, action_id: str) -> AlertAction | None:
        """The action of this id; None where there is none, or it was undone."""
        return self._actions.get(action_id)

    def silence_of(self, alert: AlertEvent, now: datetime) -> AlertAction | None:
        """The silence on this alert at ``now``, and of several the one that ends last."""
        return max((each for each in self._holding(now) if match_all(each.matchers, alert)), key=_by_end, default=None)

    def silences(self, now: datetime) -> tuple[AlertAction, ...]:
        """Silences that hold at ``now`` or will, the one that ends first first."""
        self._look_at(now)
        return tuple(sorted((each for each in self._silences.values() if now < _end_of(each)), key=_by_end))

    def acknowledgement_of(self, alert_id: str) -> AlertAction | None:
        """The newest acknowledgement."""
        return self._newest(alert_id, ActionKind.acknowledge)

    def disposition_of(self, alert_id: str) -> AlertAction | None:
        """The newest judgement of what the alert was."""
        return self._newest(alert_id, ActionKind.disposition)

    def notes_of(self, alert_id: str) -> tuple[AlertAction, ...]:
        """The notes, oldest first."""
        return tuple(self._ordered(alert_id, ActionKind.note))

    def _holding(self, now: datetime) -> Iterator[AlertAction]:
        self._look_at(now)
        for each in self._silences.values():
            assert each.starts_at is not None  # the contract sees to it
            if each.starts_at <= now < _end_of(each):
                yield each

    def _newest(self, alert_id: str, kind: ActionKind) -> AlertAction | None:
        return next(reversed(self._ordered(alert_id, kind)), None)

    def _ordered(self, alert_id: str, kind: ActionKind) -> list[AlertAction]:
        found = self._of_alerts.get(alert_id, {}).items()
        return [action for _, action in sorted(found, key=_by_time) if action.kind is kind]

    def _group_of(self, action: AlertAction) -> dict[str, AlertAction]:
        if action.alert_id is None:
            return self._silences
        return self._of_alerts.setdefault(action.alert_id, {})

    def _forget(self, action_id: str) -> None:
        action = self._actions.pop(action_id, None)
        if action is None:
            return
        group = self._group_of(action)
        del group[action_id]
        if not group and action.alert_id is not None:
            del self._of_alerts[action.alert_id]

    def _look_at(self, now: datetime) -> None:
        self._now = now if self._now is None else max(self._now, now)

    def _is_over(self, action: AlertAction) -> bool:
        if self._now is None:
            return False
        return self._now >= (action.at + KEPT if action.ends_at is None else action.ends_at)

    def _sweep(self) -> None:
        for action_id in [each for each, action in self._actions.items() if self._is_over(action)]:
            self._forget(action_id)
        self._swept_to = max(SWEPT_FROM, len(self._actions))


def _end_of(silence: AlertAction) -> datetime:
    assert silence.ends_at is not None  # the contract sees to it
    return silence.ends_at


def _by_end(silence: AlertAction) -> tuple[datetime, str]:
    return _end_of(silence), silence.action_id


def _by_time(applied: tuple[str, AlertAction]) -> tuple[datetime, str]:
    action_id, action = applied
    return action.at, action_id


def decode_action(value: bytes | None) -> AlertAction | None:
    """The action in a record; None where it was undone, or is nothing this program can read."""
    try:
        return None if value is None else AlertAction.model_validate_json(value)
    except ValidationError:
        return None


def acknowledge(alert_id: str, *, by: str, at: datetime, comment: str = "") -> AlertAction:
    """Somebody has seen the alert and looks after it; takes the place of an earlier one's."""
    kind = ActionKind.acknowledge
    return AlertAction(action_id=f"{kind}:{alert_id}", kind=kind, by=by, at=at, alert_id=alert_id, comment=comment)


def dispose(alert_id: str, disposition: Disposition, *, by: str, at: datetime, comment: str = "") -> AlertAction:
    """What the alert turned out to be; takes the place of an earlier judgement."""
    kind = ActionKind.disposition
    return AlertAction(
        action_id=f"{kind}:{alert_id}",
        kind=kind,
        by=by,
        at=at,
        alert_id=alert_id,
        disposition=disposition,
        comment=comment,
    )


def note(alert_id: str, text: str, *, by: str, at: datetime, token: str) -> AlertAction:
    """Something to be known about the alert; ``token`` tells it from other notes."""
    kind = ActionKind.note
    return AlertAction(action_id=f"{kind}:{token}", kind=kind, by=by, at=at, alert_id=alert_id, comment=text)


def silence(
    matchers: Iterable[Matcher],
    starts_at: datetime,
    ends_at: datetime,
    *,
    by: str,
    at: datetime,
    token: str,
    comment: str = "",
) -> AlertAction:
    """Nobody wants to be told of what all the matchers hold for; ``token`` tells it from other silences.

    Raises:
        ValueError: it ends before it starts, or later than the topic would keep it.
    """
    if ends_at - at > KEPT:
        raise ValueError(f"a silence must end within {KEPT.days} days, since the topic keeps it no longer")
    kind = ActionKind.silence
    return AlertAction(
        action_id=f"{kind}:{token}",
        kind=kind,
        by=by,
        at=at,
        matchers=tuple(matchers),
        starts_at=starts_at,
        ends_at=ends_at,
        comment=comment,
    )
