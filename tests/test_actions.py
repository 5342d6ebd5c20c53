"""The state of the topic of actions: what holds for an alert, by whom, and until when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.events import AlertAction, AlertEvent
from worker.actions import KEPT, SWEPT_FROM, Actions, acknowledge, decode_action, dispose, note, silence
from worker.matchers import parse_matcher

EXAMPLES = Path(schemas.__file__).parent / "examples"
ALERT = AlertEvent.model_validate_json((EXAMPLES / "alert_event.good.jsonl").read_text().splitlines()[0])
NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HRVL = (parse_matcher("key=symbol:HRVL"),)
ELSEWHERE = (parse_matcher("key=symbol:OTHR"),)
TIMES = st.integers(-5, 5).map(lambda hours: NOON + hours * HOUR)


def hushed(token: str, starts_at: datetime = NOON, hours: float = 2, matchers=HRVL) -> AlertAction:
    return silence(matchers, starts_at, starts_at + hours * HOUR, by="ana", at=NOON, token=token)


def taken_up(*actions: AlertAction) -> Actions:
    state = Actions()
    for action in actions:
        state.apply(action.action_id, action)
    return state


@st.composite
def actions(draw: st.DrawFn, index: int) -> AlertAction:
    said = {"by": draw(st.sampled_from(["ana", "ben"])), "at": draw(TIMES)}
    alert_id = draw(st.sampled_from([ALERT.alert_id, "another"]))
    kind = draw(st.sampled_from(["acknowledge", "dispose", "note", "silence"]))
    if kind == "acknowledge":
        return acknowledge(alert_id, **said)
    if kind == "dispose":
        return dispose(alert_id, draw(st.sampled_from(["true_alert", "expected"])), **said)
    if kind == "note":
        return note(alert_id, "look", **said, token=str(index))
    starts_at, matchers = draw(TIMES), draw(st.sampled_from([HRVL, ELSEWHERE]))
    return silence(matchers, starts_at, starts_at + draw(st.integers(1, 5)) * HOUR, **said, token=str(index))


@st.composite
def distinct_actions(draw: st.DrawFn) -> list[AlertAction]:
    drawn = [draw(actions(index)) for index in range(draw(st.integers(0, 8)))]
    return list({action.action_id: action for action in drawn}.values())


def answers(state: Actions, now: datetime) -> list[object]:
    told = [state.silence_of(ALERT, now), state.silences(now)]
    for alert_id in (ALERT.alert_id, "another"):
        told += [state.acknowledgement_of(alert_id), state.disposition_of(alert_id), state.notes_of(alert_id)]
    return told


@given(distinct_actions(), st.randoms(use_true_random=False), TIMES)
def test_the_order_of_different_actions_does_not_matter(applied, random, now):
    shuffled = random.sample(applied, len(applied))
    assert answers(taken_up(*applied), now) == answers(taken_up(*shuffled), now)


@given(distinct_actions(), st.data(), TIMES)
def test_what_was_undone_is_as_if_it_had_never_been(applied, data, now):
    undone = data.draw(st.sets(st.sampled_from([action.action_id for action in applied]))) if applied else set()
    state = taken_up(*applied)
    for action_id in undone:
        state.apply(action_id, None)
    left = [action for action in applied if action.action_id not in undone]
    assert answers(state, now) == answers(taken_up(*left), now)
    assert len(state) == len(left)


@given(distinct_actions(), st.lists(TIMES, max_size=5).map(sorted))
def test_looking_between_changes_no_later_answer(applied, looks):
    looked = Actions()
    for action in applied:
        looked.apply(action.action_id, action)
        for now in looks[:1]:
            looked.silence_of(ALERT, now)
    for now in looks:
        assert answers(looked, now) == answers(taken_up(*applied), now)


@given(TIMES, st.integers(1, 10_000_000), st.integers(-1, 10_000_001))
def test_a_silence_holds_from_its_start_to_just_before_its_end(starts_at, length_ms, at_ms):
    one = silence(HRVL, starts_at, starts_at + timedelta(milliseconds=length_ms), by="ana", at=NOON, token="t")
    held = taken_up(one).silence_of(ALERT, starts_at + timedelta(milliseconds=at_ms))
    assert (held == one) is (0 <= at_ms < length_ms)


def test_of_several_silences_the_one_that_ends_last_is_told():
    short, long, foreign = hushed("a"), hushed("b", hours=3), hushed("c", hours=9, matchers=ELSEWHERE)
    assert taken_up(long, short, foreign).silence_of(ALERT, NOON) == long


def test_silences_that_hold_or_will_are_listed_by_their_end():
    over, later, now = hushed("a", NOON - 5 * HOUR), hushed("b", NOON + HOUR), hushed("c")
    assert taken_up(over, later, now).silences(NOON) == (now, later)


def test_the_newest_acknowledgement_and_disposition_count_and_all_notes():
    said = {"by": "ana", "at": NOON}
    state = taken_up(
        acknowledge("a", **said),
        acknowledge("a", by="ben", at=NOON + HOUR),
        dispose("a", "expected", **said),
        dispose("a", "true_alert", **said),
        note("a", "second", by="ben", at=NOON + HOUR, token="1"),
        note("a", "first", **said, token="2"),
    )
    assert state.acknowledgement_of("a").by == "ben"
    assert state.disposition_of("a").disposition == "true_alert"
    assert [each.comment for each in state.notes_of("a")] == ["first", "second"]
    assert state.acknowledgement_of("b") is None


def test_an_action_may_move_to_another_alert():
    state = taken_up(note("a", "look", by="ana", at=NOON, token="1"), note("b", "look", by="ana", at=NOON, token="1"))
    assert (state.notes_of("a"), len(state.notes_of("b"))) == ((), 1)


def test_a_silence_longer_than_the_topic_keeps_it_is_refused():
    with pytest.raises(ValueError, match="must end within 90 days"):
        silence(HRVL, NOON, NOON + KEPT + timedelta(seconds=1), by="ana", at=NOON, token="t")


def test_memory_is_bounded_by_what_still_holds():
    state, now = Actions(), NOON
    most = 0
    for index in range(10 * SWEPT_FROM):
        now += HOUR
        state.silences(now)
        one = silence(HRVL, now, now + HOUR, by="ana", at=now, token=str(index))
        state.apply(one.action_id, one)
        most = max(most, len(state))
    assert most <= 2 * SWEPT_FROM
    old = note("a", "look", by="ana", at=now - KEPT, token="old")
    state.apply(old.action_id, old)
    assert state.notes_of("a") == ()


def test_a_record_that_is_no_action_says_nothing():
    good = (EXAMPLES / "alert_action.good.jsonl").read_text().splitlines()[0].encode()
    assert decode_action(good).by == "ana"
    assert decode_action(None) is None
    assert decode_action(b"spam") is None
    assert decode_action(good.replace(b'"schema_version": 1', b'"schema_version": 9')) is None
