"""Every state record carries its version: a program reads its own and the one before, and writes that until told."""

import json
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from msgspec.json import Decoder

from schemas.events import AlertEvent, LabelledEvent, Progress
from surge_streams import DAY_SECONDS, WALL, arrivals, mark, stream
from worker.codec import decode_event
from worker.detector import Detector, Position, detect
from worker.errors import Misconfigured
from worker.records import Record
from worker.settings import load_settings
from worker.surge.rules import Rules
from worker.surge.versions import STATE, Step, Versions

GOLDEN = Path(__file__).parent / "data"
SENSITIVE = Rules(negatives_a_day=50, learning_days=0.5, max_frozen_hours=8)

Changelog = dict[bytes, bytes | None]


def events() -> list[LabelledEvent]:
    """Two days of a market, and in the second a surge."""
    random = Random(8)
    quiet = [
        (
            seconds,
            {"negative": random.random() < 0.25, "symbols": (f"T{random.randrange(4)}",), "source": "abcd"[n % 4]},
        )
        for n, seconds in enumerate(arrivals(random, 100, 0, 2))
    ]
    bad = [(seconds, {"symbols": ("T3",), "source": "abcd"[n % 4]})
           for n, seconds in enumerate(arrivals(random, 200, 1.2, 1.35))]  # fmt: skip
    return stream(quiet + bad)


def step_through(detector: Detector, log: Changelog, items: list[LabelledEvent]) -> list[AlertEvent]:
    """Feed events, and commit what comes of them."""
    alerts: list[AlertEvent] = []
    for item in items:
        detector.add_event(0, item.input.offset, item)
    while (batch := detector.step(50, WALL)) is not None:
        log.update(batch.changelog)
        alerts += batch.alerts
    return alerts


# A second version, in these tests alone: of arrays it turns the fields around, of the frontier it renames one


def _turn(name: str, fields: Any) -> Any:
    names = {"totals": "sums", "sums": "totals"}
    if isinstance(fields, dict):
        return {names.get(field, field): value for field, value in fields.items()}
    return list(reversed(fields))


TURNED = Step(upgrade=_turn, downgrade=_turn)
NEXT_UNTOLD = Versions(newest=2, writes=1, step=TURNED)
NEXT_TOLD = Versions(newest=2, writes=2, step=TURNED)


def versions_in(log: Changelog) -> set[int]:
    records = [orjson.loads(value) for value in log.values() if value is not None]
    return {record["v"] if isinstance(record, dict) else record[0] for record in records}


def test_the_next_version_reads_and_writes_the_last_until_told_and_goes_on_with_the_same_alerts():
    items = events()
    expected = detect(SENSITIVE, items, emitted_at=WALL)
    assert {alert.status for alert in expected} >= {"firing", "resolved"}
    firing = next(n for n, item in enumerate(items) if item.clock >= expected[0].detected_at) + 1
    log: Changelog = {}
    detector = Detector.restore(SENSITIVE, 1, [], NEXT_UNTOLD)
    log.update(detector.begin({0: Position(0, 0)}).changelog)
    detector.add_mark(0, 0, mark(2 * DAY_SECONDS, 10**6))
    alerts = step_through(detector, log, items[:firing])
    assert versions_in(log) == {1}
    assert all(b'"sums"' in value for key, value in log.items() if value is not None and key == b"frontier")

    detector = Detector.restore(SENSITIVE, 1, log.items(), NEXT_TOLD)
    alerts += step_through(detector, log, items[firing : firing + 20])
    assert versions_in(log) == {1, 2}

    detector = Detector.restore(SENSITIVE, 1, log.items(), NEXT_TOLD)
    detector.add_mark(0, 1, mark(2 * DAY_SECONDS, len(items)))
    alerts += step_through(detector, log, items[firing + 20 :])
    end = items[-1].clock
    assert [alert.to_json() for alert in alerts if alert.detected_at <= end] == [
        alert.to_json() for alert in expected if alert.detected_at <= end
    ]

    with pytest.raises(ValueError, match="record frontier is of version 2, this worker reads version 1: a newer"):
        Detector.restore(SENSITIVE, 1, log.items())


def test_the_record_that_cannot_be_read_is_named():
    newer = orjson.dumps((3, "a"))
    with pytest.raises(
        ValueError, match=r"record k:symbol:X is of version 3, this worker reads versions 1 and 2: a newer"
    ):
        NEXT_UNTOLD.open("k:symbol:X", newer, Decoder(list))
    with pytest.raises(
        ValueError, match=r"record k:symbol:X is of version 1, this worker reads versions 2 and 3: an older"
    ):
        Versions(3, 2, TURNED).open("k:symbol:X", STATE.seal("k:symbol:X", ("a",)), Decoder(list))


def test_only_versions_that_can_be_written_may_be_set():
    assert load_settings().state_versions == STATE
    with pytest.raises(Misconfigured, match=r"surge.state_version: .*\(given: 2\)"):
        load_settings(surge={"state_version": 2})


# What was once written is read for ever


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


def test_state_of_version_1_is_read_and_written_back_bit_for_bit():
    log = {record["key"].encode(): record["value"].encode() for record in golden("state_v1.jsonl")}
    assert {key[:2] for key in log} == {b"k:", b"c:", b"fr"}
    detector = Detector.restore(SENSITIVE, 1, log.items())
    facts = detector.facts()
    assert (facts.keys, facts.firing) == (sum(key.startswith(b"k:") for key in log), 3)
    shard = detector._shard
    for key in log:
        if key.startswith(b"k:"):
            shard.keys.mark(shard.keys.get(key[2:].decode()))
        elif key.startswith(b"c:"):
            shard._changed_clusters[int(key[2:])] = None
    assert dict(detector._batch([], 0).changelog) == log


def test_progress_of_version_1_is_read():
    for number, record in enumerate(golden("progress_v1.jsonl")):
        told = Record("news.progress", 0, number, 0, b"0", json.dumps(record).encode())
        assert decode_event(Progress, told).to_json() == json.dumps(record, separators=(",", ":")).encode()


def test_progress_of_a_newer_version_is_refused_by_its_place_and_key():
    newer = golden("progress_v1.jsonl")[0] | {"schema_version": 2}
    record = Record("news.progress", 3, 41, 0, b"3", json.dumps(newer).encode())
    with pytest.raises(
        Misconfigured,
        match=r"^news.progress-3 at offset 41, key '3' is of version 2, this worker reads 1: a newer worker",
    ):
        decode_event(Progress, record)


def test_what_is_no_progress_at_all_is_named_too():
    with pytest.raises(Misconfigured, match=r"^news.progress-3 at offset 41, key '' is no Progress: Field required"):
        decode_event(Progress, Record("news.progress", 3, 41, 0, None, b"{}"))
