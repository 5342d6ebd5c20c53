"""Alerts as people count them: those that fired, each with its revisions since then. Pure."""

from collections.abc import Iterable

from schemas.events import AlertEvent, AlertStatus


def fired_lives(alerts: Iterable[AlertEvent]) -> list[list[AlertEvent]]:
    """The revisions of each alert from the first on with which it fired, alerts in the order in which they did.

    Those that were pending, and ended so, are none that anybody was told of.
    """
    lives: dict[str, list[AlertEvent]] = {}
    for alert in alerts:
        if alert.status is AlertStatus.firing:
            lives.setdefault(alert.alert_id, []).append(alert)
        elif alert.alert_id in lives:
            lives[alert.alert_id].append(alert)
    return list(lives.values())
