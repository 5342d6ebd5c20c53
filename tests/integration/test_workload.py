"""The workload is what the delivery tests claim of it."""

from collections import Counter
from datetime import timedelta

import pytest

import workload
from schemas.events import AlertStatus
from verify import expect
from worker.codec import InputRules, decode_item, is_heartbeat
from worker.deterministic import DeterministicEngine
from worker.errors import Rejected
from worker.records import Record
from worker.surge.rules import Rules
from workload import LONG_SURGE, Workload, make_workload, poison_values


@pytest.fixture(scope="module", params=["shared data", "demo's headlines"])
def made(request: pytest.FixtureRequest) -> Workload:
    titles = workload.demo_titles() if request.param == "demo's headlines" else workload.titles_at_hand()
    return make_workload("t.raw", titles=titles)


def test_it_is_the_same_every_time() -> None:
    assert make_workload("t.raw") == make_workload("t.raw")


def test_it_has_2000_headlines_with_ids_of_their_own_over_five_days_and_one_percent_poison(made: Workload) -> None:
    records = [record for log in made.as_read().values() for record in log if not is_heartbeat(record)]
    poison = [record for record in records if (record.key or b"").startswith(b"poison")]
    items = [decode_item(record, InputRules()) for record in records if record not in poison]
    published = [item.published_at for item in items if item.published_at is not None]
    assert len({item.id for item in items}) == len({item.title for item in items}) == len(items) == 2000
    assert len(poison) == 20
    assert max(published) - min(published) >= timedelta(days=5)


@pytest.mark.parametrize("value", poison_values())
def test_every_poison_is_rejected(value: bytes) -> None:
    with pytest.raises(Rejected):
        decode_item(Record("t.raw", 0, 0, 0, None, value), InputRules())


def test_at_least_three_alerts_fire_and_resolve_and_one_has_evidence_over_hours(made: Workload) -> None:
    alerts = expect(made.as_read(), DeterministicEngine(), Rules()).alerts
    last = {alert.alert_id: alert for alert in alerts}
    assert len(last) >= 3
    assert {alert.status for alert in last.values()} == {AlertStatus.resolved}
    (long,) = [alert for alert in last.values() if alert.key == f"symbol:{LONG_SURGE.symbol}"]
    assert long.evidence[-1].received_at - long.first_clock >= timedelta(hours=12)


def test_every_partition_gets_its_share_and_ends_with_the_same_heartbeat(made: Workload) -> None:
    logs = made.as_read()
    sizes = Counter({partition: len(log) for partition, log in logs.items()})
    assert min(sizes.values()) > 1000
    assert all(is_heartbeat(log[-1]) for log in logs.values())
    assert len({log[-1].timestamp_ms for log in logs.values()}) == 1
