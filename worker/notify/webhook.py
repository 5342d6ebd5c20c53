"""A webhook: the alert as it was published, signed. Pure."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson

from schemas.events import AlertEvent, format_instant
from worker.notify.decision import News, strongest_first
from worker.notify.letters import Answer, Letter, Reply, idempotency_key, read_status
from worker.notify.wording import DIGEST_NAMED, headline, summary

SIGNATURE_HEADER = "X-Stacknorm-Signature"
DIGEST_LISTED = 500


class WebhookChannel:
    """Posts an AlertEvent as JSON; over the storm cap an object ``{"digest": ...}`` instead."""

    most = 1
    revises = True
    resend_seconds: float | None = None

    def __init__(self, url: str, secret: str | None) -> None:
        self._url = url
        self._secret = secret

    def compose(self, news: Sequence[News], now: datetime) -> Letter:
        """See `Channel`."""
        (each,) = news
        return self._sign(each.alert.to_json(), idempotency_key(each), now)

    def compose_digest(self, news: Sequence[News], now: datetime) -> Letter:
        """See `Channel`; the key is made of all that it is of."""
        ordered = strongest_first(news)
        digest = {
            "count": len(news),
            "at": format_instant(now),
            "strongest": [_describe(each.alert) for each in ordered[:DIGEST_NAMED]],
            "alerts": [{"alert_id": each.alert.alert_id, "revision": each.alert.revision} for each in ordered][
                :DIGEST_LISTED
            ],
        }
        named = "\n".join(sorted(idempotency_key(each) for each in news)).encode()
        return self._sign(orjson.dumps({"digest": digest}), f"digest:{hashlib.sha256(named).hexdigest()[:32]}", now)

    def read(self, reply: Reply, now: datetime) -> Answer:
        """See `Channel`."""
        return read_status(reply, now)

    def _sign(self, body: bytes, key: str, now: datetime) -> Letter:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = sign(body, self._secret, int(now.timestamp()))
        return Letter(self._url, body, headers)


def sign(body: bytes, secret: str, at_seconds: int) -> str:
    """``t=<unix seconds>,v1=<HMAC-SHA256 of "t.body" in hex>``: a receiver refuses an old ``t`` and another ``v1``."""
    signed = hmac.new(secret.encode(), f"{at_seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_seconds},v1={signed}"


def _describe(alert: AlertEvent) -> Mapping[str, object]:
    named = {"alert_id": alert.alert_id, "revision": alert.revision, "status": alert.status.value}
    named |= {"kind": alert.kind.value, "key_type": alert.key_type.value, "key": alert.key}
    severity = {"severity": alert.severity.value} if alert.severity else {}
    return {**named, **severity, "headline": headline(alert), "summary": summary(alert)}
