"""What each kind of receiver gets, and what its answers mean."""

import hashlib
import hmac
from datetime import timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifying import NOW, make_alert, news, tell
from schemas.events import AlertEvent
from worker.notify.alertmanager import AlertmanagerChannel
from worker.notify.letters import Delivered, Refused, Reply, TryAgain, idempotency_key, read_status, retry_after
from worker.notify.slack import SlackApp, SlackWebhook, escape, render, render_digest
from worker.notify.webhook import SIGNATURE_HEADER, WebhookChannel, sign
from worker.notify.wording import summary

ALERTMANAGER = AlertmanagerChannel("http://127.0.0.1:9093/", "token", 60.0)
APP = SlackApp("http://127.0.0.1:1/api/", "xoxb-1", "C1", "update")
STORY = {"item_id": "x", "source": "Wire", "score": -0.9, "received_at": "2026-03-05T08:30:02.125Z", "copies": 2}


# A webhook


def test_a_webhook_gets_the_alert_as_published_signed_and_with_a_key() -> None:
    alert = make_alert(severity="warning")
    letter = WebhookChannel("https://h/x", "s3cret").compose([news(alert)], NOW)
    assert AlertEvent.model_validate_json(letter.body) == alert
    assert letter.body == alert.to_json()
    assert letter.headers["Idempotency-Key"] == "a-1:1"
    stamp, signed = (part.split("=")[1] for part in letter.headers[SIGNATURE_HEADER].split(","))
    assert stamp == str(int(NOW.timestamp()))
    assert signed == hmac.new(b"s3cret", stamp.encode() + b"." + letter.body, hashlib.sha256).hexdigest()


def test_without_a_secret_nothing_is_signed_and_no_letter_shows_its_secrets() -> None:
    letter = WebhookChannel("https://h/path-is-secret", None).compose([news(make_alert())], NOW)
    assert SIGNATURE_HEADER not in letter.headers
    assert "secret" not in repr(letter)
    assert sign(b"{}", "a", 1) != sign(b"{}", "b", 1) != sign(b"{}", "b", 2)


def test_the_digest_of_a_webhook_names_the_strongest_and_lists_all() -> None:
    alerts = [make_alert(f"a-{number}", W=13.0 + number) for number in range(37)]
    channel = WebhookChannel("https://h/x", None)
    letter = channel.compose_digest([news(each) for each in alerts], NOW)
    digest = orjson.loads(letter.body)["digest"]
    assert (digest["count"], len(digest["strongest"]), len(digest["alerts"])) == (37, 10, 37)
    assert digest["strongest"][0]["alert_id"] == "a-36"
    assert digest["alerts"][0] == {"alert_id": "a-36", "revision": 1}
    same = channel.compose_digest([news(each) for each in reversed(alerts)], NOW)
    assert same.headers["Idempotency-Key"] == letter.headers["Idempotency-Key"]


# Alertmanager


def posted(*args, **kwargs) -> list[dict]:
    return orjson.loads(ALERTMANAGER.compose([news(*args, **kwargs)], NOW).body)


def test_alertmanager_is_told_that_an_alert_goes_on_for_four_resends() -> None:
    alert = make_alert(severity="warning")
    letter = ALERTMANAGER.compose([news(alert)], NOW)
    (said,) = orjson.loads(letter.body)
    assert (letter.url, letter.headers["Authorization"]) == ("http://127.0.0.1:9093/api/v2/alerts", "Bearer token")
    assert said["labels"] == {
        "alertname": "NegativeSurge", "alert_id": "a-1", "kind": "negative_surge", "key_type": "entity",
        "key": "symbol:HRVL", "job": "stacknorm", "severity": "warning",
    }  # fmt: skip
    assert (said["startsAt"], said["endsAt"]) == ("2026-03-05T08:30:02.125Z", "2026-03-05T09:04:00.000Z")
    assert said["annotations"]["summary"] == "Negative news surges: entity HRVL"
    assert "0.02 were expected" in said["annotations"]["description"]
    assert "Harrow & Vale shares fall" in said["annotations"]["evidence_1"]
    assert "generatorURL" not in said


