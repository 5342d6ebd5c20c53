import json
from pathlib import Path

import pytest
from msgspec.structs import fields

from schemas.events import LabelledEvent
from surge_streams import WALL, event
from worker.codec import decode_event, decode_labelled
from worker.detector import Detector, Position, detect
from worker.errors import Misconfigured
from worker.labelled import Labelled
from worker.records import Record
from worker.surge.rules import Rules

EXAMPLES = Path("schemas/examples")
GOOD = [json.loads(line) for line in (EXAMPLES / "labelled_event.good.jsonl").read_text("utf-8").splitlines()]
BAD = [json.loads(line)["value"] for line in (EXAMPLES / "labelled_event.bad.jsonl").read_text("utf-8").splitlines()]


def record(value: object) -> Record:
    return Record("news.labelled", 2, 7, 0, b"key", json.dumps(value).encode())


def plain(value: object) -> object:
    """A value of either form without what the detector does not read."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    names = {"sentiment": ("score", "probabilities"), "topic": ("label", "probabilities"), "stack": ("name", "digest")}
    for each in (*names.values(), ("topic", "partition", "offset"), ("id", "scheme")):
        if all(hasattr(value, name) for name in each) and not hasattr(value, "event_id"):
            return {name: getattr(value, name) for name in each}
    return value


@pytest.mark.parametrize("value", GOOD, ids=lambda value: value["item_id"])
def test_the_detector_reads_of_an_event_what_the_whole_event_says(value):
    whole, read = decode_event(LabelledEvent, record(value)), decode_labelled(record(value))
    for field in fields(Labelled):
        assert plain(getattr(read, field.name)) == plain(getattr(whole, field.name)), field.name


def _refusal(decode, value) -> str:
    with pytest.raises(Misconfigured) as caught:
        decode(value)
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"schema_version": 2, "title": None},
        {"clock": "2026-03-05T08:30:02"},
        {"received_at": "1776-07-04T00:00:00Z"},
        {"title": 3},
        {"stack": None},
        {"status": "new"},
        {"abstained": True},
        {"sentiment": None},
        {"sentiment": GOOD[0]["sentiment"] | {"score": 2.0}},
        {"sentiment": GOOD[0]["sentiment"] | {"probabilities": {"dire": 1.0}}},
        {"topic": {"label": "a", "probabilities": {"a": 1.5}}},
        {"topic": {"label": "a", "probabilities": {str(n): 0.1 for n in range(6)}}},
        {"entities": [{"id": "A"}]},
        {"input": {"topic": "t", "partition": -1, "offset": 0}},
    ],
)
def test_what_the_detector_reads_of_an_event_is_checked_as_strictly(change):
    value = record(GOOD[0] | change)
    whole = _refusal(lambda value: decode_event(LabelledEvent, value), value)
    assert _refusal(decode_labelled, value) == whole


def test_no_bad_example_is_read():
    assert BAD
    for value in BAD:
        assert "news.labelled-2 at offset 7, key 'key' is no LabelledEvent" in _refusal(decode_labelled, record(value))


def test_both_forms_of_a_stream_give_the_same_alerts():
    rules = Rules(negatives_a_day=50, learning_days=0)
    events = [event(number, 60.0 * number, source="abc"[number % 3]) for number in range(60)]
    detector = Detector(rules, 1)
    detector.begin({0: Position(0, 0)})
    for number, each in enumerate(events):
        detector.add_event(0, number, decode_labelled(record(json.loads(each.to_json()))))
    batch = detector.step(1000, WALL)
    assert batch is not None
    assert len(batch.alerts) > 10
    assert batch.alerts == tuple(detect(rules, events, emitted_at=WALL))[: len(batch.alerts)]
