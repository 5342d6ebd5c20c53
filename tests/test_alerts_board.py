"""Alerts with what people did about them: found by the beginning of an id, selected, and shown without doing harm."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import schemas
from schemas.events import AlertAction, AlertEvent, AlertStatus, KeyType, ResolveReason, Severity
from worker.actions import acknowledge, dispose, note, silence
from worker.alerts.board import SHORT_CHARS, Board, NotFound, as_data, make_board
from worker.alerts.tables import find_silenced, render_list, render_silences, render_whole, tell_length
from worker.console import read_length
from worker.matchers import parse_matcher

EXAMPLES = Path(schemas.__file__).parent / "examples"
ALERT = AlertEvent.model_validate_json((EXAMPLES / "alert_event.good.jsonl").read_text().splitlines()[0])
NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SAID = {"by": "ana", "at": NOON}


def alert(alert_id: str, **changes: object) -> AlertEvent:
    return ALERT.model_copy(update={"alert_id": alert_id, **changes})


def resolved(alert_id: str, **changes: object) -> AlertEvent:
    ended = {"status": AlertStatus.resolved, "ends_at": NOON, "resolve_reason": ResolveReason.quiet}
    return alert(alert_id, **ended, **changes)


def board(*alerts: AlertEvent, actions: tuple[AlertAction, ...] = ()) -> Board:
    return make_board(
        {each.alert_id.encode(): each.to_json() for each in alerts},
        {each.action_id.encode(): each.to_json() for each in actions},
    )


def shown(what: RenderableType, width: int = 140) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_an_alert_is_found_by_its_id_or_a_beginning_that_is_its_alone():
    seen = board(alert("abc1"), alert("abd2"), alert("ab"))
    assert seen.find("abc").alert_id == "abc1"
    assert seen.find("ab").alert_id == "ab"
    with pytest.raises(NotFound, match="3 alerts begin with 'a': ab, abc1, abd2"):
        seen.find("a")
    with pytest.raises(NotFound, match="no alert begins with 'x'; `stacknorm-worker alerts list --all`"):
        seen.find("x")


def test_no_alert_is_meant_by_nothing():
    with pytest.raises(NotFound):
        board(alert("abc1")).find("")


@given(st.sets(st.text("ab", min_size=12, max_size=12), max_size=30))
def test_a_shortened_id_finds_its_alert_and_no_shorter_one_would(alert_ids):
    seen = board(*map(alert, alert_ids))
    for alert_id, short in seen.shorten().items():
        assert seen.find(short).alert_id == alert_id
        others = alert_ids - {alert_id}
        assert len(short) == SHORT_CHARS or any(each.startswith(short[:-1]) for each in others)


def test_what_fires_is_listed_strongest_first_and_the_rest_when_asked_for():
    weak, strong = alert("weak", W=13.0), alert("strong", W=20.0)
    pending, old, new = (
        alert("pending", status=AlertStatus.pending),
        resolved("old", starts_at=NOON - HOUR),
        resolved("new", starts_at=NOON),
    )
    seen = board(old, weak, pending, new, strong)

    def listed(*matchers: str, everything: bool = False) -> list[str]:
        return [each.alert_id for each in seen.select([*map(parse_matcher, matchers)], everything=everything)]

    assert listed() == ["strong", "weak"]
    assert listed(everything=True) == ["strong", "weak", "pending", "new", "old"]
    assert listed("status=resolved") == ["new", "old"]
    assert listed("alert_id=~we.*") == ["weak"]


def test_records_that_are_neither_alerts_nor_actions_are_counted_and_passed_over():
    seen = make_board({b"a": b"spam", b"b": None, b"c": ALERT.to_json()}, {b"x": b"{}", b"y": None})
    assert (seen.foreign, list(seen.alerts)) == (2, [ALERT.alert_id])


def test_the_list_says_who_looks_after_an_alert_and_until_when_it_is_silenced():
    hushed = silence([parse_matcher("key=symbol:HRVL")], NOON, NOON + 5 * HOUR, token="1", **SAID)
    seen = board(
        alert("4f2a81c0aa", severity=Severity.critical),
        alert("77777777bb", key="symbol:OTHR"),
        actions=(acknowledge("4f2a81c0aa", **SAID), hushed),
    )
    told = shown(render_list(seen, seen.select([], everything=False), NOON))
    (silenced,) = (line for line in told.splitlines() if "4f2a81c0" in line)
    for part in ("critical", "entity HRVL", "5 of 6", "0.02", "1.18", "3.5 h", "ana", "2026-03-05 17:00"):
        assert part in silenced
    (other,) = (line for line in told.splitlines() if "77777777" in line)
    assert "ana" not in other
    assert "17:00" not in other


def test_an_alert_is_shown_whole_with_all_that_was_done_in_order():
    done = (
        acknowledge("4f2a", by="ben", at=NOON + HOUR),
        note("4f2a", "halted", token="1", **SAID),
        dispose("4f2a", "false_alert", by="ana", at=NOON + 2 * HOUR),
        silence([parse_matcher("alert_id=4f2a")], NOON, NOON + 9 * HOUR, by="ana", at=NOON + 3 * HOUR, token="2"),
        note("other", "no", token="3", **SAID),
    )
    told = shown(render_whole(board(resolved("4f2a"), alert("other"), actions=done), resolved("4f2a"), NOON + HOUR))
    assert "resolved: entity HRVL" in told
    assert "Harrow & Vale shares fall" in told
    deeds = ["noted", "acknowledged", "judged false alert", "silenced until 2026-03-05 21:00"]
    places = [told.index(deed) for deed in deeds]
    assert places == sorted(places)
    assert "note:3" not in told
    assert "acknowledge:4f2a" in told
    assert "nobody has done anything" in shown(render_whole(board(ALERT), ALERT, NOON))


def test_an_alert_is_shown_with_the_narrower_ones_whose_story_it_tells():
    wider = alert("4f2a", key_type=KeyType.topic, key="Macro")
    told_by = {"inhibited_by": [{"alert_id": "4f2a", "key_type": "topic", "key": "Macro"}]}
    narrower = [
        AlertEvent.model_validate_json(orjson.dumps(as_data(alert(f"b{n}")) | told_by | {"key": f"symbol:N{n}"}))
        for n in range(2)
    ]
    seen = board(wider, *narrower, alert("cc"))
    assert "includes: entity N0 (b0), entity N1 (b1)" in shown(render_whole(seen, wider, NOON))
    assert seen.describe(wider, NOON)["includes"] == ["b0", "b1"]
    for other in (*narrower, alert("cc")):
        assert "includes" not in shown(render_whole(seen, other, NOON))
        assert "includes" not in seen.describe(other, NOON)


def test_what_people_wrote_steers_no_terminal_and_is_no_markup():
    comment = "[red]x[/] \x1b[2J \u202e"
    done = note(ALERT.alert_id, comment, token="1", by="a\x1b[1m", at=NOON)
    told = shown(render_whole(board(ALERT, actions=(done,)), ALERT, NOON))
    assert "\x1b" not in told
    assert r"[red]x[/] \x1b[2J \u202e" in told


def test_silences_are_listed_with_what_they_are_on():
    hushed = silence([parse_matcher("key=~symbol:.*")], NOON, NOON + HOUR, comment="results day", token="1", **SAID)
    seen = board(alert("a"), alert("b", key="symbol:OTHR"), alert("c", key="topic"), resolved("d"), actions=(hushed,))
    told = shown(render_silences(seen, NOON))
    for part in ("silence:1", "2026-03-05 12:00", "2026-03-05 13:00", 'key=~"symbol:.*"', "results day"):
        assert part in told
    assert [each.alert_id for each in find_silenced(seen, hushed)] == ["a", "b"]
    assert "no silence holds" in shown(render_silences(seen, NOON + HOUR))


@pytest.mark.parametrize(
    ("length", "told"),
    [(5 * timedelta(minutes=1), "5 min"), (3.2 * HOUR, "3.2 h"), (47 * HOUR, "47.0 h"), (122.4 * HOUR, "5.1 d")],
)
def test_lengths_are_told_in_their_own_unit(length, told):
    assert tell_length(length) == told


@pytest.mark.parametrize(
    ("text", "hours"),
    [("90m", 1.5), ("2h", 2), ("1d12h", 36), ("2w", 336), ("1w2d3h30m", 219.5), ("999999w", 168e6 - 168)],
)
def test_a_length_is_read(text, hours):
    assert read_length(text) == hours * HOUR


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-2h", "1h1d", "2 h", "9999999h", "1.5h"])  # fmt: skip
def test_what_is_no_length_is_refused(text):
    with pytest.raises(ValueError, match="is no length of time: write 90m"):
        read_length(text)