def test_alertmanager_is_told_the_end_under_the_labels_it_knows() -> None:
    later = NOW + timedelta(days=1)
    ended = make_alert(revision=3, ended=True, severity="critical")
    told = tell(make_alert(severity="warning"))
    (said,) = orjson.loads(ALERTMANAGER.compose([news(ended, told)], later).body)
    assert (said["labels"]["severity"], said["endsAt"]) == ("warning", "2026-03-06T09:00:00.000Z")
    (said,) = orjson.loads(ALERTMANAGER.compose([news(ended, tell(make_alert(severity="critical")))], later).body)
    assert (said["labels"]["severity"], said["endsAt"]) == ("critical", "2026-03-05T14:30:02.125Z")


def test_a_rise_of_severity_ends_the_alert_that_alertmanager_knows() -> None:
    old, new = posted(make_alert(revision=2, severity="critical"), tell(make_alert(severity="warning")))
    assert (old["labels"]["severity"], old["endsAt"]) == ("warning", "2026-03-05T09:00:00.000Z")
    assert (new["labels"]["severity"], new["endsAt"]) == ("critical", "2026-03-05T09:04:00.000Z")


def test_what_is_said_again_is_what_alertmanager_was_told() -> None:
    (said,) = posted(make_alert(revision=2, severity="critical"), tell(make_alert(severity="warning")), again=True)
    assert (said["labels"]["severity"], said["endsAt"]) == ("warning", "2026-03-05T09:04:00.000Z")


@given(st.sampled_from([None, "info", "warning", "critical"]), st.booleans(), st.integers(-3000, 10**6))
def test_no_alert_is_posted_to_alertmanager_that_ends_before_it_starts(severity, ended, offset) -> None:
    now = NOW + timedelta(seconds=offset)
    alert = make_alert(revision=2, ended=ended, **({"severity": severity} if severity else {}))
    for each in orjson.loads(ALERTMANAGER.compose([news(alert, tell(make_alert(severity="info")))], now).body):
        assert each["startsAt"] <= each["endsAt"]


# Slack


def texts(message: dict) -> str:
    return orjson.dumps(message).decode()


def test_a_message_says_what_happened_what_was_expected_and_which_stories() -> None:
    links = [
        ("Bank falls", "https://e.com/1", -0.5),
        ("Worst", "https://e.com/2", -0.99),
        ("Bad link", "javascript:x", -0.9),
    ]
    evidence = [{**STORY, "title": title, "url": url, "score": score} for title, url, score in links]
    alert = make_alert(evidence=[*evidence, {**STORY, "title": "Mild", "score": -0.1}], severity="warning")
    head, stories, small = (block.get("text", block.get("elements")) for block in render(alert)["blocks"])
    assert head["text"].startswith(
        ":red_circle: *Negative news surges: entity HRVL* (warning)\n5 negative stories of 6"
    )
    assert "0.02 were expected (250 times)" in head["text"]
    assert stories["text"].splitlines() == [
        "• <https://e.com/2|Worst> (Wire, 2 copies, -0.99)",
        "• Bad link (Wire, 2 copies, -0.90)",
        "• <https://e.com/1|Bank falls> (Wire, 2 copies, -0.50)",
    ]
    assert "revision 1" in small[0]["text"]


@given(st.text(max_size=400))
def test_no_title_can_mention_link_or_mark_up(title: str) -> None:
    shown = escape(title)
    assert not set(shown) & set("<>*_~`\n\r")
    assert "&" not in shown.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_whatever_stands_in_the_news_a_message_keeps_to_slacks_limits(title: str, url: str) -> None:
    alert = make_alert(evidence=[{**STORY, "title": title, "url": f"https://e.com/{url}"}] * 3, key=title or "x")
    for block in (*render(alert)["blocks"], *render_digest([news(alert)] * 30)["blocks"]):
        for text in (block["text"],) if block["type"] == "section" else block["elements"]:
            assert 0 < len(text["text"]) <= 3000
            assert "<!" not in text["text"]


