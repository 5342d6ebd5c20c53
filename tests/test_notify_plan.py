"""The routes file is checked as a whole, and shows no secret."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from notifying import Receiver, make_alert, news
from test_notify_decision import NIGHT, NOW
from worker.errors import Misconfigured
from worker.notify.letters import Delivered, Refused, TryAgain
from worker.notify.plan import load_plan, make_plan, render_plan
from worker.notify.process import make_channel, open_post_to, send_test

ROOT = Path(__file__).parents[1]
SECRET = "hunter2-9f3"
ENVIRON = {"DESK": SECRET, "ROOM": f"https://hooks.slack.com/services/{SECRET}", "BOT": f"xoxb-{SECRET}"}
WHOLE = """
allowed_hosts = ["hooks.example.com", "hooks.slack.com", "slack.com", "127.0.0.1"]

[[receiver]]
name = "desk"
kind = "webhook"
url = "https://hooks.example.com/alerts"
secret = { env = "DESK" }

[[receiver]]
name = "room"
kind = "slack"
url = { env = "ROOM" }

[[receiver]]
name = "thread"
kind = "slack"
token = { env = "BOT" }
channel = "C0123456789"
revisions = "thread"

[[receiver]]
name = "pager"
kind = "alertmanager"
url = "http://127.0.0.1:9093"

[[route]]
receiver = "pager"
matchers = ["severity=critical"]
continue = true

[[route]]
receiver = "desk"
continue = true
include_pending = true
inhibited = "send"

[[route]]
receiver = "room"
matchers = ['severity=~"warning|critical"', "key_type!=source"]
active = { timezone = "Europe/London", days = "Mon-Fri", from = "07:00", to = "18:00" }
outside = "drop"
continue = true

