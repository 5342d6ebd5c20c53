"""Matchers in Alertmanager's syntax: read, written, and held against alerts."""

from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.events import AlertEvent, AlertStatus, KeyType, Matcher, Severity
from worker.matchers import FIELDS, match_all, matches, parse_matcher, render_matcher

EXAMPLES = Path(schemas.__file__).parent / "examples"
ALERT = AlertEvent.model_validate_json((EXAMPLES / "alert_event.good.jsonl").read_text().splitlines()[0])
WARNING = ALERT.model_copy(update={"severity": Severity.warning})
OPEN_FIELDS = ("alert_id", "key", "target")


def holds(text: str, alert: AlertEvent = WARNING) -> bool:
    return matches(parse_matcher(text), alert)


@given(st.sampled_from(OPEN_FIELDS), st.sampled_from(["=", "!="]), st.text(max_size=256))
def test_what_is_written_is_read_as_the_same(field, op, value):
    matcher = Matcher(field=field, op=op, value=value)
    assert parse_matcher(render_matcher(matcher)) == matcher


@given(st.sampled_from(FIELDS), st.sampled_from(["=~", "!~"]), st.text(alphabet='ab.*|\\n" \n', max_size=20))
def test_a_pattern_that_is_read_is_written_as_the_same(field, op, value):
    matcher = Matcher(field=field, op=op, value=value)
    try:
        assert parse_matcher(render_matcher(matcher)) == matcher
    except ValueError as error:
        assert "regular expression" in str(error)  # noqa: PT017 -- many of these are none


@given(st.sampled_from(OPEN_FIELDS), st.text(max_size=20))
def test_of_a_value_and_its_opposite_just_one_holds(field, value):
    alert = ALERT.model_copy(update={"key": value})
    equal, unequal = (Matcher(field=field, op=op, value=value) for op in ("=", "!="))
    assert matches(equal, alert) is not matches(unequal, alert)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key=symbol:HRVL", True),
        ("key = symbol:HRVL ", True),
        ('key="symbol:HRVL"', True),
        ("key=symbol", False),
        ("key!=symbol:HRVL", False),
        ("key=~symbol:.*", True),
        ("key=~symbol", False),  # the whole value
        ("key!~symbol", True),
        ('severity=~"info|warning"', True),
        ('severity!~"info|warning"', False),
        ("key_type!=source", True),
        ("status=firing", True),
        ("kind=negative_volume", False),
        ("target=", True),  # absent
        ("target=~.+", False),
        ("target!=x", True),
    ],
)
def test_a_matcher_holds_as_in_alertmanager(text, expected):
    assert holds(text) is expected


def test_an_absent_severity_is_empty():
    assert holds('severity=""', ALERT)
    assert not holds('severity=""')


def test_the_market_is_matched_by_the_name_its_events_carry():
    market = ALERT.model_copy(update={"key_type": KeyType.market, "key": "global"})
    assert holds("key_type=global", market)


def test_all_of_several_must_hold_and_none_hold_for_all():
    both = [parse_matcher("key_type=entity"), parse_matcher("severity=warning")]
    assert match_all(both, WARNING)
    assert not match_all(both, ALERT)
    assert match_all([], ALERT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key", "write FIELD=VALUE"),
        ("=x", "write FIELD=VALUE"),
        ("name=x", "there are alert_id, kind, severity"),
        ("severity=warn", "severity is one of info, warning, critical"),
        ('key="a', "quotes must stand around the whole value"),
        ('key="a"b"', "quotes must stand around the whole value"),
        ("key=~(", "no regular expression: missing )"),
        ("key=" + "x" * 257, "257 characters are too many"),
    ],
)
def test_what_is_no_matcher_is_refused_with_what_is_wrong(text, told):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the message is looked at below
        parse_matcher(text)
    assert told in str(refused.value)


def test_an_escape_that_is_none_of_ours_is_left_to_the_pattern():
    assert parse_matcher(r'key=~"a\.b\\d\"\n"').value == 'a\\.b\\d"\n'


@pytest.mark.parametrize("pattern", ["(", "(?R)?a", "(?:(?:a{1,1000}){1,1000}){1,1000}b"])
@pytest.mark.parametrize("op", ["=~", "!~"])
def test_a_pattern_that_cannot_be_judged_holds_for_nothing_and_soon(pattern, op):
    long = ALERT.model_copy(update={"key": "a" * 5000 + "!"})
    started = perf_counter()
    assert not matches(Matcher(field="key", op=op, value=pattern), long)
    assert perf_counter() - started < 2


def test_a_resolved_alert_is_matched_by_its_status():
    assert holds("status=resolved", ALERT.model_copy(update={"status": AlertStatus.resolved}))
