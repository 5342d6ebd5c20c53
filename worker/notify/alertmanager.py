"""Prometheus' Alertmanager, API v2: labels, annotations and times, said again while an alert goes on. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import orjson

from schemas.events import AlertEvent, AlertStatus, Severity, format_instant
from worker.notify.decision import News
from worker.notify.letters import Answer, Letter, Reply, read_status
from worker.notify.wording import chance, headline, summary, top_evidence

RESENDS_MISSED = 4  # Alertmanager takes an alert as resolved that is not said again for so many times


class AlertmanagerChannel:
    """Posts any number of alerts at once; Alertmanager groups them itself, so there is no digest."""

    most = 64
    revises = True

    def __init__(self, url: str, token: str | None, resend_seconds: float) -> None:
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self.resend_seconds: float | None = resend_seconds
        self._kept = timedelta(seconds=RESENDS_MISSED * resend_seconds)

    def compose(self, news: Sequence[News], now: datetime) -> Letter:
        """See `Channel`."""
        posted = [alert for each in news for alert in self._describe(each, now)]
        return Letter(self._url, orjson.dumps(posted), self._headers)

    def compose_digest(self, news: Sequence[News], now: datetime) -> Letter:
        """See `Channel`; never asked for."""
        return self.compose(news, now)

    def read(self, reply: Reply, now: datetime) -> Answer:
        """See `Channel`."""
        return read_status(reply, now)

    def _describe(self, news: News, now: datetime) -> Iterator[Mapping[str, object]]:
        """One alert; two where the severity rose, since with other labels it is another one to Alertmanager."""
        alert, told = news.alert, news.told
        if news.again:
            yield _post(alert, told.severity, now + self._kept)
            return
        relabelled = told.status is AlertStatus.firing and told.severity is not alert.severity
        if relabelled:
            yield _post(alert, told.severity, now)
        if not news.ended:
            yield _post(alert, alert.severity, now + self._kept)
        elif not relabelled:
            yield _post(alert, alert.severity, min(alert.ends_at or now, now))


def _post(alert: AlertEvent, severity: Severity | None, ends_at: datetime) -> Mapping[str, object]:
    starts_at = min(alert.starts_at, ends_at)
    return {
        "labels": labels(alert, severity),
        "annotations": annotations(alert),
        "startsAt": format_instant(starts_at),
        "endsAt": format_instant(ends_at),
    }


def labels(alert: AlertEvent, severity: Severity | None) -> dict[str, str]:
    """What tells one alert from another."""
    found = {
        "alertname": "".join(word.capitalize() for word in alert.kind.value.split("_")),
        "alert_id": alert.alert_id,
        "kind": alert.kind.value,
        "key_type": alert.key_type.value,
        "key": alert.key,
        "job": "stacknorm",
    }
    if severity is not None:
        found["severity"] = severity.value
    return found


def annotations(alert: AlertEvent) -> dict[str, str]:
    """What people read."""
    found = {"summary": headline(alert), "description": summary(alert)}
    if (odds := chance(alert)) is not None:
        found["chance"] = odds
    for number, story in enumerate(top_evidence(alert), start=1):
        found[f"evidence_{number}"] = f"{story.title} ({story.source})"
    return found