def test_an_app_posts_once_and_then_revises_in_place_or_answers_in_the_thread() -> None:
    first = APP.compose([news(make_alert())], NOW)
    assert first.url == "http://127.0.0.1:1/api/chat.postMessage"
    assert first.headers["Authorization"] == "Bearer xoxb-1"
    assert orjson.loads(first.body)["channel"] == "C1"
    assert orjson.loads(first.body)["metadata"]["event_payload"] == {"alert_id": "a-1", "revision": 1}
    answer = APP.read(Reply(200, {}, b'{"ok": true, "channel": "C1", "ts": "1.2"}'), NOW)
    assert answer == Delivered("C1 1.2")
    told = tell(make_alert(), "C1 1.2")
    update = APP.compose([news(make_alert(revision=2), told)], NOW)
    said = orjson.loads(update.body)
    assert (update.url.rpartition("/")[2], said["channel"], said["ts"]) == ("chat.update", "C1", "1.2")
    thread = SlackApp("http://h", "t", "C1", "thread").compose([news(make_alert(revision=2), told)], NOW)
    said = orjson.loads(thread.body)
    assert (thread.url.rpartition("/")[2], said["thread_ts"]) == ("chat.postMessage", "1.2")


def test_a_reply_in_a_thread_is_not_taken_for_the_alerts_own_message() -> None:
    reply = b'{"ok": true, "channel": "C1", "ts": "9.9", "message": {"thread_ts": "1.2"}}'
    assert APP.read(Reply(200, {}, reply), NOW) == Delivered(None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"ok": false, "error": "ratelimited"}', TryAgain),
        (b'{"ok": false, "error": "message_not_found"}', TryAgain),
        (b'{"ok": false, "error": "channel_not_found"}', Refused),
        (b"<html>maintenance</html>", TryAgain),
        (b"[]", TryAgain),
        (b"", TryAgain),
    ],
)
def test_slack_may_refuse_with_status_200(body: bytes, kind: type) -> None:
    answer = APP.read(Reply(200, {}, body), NOW)
    assert isinstance(answer, kind)
    assert getattr(answer, "lost", False) is (b"not_found" in body and kind is TryAgain)


def test_an_incoming_webhook_tells_of_the_first_and_the_last_alone() -> None:
    assert not SlackWebhook("https://h").revises
    assert APP.revises


# What answers mean


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Delivered), (204, Delivered), (302, TryAgain), (400, Refused), (401, Refused), (404, Refused),
        (408, TryAgain), (410, Refused), (425, TryAgain), (429, TryAgain), (500, TryAgain), (503, TryAgain),
    ],
)  # fmt: skip
def test_only_what_will_never_work_is_given_up(status: int, kind: type) -> None:
    assert isinstance(read_status(Reply(status, {}, b"why"), NOW), kind)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 05 Mar 2026 09:00:30 GMT", 30.0),
        ("Thu, 05 Mar 2026 08:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(asked: str, seconds: float | None) -> None:
    answer = read_status(Reply(503, {"retry-after": asked}, b""), NOW)
    assert isinstance(answer, TryAgain)
    assert answer.after_seconds == seconds


@given(st.text() | st.from_regex(r"Thu, 05 Mar [0-9]{1,9} 09:00:30 [+-][0-9]{1,30}"))
def test_no_wish_of_a_receiver_is_taken_for_a_time_in_the_past(asked: str) -> None:
    wait = retry_after(Reply(503, {"retry-after": asked}, b""), NOW)
    assert wait is None or wait >= 0


def test_a_refusal_is_logged_with_the_beginning_of_the_answer_on_one_line() -> None:
    answer = read_status(Reply(400, {}, b"no\nsuch \x1b[31mfield" + b"x" * 9999), NOW)
    assert isinstance(answer, Refused)
    assert answer.reason.startswith("status 400: no such  [31mfieldxxx")
    assert len(answer.reason) < 400


def test_a_revision_has_one_key_however_often_it_is_sent() -> None:
    assert idempotency_key(news(make_alert("a-9", 4))) == idempotency_key(
        news(make_alert("a-9", 4), tell(make_alert()))
    )


def test_the_end_says_how_it_ended() -> None:
    assert summary(make_alert(ended=True)).endswith("ended: quiet")
