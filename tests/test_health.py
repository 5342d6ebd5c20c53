"""Health and metrics are served where they should be, and say what is wrong."""

import asyncio
import urllib.error
import urllib.request

import pytest

from worker import metrics
from worker.errors import Misconfigured
from worker.health import Checks, serve_health
from worker.runner.vitals import Vitals
from worker.service import checks_of


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_endpoints_tell_metrics_life_and_readiness():
    checks = Checks(live=lambda: None, ready=lambda: "waiting for the broker")
    async with serve_health("127.0.0.1", 0, checks) as port:
        answers = {path: await asyncio.to_thread(fetch, port, path) for path in ("/livez", "/readyz", "/metrics", "/x")}
    assert answers["/livez"] == (200, "ok\n")
    assert answers["/readyz"] == (503, "waiting for the broker\n")
    assert answers["/metrics"][0] == 200
    assert metrics.RECORDS.describe()[0].documentation in answers["/metrics"][1]
    assert answers["/x"][0] == 404


def test_a_worker_lives_until_one_of_its_roles_is_stuck():
    labeller, detector = Vitals("labeller"), Vitals("detector")
    checks = checks_of([labeller, detector])
    assert (checks.live(), checks.ready()) == (None, "labeller waits for the start; detector waits for the start")
    labeller.waiting_for, labeller.stuck = None, "partition 3 has not moved for 151 s"
    assert checks.live() == "labeller is stuck: partition 3 has not moved for 151 s"
    assert checks.ready() == "detector waits for the start"


async def test_a_taken_port_is_named():
    checks = Checks(live=lambda: None, ready=lambda: None)
    async with serve_health("127.0.0.1", 0, checks) as port:
        with pytest.raises(Misconfigured, match=f"http.port = 127.0.0.1:{port}"):
            async with serve_health("127.0.0.1", port, checks):
                pass