[[route]]
receiver = "thread"
"""


def change(**changes: Any) -> dict[str, Any]:
    """The whole file, with one receiver and route, changed."""
    receiver = {"name": "desk", "kind": "webhook", "url": "https://h/x"}
    route: dict[str, Any] = {"receiver": "desk"}
    for name, value in changes.items():
        place, _, field = name.partition("_")
        {"receiver": receiver, "route": route}[place][field] = value
    return {"receiver": [receiver], "route": [route]}


def test_a_whole_file_is_read_and_said_in_words() -> None:
    plan = make_plan(tomllib.loads(WHOLE), ENVIRON)
    lines = render_plan(plan)
    assert lines == [
        "receiver desk: webhook at https://hooks.example.com, signed",
        "receiver room: slack at https://hooks.slack.com",
        "receiver thread: slack at https://slack.com",
        "receiver pager: alertmanager at http://127.0.0.1:9093",
        'route 1: severity="critical" -> pager; the next routes are asked too',
        "route 2: every alert -> desk, pending too, inhibited too; the next routes are asked too",
        'route 3: severity=~"warning|critical" and key_type!="source" -> room, '
        "Mon, Tue, Wed, Thu, Fri 07:00-18:00 Europe/London (else drop); the next routes are asked too",
        "route 4: every alert -> thread",
    ]
    hours = plan.routes[2].active
    assert hours is not None
    assert (hours.is_open(NOW), hours.is_open(NIGHT)) == (True, False)
    assert SECRET not in repr(plan) + "".join(lines)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"receiver_url": "ftp://h/x"}, "must begin with https://"),
        ({"receiver_url": "http://h/x"}, "http to h is not encrypted"),
        ({"receiver_url": "https://user:pw@h/x"}, "must not hold a user"),
        ({"receiver_url": "https://[h/x"}, "url is none"),
        ({"receiver_url": {"env": "NONE"}}, "environment variable NONE is not set"),
        ({"receiver_url": {"file": "/nowhere"}}, "file /nowhere cannot be read"),
        ({"receiver_url": {}}, "name one place"),
        ({"receiver_secret": SECRET}, r"receiver.0.webhook.secret"),
        ({"receiver_token": SECRET}, "Extra inputs"),
        ({"receiver_kind": "pigeon"}, "receiver.0"),
        ({"receiver_kind": "slack", "receiver_token": {"env": "BOT"}}, "either url"),
        ({"receiver_storm_cap": 0}, "storm_cap"),
        ({"route_matchers": ["severity=loud"]}, "severity is one of info, warning, critical"),
        ({"route_matchers": "severity=info"}, "is a list of texts"),
        ({"route_active": {"timezone": "Mars/Base"}}, "'Mars/Base' is no time zone"),
        ({"route_active": {"timezone": "../etc/passwd"}}, "is no time zone"),
        ({"route_active": {"timezone": "UTC", "days": "Mo"}}, "'Mo' is no day"),
        ({"route_active": {"timezone": "UTC", "from": "7"}}, "active"),
        ({"route_receiver": "other"}, "leads to receiver 'other'(.|\n)*no route leads to receiver 'desk'"),
    ],
)
def test_what_is_wrong_is_named_and_what_was_given_is_not_shown(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem) as raised:
        make_plan(change(**changes), ENVIRON)
    assert SECRET not in str(raised.value)
    assert "1 validation error" not in str(raised.value)


def test_only_allowed_hosts_are_spoken_to_wherever_the_url_comes_from() -> None:
    given = change(receiver_url={"env": "ROOM"}) | {"allowed_hosts": ["hooks.example.com"]}
    with pytest.raises(Misconfigured, match=r"host hooks.slack.com is not among allowed_hosts"):
        make_plan(given, ENVIRON)


def test_plain_http_is_for_loopback_or_for_who_means_it() -> None:
    for changes in (
        {"receiver_url": "http://localhost:1/x"},
        {"receiver_url": "http://[::1]:1/x"},
        {"receiver_url": "http://h/x", "receiver_allow_plain_http": True},
    ):
        make_plan(change(**changes), {})


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    plan = make_plan(change(receiver_secret={"file": str(tmp_path / "secret")}), {})
    (address,) = plan.addresses
    assert address.secret is not None
    assert address.secret.get_secret_value() == SECRET


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[receiver")
    for name, problem in (("none.toml", "cannot be read"), ("bad.toml", "is no TOML")):
        with pytest.raises(Misconfigured, match=f"{name}.*{problem}"):
            load_plan(tmp_path / name, {})


# Sending


async def send(receiver: Receiver, **changes: Any) -> Delivered | Refused | TryAgain:
    plan = make_plan(change(receiver_url=f"{receiver.url}/{SECRET}", receiver_timeout_seconds=0.5, **changes), {})
    (address,) = plan.addresses
    channel = make_channel(address)
    async with open_post_to(plan, address) as post:
        return await post.send(channel.compose([news(make_alert())], NOW), channel, NOW)


@pytest.mark.parametrize(
    ("mood", "kind", "reason"),
    [
        ("fine", Delivered, ""),
        ("error", TryAgain, "status 500"),
        ("busy", TryAgain, "status 429"),
        ("hang", TryAgain, "no answer within 0.5 s"),
        ("reset", TryAgain, "RemoteProtocolError"),
        ("redirect", TryAgain, "status 302"),
        ("drip", TryAgain, "no answer within 0.5 s"),
        ("bad", Refused, "status 400"),
    ],
)
async def test_whatever_a_receiver_does_has_an_answer(mood: str, kind: type, reason: str) -> None:
    async with Receiver(mood) as receiver:
        answer = await send(receiver)
    assert isinstance(answer, kind)
    assert reason in getattr(answer, "reason", "")
    assert SECRET not in repr(answer)
    assert receiver.seen == {mood: 1}  # no redirect was followed


async def test_a_receiver_that_is_not_there_is_tried_again() -> None:
    async with Receiver() as receiver:
        pass
    answer = await send(receiver)
    assert isinstance(answer, TryAgain)
    assert SECRET not in repr(answer)


async def test_a_test_alert_says_that_it_is_one() -> None:
    async with Receiver() as receiver:
        plan = make_plan(change(receiver_url=receiver.url), {})
        assert await send_test(plan, "desk") == Delivered()
        with pytest.raises(Misconfigured, match="there is no receiver 'other'; there are desk"):
            await send_test(plan, "other")
    (taken,) = receiver.taken
    assert taken.json["key"] == "TEST of stacknorm-worker notify: nothing has happened"
    assert taken.json["alert_id"].startswith("test-")


# The command


def run_notify(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", "notify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=ROOT)


def test_a_check_prints_the_plan_or_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(WHOLE)
    right = run_notify("--routes", str(file), "--check", **ENVIRON)
    assert (right.returncode, right.stdout.count("receiver "), right.stdout.count("route ")) == (0, 4, 4)
    wrong = run_notify("--routes", str(file), "--check", DESK=SECRET)
    assert wrong.returncode == 2
    assert "variable ROOM" in wrong.stderr
    assert "variable BOT" in wrong.stderr
    assert SECRET not in right.stdout + right.stderr + wrong.stdout + wrong.stderr


def test_a_test_that_does_not_arrive_says_why_and_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(WHOLE.replace("https://hooks.example.com/alerts", f"http://127.0.0.1:9/{SECRET}"))
    done = run_notify("--routes", str(file), "--test", "desk", **ENVIRON)
    assert done.returncode == 1
    assert "receiver desk: ConnectError" in done.stderr
    assert SECRET not in done.stdout + done.stderr
