"""Letters are found by what an operator says of them, and shown as what they hold, without doing harm."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from rich.console import Console

from schemas.events import DeadLetter, InputRef
from worker.codec import make_dead_letter
from worker.dlq.letters import (
    REDRIVEN_HEADER,
    Letter,
    Selection,
    decode_letter,
    describe_whole,
    parse_condition,
)
from worker.dlq.tables import Survey, render_letter, render_survey
from worker.errors import Rejected
from worker.records import Record
from worker.sinks.terminal import printable

AT = datetime(2026, 3, 5, 8, 30, tzinfo=UTC)


def letter(kind: str = "json", *, offset: int = 7, at: datetime = AT, **fields) -> Letter:
    raw = Record("news.raw", 1, offset, 5, **({"key": b"k", "value": b"{"} | fields))
    return Letter(offset + 100, make_dead_letter(raw, Rejected(kind, "not UTF-8: byte 3"), at, attempts=2))


def select(*conditions: str, **fields) -> Selection:
    return Selection(tuple(map(parse_condition, conditions)), **fields)


def shown(renderable, width: int = 120) -> str:
    console = Console(width=width, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_record_on_the_topic_is_a_letter_or_nothing():
    body = letter().body
    read = decode_letter(Record("news.dead", 0, 3, 5, None, body.to_json()))
    assert read == Letter(3, body)
    assert read.coordinates == "news.raw-1-7"
    assert decode_letter(Record("news.dead", 0, 3, 5, None, b"spam")) is None
    assert decode_letter(Record("news.dead", 0, 3, 5, b"k", None)) is None


def test_one_condition_of_each_field_must_hold():
    assert select().holds(letter())
    assert select("kind=json", "kind=schema", "partition=1").holds(letter("schema"))
    assert not select("kind=json", "partition=2").holds(letter("json"))
    assert select("reason~utf-8", "topic=news.raw", "offset=7").holds(letter())
    assert not select("kind~son", "offset=71").holds(letter())
    assert not select("kind=so").holds(letter())


def test_since_holds_from_that_time_and_until_before_it():
    later = AT + timedelta(hours=1)
    assert select(since=AT, until=later).holds(letter(at=AT))
    assert not select(since=AT, until=later).holds(letter(at=later))
    assert not select(since=later).holds(letter(at=AT))


@pytest.mark.parametrize("text", ["kind", "colour=red", "", "=json"])
def test_a_condition_that_is_none_names_the_fields(text):
    with pytest.raises(ValueError, match="kind, topic, partition, offset, reason"):
        parse_condition(text)


def test_a_value_may_hold_what_separates():
    assert parse_condition("reason=a=b~c").text == "a=b~c"


@pytest.mark.parametrize(
    ("headers", "times"),
    [
        ((), 0),
        (((REDRIVEN_HEADER, b"2"),), 2),
        (((REDRIVEN_HEADER, b"1"), (REDRIVEN_HEADER, b"3")), 3),
        (((REDRIVEN_HEADER, b"-1"),), None),
        (((REDRIVEN_HEADER, None),), None),
    ],
)
def test_the_header_says_how_often_a_record_was_sent_again(headers, times):
    assert letter(headers=headers).times_redriven == times


def test_a_letter_whose_value_was_left_out_differs_from_a_record_without_one():
    assert letter("json", value=None, key=None).lacks_value
    assert letter("empty", value=None, key=None).lacks_value  # nothing that could be sent
    assert not letter("empty", value=None, key=b"k").lacks_value
    assert not letter("empty", value=b"", key=None).lacks_value


def test_an_exported_letter_holds_text_and_every_byte():
    told = describe_whole(
        letter(value=b"\xff{", key="Zürich".encode(), headers=(("trace", b"\x01"), ("none", None))), AT
    )
    again = orjson.loads(orjson.dumps(told))
    assert (again["coordinates"], again["kind"], again["attempts"]) == ("news.raw-1-7", "json", 2)
    assert (again["key"], "value" in again) == ("Zürich", False)
    assert b64decode(again["value_base64"]) == b"\xff{"
    assert again["headers"] == [{"name": "trace", "value": "\x01", "value_base64": "AQ=="}, {"name": "none"}]
    assert again["redriven_at"] == "2026-03-05T08:30:00.000Z"


def test_a_shown_letter_tells_why_it_failed_and_what_it_holds():
    text = shown(render_letter(letter(value="[red]Zürich\nfällt".encode(), headers=(("trace", b"\xfe"),)), None))
    for expected in (
        "news.raw-1-7",
        "not UTF-8: byte 3",
        "[red]Zürich",
        "fällt",
        "in hexadecimal) fe",
        "not sent again",
    ):
        assert expected in text


def test_a_long_value_is_cut_and_a_missing_one_is_explained():
    assert "cut after 4000 characters; `dlq export` has it whole" in shown(render_letter(letter(value=b"x" * 5000), AT))
    assert "left out, since the letter would be too large" in shown(render_letter(letter(value=None, key=None), None))


def test_a_record_cannot_steer_the_terminal_of_who_looks_at_it():
    assert printable("a\x1b[2J\u202eb\ttab\nline") == "a\\x1b[2J\\u202eb\ttab\nline"
    hostile = letter(value=b"\x1b]0;owned\x07", key=b"\x1b[2J", headers=(("\x1b[1m", b"\x1b"),))
    body = hostile.body.model_copy(update={"kind": "\x1b[5m", "reason": "\x1b[8m hidden", "input": InputRef(
        topic="\x1b[2J", partition=0, offset=0
    )})  # fmt: skip
    survey = Survey({})
    survey.add(Letter(0, body))
    for text in (shown(render_letter(Letter(0, body), None)), shown(render_survey(survey))):
        assert not any(code in text for code in ("\x1b[2J", "\x1b]0", "\x1b[5m", "\x1b[8m", "\x07"))


def test_a_survey_counts_by_kind_and_topic_and_keeps_the_newest():
    again = letter("schema", offset=9)
    survey = Survey({again.identity: AT})
    for each in (letter(offset=1), letter(offset=2, at=AT + timedelta(hours=1)), again):
        survey.add(each)
    assert survey.describe_counts() == [
        {
            "kind": "json",
            "topic": "news.raw",
            "letters": 2,
            "redriven": 0,
            "first_failed_at": "2026-03-05T08:30:00.000Z",
            "last_failed_at": "2026-03-05T09:30:00.000Z",
        },
        {
            "kind": "schema",
            "topic": "news.raw",
            "letters": 1,
            "redriven": 1,
            "first_failed_at": "2026-03-05T08:30:00.000Z",
            "last_failed_at": "2026-03-05T08:30:00.000Z",
        },
    ]
    text = shown(render_survey(survey))
    assert text.index("news.raw-1-1") < text.index("news.raw-1-2") < text.index("news.raw-1-9")
    assert "no dead letters" in shown(render_survey(Survey({})))


def test_a_note_is_a_dead_letter_that_older_readers_can_read():
    assert Letter(0, DeadLetter.model_validate_json(letter("redriven").body.to_json())).is_note
