"""Who is told of an alert, when, and what is never lost: decisions as plain functions of what is known."""

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifying import NOW, make_alert, news, seconds, tell
from schemas.events import AlertEvent, AlertStatus, Matcher, Severity
from worker.actions import Actions, acknowledge, silence
from worker.matchers import parse_matcher
from worker.notify.backoff import Backoff
from worker.notify.decision import UNTOLD, News, Route, Told, choose_route, decide, strongest_first
from worker.notify.hours import Hours, parse_days
from worker.notify.ledger import Ledger
from worker.notify.storm import StormCap

LONDON = ZoneInfo("Europe/London")
ROUTE = Route("desk")
WARNING, CRITICAL = "warning", "critical"
WORKDAY = Hours(LONDON, parse_days("Mon-Fri"), time(7), time(18))
NIGHT = datetime(2026, 3, 5, 22, 0, tzinfo=UTC)
INHIBITED = {"inhibited_by": [{"alert_id": "p", "key_type": "topic", "key": "Macro"}]}


def silenced(until: datetime, text: str = "key=symbol:HRVL") -> Actions:
    actions = Actions()
    action = silence([parse_matcher(text)], NOW - seconds(60), until, by="ana", at=NOW - seconds(60), token="s")
    actions.apply(action.action_id, action)
    return actions


def acknowledged(alert_id: str = "a-1") -> Actions:
    actions = Actions()
    action = acknowledge(alert_id, by="ana", at=NOW)
    actions.apply(action.action_id, action)
    return actions


def what(
    alert: AlertEvent,
    told: Told = UNTOLD,
    route: Route | None = ROUTE,
    *,
    at: datetime = NOW,
    actions: Actions | None = None,
) -> tuple[str, str]:
    decision = decide(alert, told, route, at, actions or Actions())
    return decision.outcome.value, decision.why


# Hours


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-03-05T07:00+00:00", True),
        ("2026-03-05T06:59+00:00", False),
        ("2026-03-05T17:59+00:00", True),
        ("2026-03-05T18:00+00:00", False),
        ("2026-03-07T12:00+00:00", False),  # a Saturday
        ("2026-07-02T06:00+00:00", True),  # 07:00 in summer
        ("2026-07-02T17:00+00:00", False),
        ("2026-03-27T06:30+00:00", False),  # the Friday before clocks go forward
        ("2026-03-30T06:30+00:00", True),  # the Monday after
        ("2026-10-23T06:30+00:00", True),  # the Friday before they go back
        ("2026-10-26T06:30+00:00", False),
    ],
)
def test_hours_are_those_of_the_places_own_clock(at: str, is_open: bool) -> None:
    assert WORKDAY.is_open(datetime.fromisoformat(at)) is is_open


def test_hours_over_midnight_are_of_the_day_on_which_they_begin() -> None:
    night = Hours(LONDON, parse_days("Fri"), time(22), time(6))
    answers = {
        at: night.is_open(datetime.fromisoformat(f"2026-03-{at}:00+00:00"))
        for at in ("06T21:59", "06T22:00", "07T05:59", "07T06:00", "06T05:00", "07T22:30")
    }
    assert [at for at, is_open in answers.items() if is_open] == ["06T22:00", "07T05:59"]


def test_the_hour_that_comes_twice_is_open_twice_and_the_one_that_never_comes_never() -> None:
    early = Hours(LONDON, parse_days("Mon-Sun"), time(1), time(2))
    opened = [
        hour
        for day in ("2026-10-25", "2026-03-29", "2026-03-30")
        for hour in (datetime.fromisoformat(f"{day}T0{hour}:30+00:00") for hour in (0, 1, 2))
        if early.is_open(hour)
    ]
    assert [f"{each:%m-%dT%H:%M}" for each in opened] == ["10-25T00:30", "10-25T01:30", "03-30T00:30"]


def test_days_are_read_in_ranges_and_lists() -> None:
    assert parse_days("Mon-Fri") == {0, 1, 2, 3, 4}
    assert parse_days("Sat, Sun") == {5, 6}
    assert parse_days("Fri-Mon,Wed") == {4, 5, 6, 0, 2}
    with pytest.raises(ValueError, match="'Funday' is no day"):
        parse_days("Mon,Funday")


# Routes


def matchers(*texts: str) -> tuple[Matcher, ...]:
    return tuple(parse_matcher(text) for text in texts)


def test_the_first_route_that_matches_takes_an_alert_unless_it_goes_on() -> None:
    pager = Route("pager", matchers("severity=critical"))
    archive = Route("archive", goes_on=True)
    room = Route("room")
    grave, light = make_alert(severity=CRITICAL), make_alert(severity=WARNING)
    routes = [archive, pager, room]
    reached = {
        name: [each.receiver for each in (archive, pager, room) if choose_route(routes, each.receiver, alert)]
        for name, alert in (("grave", grave), ("light", light))
    }
    assert reached == {"grave": ["archive", "pager"], "light": ["archive", "room"]}


# Decisions


def test_an_alert_is_sent_once_a_revision() -> None:
    assert what(make_alert()) == ("send", "new")
    told = tell(make_alert(revision=2))
    assert what(make_alert(revision=2), told) == ("drop", "known")
    assert what(make_alert(revision=3), told) == ("send", "revised")
    assert what(make_alert(revision=4, ended=True), told) == ("send", "ended")


def test_what_has_no_route_is_not_sent_but_who_was_told_is_told_of_the_end() -> None:
    told = tell(make_alert())
    assert what(make_alert(), route=None) == ("drop", "no route")
    assert what(make_alert(revision=2), told, None) == ("drop", "no route")
    assert what(make_alert(revision=2, ended=True), told, None) == ("send", "ended")


def test_pending_and_inhibited_alerts_are_sent_only_where_a_route_says_so() -> None:
    pending, inhibited = make_alert(status="pending"), make_alert(**INHIBITED)
    assert what(pending) == ("drop", "pending")
    assert what(pending, route=Route("desk", include_pending=True)) == ("send", "new")
    assert what(inhibited) == ("drop", "inhibited")
    assert what(inhibited, route=Route("desk", inhibited="send")) == ("send", "new")


def test_outside_its_hours_a_route_holds_or_drops_what_is_new_and_holds_what_was_told() -> None:
    told = tell(make_alert())
    hold, drop = Route("desk", active=WORKDAY), Route("desk", active=WORKDAY, outside="drop")
    assert what(make_alert(), route=hold) == ("send", "new")
    assert what(make_alert(), route=hold, at=NIGHT) == ("keep", "closed")
    assert what(make_alert(), route=drop, at=NIGHT) == ("drop", "closed")
    for route in (hold, drop):
        assert what(make_alert(revision=2, ended=True), told, route, at=NIGHT) == ("keep", "closed")


def test_a_silenced_alert_waits_and_its_end_is_no_news_where_it_was_never_told() -> None:
    actions = silenced(NOW + seconds(60))
    assert what(make_alert(), actions=actions) == ("keep", "silenced")
    assert what(make_alert(), actions=actions, at=NOW + seconds(60)) == ("send", "new")
    assert what(make_alert(key="symbol:ELSE"), actions=actions) == ("send", "new")
    ended = make_alert(revision=2, ended=True)
    assert what(ended, Told(withheld=True), at=NOW + seconds(60)) == ("drop", "ended untold")
    assert what(ended, actions=actions) == ("drop", "silenced")
    assert what(ended, tell(make_alert()), actions=actions) == ("keep", "silenced")


def test_an_acknowledged_alert_is_heard_of_again_only_when_it_rises_or_ends() -> None:
    told = tell(make_alert(severity=WARNING))
    actions = acknowledged()
    assert what(make_alert(revision=2, severity=WARNING), told, actions=actions) == ("drop", "acknowledged")
    assert what(make_alert(revision=2, severity=CRITICAL), told, actions=actions) == ("send", "revised")
    assert what(make_alert(revision=2, severity=WARNING, ended=True), told, actions=actions) == ("send", "ended")
    assert what(make_alert("a-2", severity=WARNING), actions=actions) == ("send", "new")


def test_an_alert_that_was_only_named_in_a_digest_is_heard_of_again_only_when_it_rises_or_ends() -> None:
    told = tell(make_alert(severity=WARNING), grouped=True)
    assert what(make_alert(revision=2, severity=WARNING), told) == ("drop", "grouped")
    assert what(make_alert(revision=2, severity=CRITICAL), told) == ("send", "revised")
    assert what(make_alert(revision=2, severity=WARNING, ended=True), told) == ("send", "ended")


def test_an_alert_that_came_and_went_while_nothing_could_be_sent_is_news() -> None:
    assert what(make_alert(revision=7, ended=True)) == ("send", "new")


def test_the_gravest_and_strongest_come_first_and_what_is_over_last() -> None:
    alerts = [
        make_alert("over", severity=CRITICAL, ended=True),
        make_alert("light", severity=WARNING, W=99.0),
        make_alert("weak", severity=CRITICAL, W=13.0),
        make_alert("strong", severity=CRITICAL, W=20.0),
        make_alert("unsaid"),
    ]
    assert [each.alert.alert_id for each in strongest_first(map(news, alerts))] == [
        "strong", "weak", "light", "unsaid", "over",
    ]  # fmt: skip


# The ledger

REVISIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["publish", "die", "send", "restart"])), min_size=1, max_size=30
)


class Crashing:
    """A ledger with a log before it and a store behind it, killed at will."""

    def __init__(self) -> None:
        self.log: list[AlertEvent] = []
        self.newest: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.stored: dict[str, Told] = {}
        self.committed = self.position = 0
        self.ledger = Ledger("desk", [ROUTE], {})

    def publish(self, alert_id: str) -> None:
        self.newest[alert_id] = self.newest.get(alert_id, 0) + 1
        self.log.append(make_alert(alert_id, self.newest[alert_id], ended=self.newest[alert_id] % 3 == 0))

    def restart(self) -> None:
        self.ledger, self.position = Ledger("desk", [ROUTE], dict(self.stored)), self.committed
        for alert in {each.alert_id: each for each in self.log}.values():
            self.ledger.resume(alert, NOW)

    def read(self) -> list[News]:
        for offset in range(self.position, len(self.log)):
            self.ledger.take(self.log[offset], offset, NOW)
        self.position = len(self.log)
        return self.ledger.review(NOW, Actions())

    def send(self, owed: list[News]) -> None:
        for each in owed:
            self.arrived[each.alert.alert_id] = each.alert.revision
            self.ledger.sent(each)
        self.stored.update(self.ledger.take_changes())

    def commit(self) -> None:
        self.committed = max(self.committed, self.ledger.next_offset(self.position))


@given(REVISIONS)
def test_whatever_fails_and_wherever_it_is_killed_the_newest_revision_arrives(steps: list[tuple[str, str]]) -> None:
    world = Crashing()
    for alert_id, step in [*steps, ("a", "restart"), ("a", "send")]:
        if step == "publish":
            world.publish(alert_id)
        elif step == "restart":
            world.restart()
        owed = world.read()
        if step == "send":
            world.send(owed)
        if step != "die":
            world.commit()
    assert world.arrived == world.newest
    assert world.ledger.next_offset(world.position) == len(world.log)
    assert world.ledger.oldest_owed() is None


def test_while_a_receiver_is_down_only_the_newest_revision_of_each_alert_is_kept() -> None:
    ledger = Ledger("desk", [ROUTE], {})
    for offset in range(100):
        ledger.take(make_alert(f"a-{offset % 2}", 1 + offset // 2), offset, NOW + seconds(offset))
        owed = ledger.review(NOW + seconds(offset), Actions())
    assert [(each.alert.alert_id, each.alert.revision) for each in owed] == [("a-0", 50), ("a-1", 50)]
    assert ledger.next_offset(100) == 0
    assert ledger.oldest_owed() == NOW
    ledger.sent(owed[0])
    assert (ledger.next_offset(100), ledger.oldest_owed()) == (1, NOW + seconds(1))


def test_a_receiver_that_is_far_behind_is_not_given_more_but_what_only_goes_on_is_no_backlog() -> None:
    ledger = Ledger("desk", [ROUTE], {}, most_owed=2)
    ledger.take(make_alert("a"), 0, NOW)
    assert not ledger.is_full
    ledger.take(make_alert("b"), 1, NOW)
    assert ledger.is_full
    for each in ledger.review(NOW, Actions()):
        ledger.sent(each)
    assert not ledger.is_full
    assert len(list(ledger.firing())) == 2


def test_what_is_silenced_holds_no_offset_back_and_comes_when_the_silence_ends_over_a_restart() -> None:
    actions = silenced(NOW + seconds(60))
    ledger = Ledger("desk", [ROUTE], {})
    ledger.take(make_alert(), 0, NOW)
    assert ledger.review(NOW, actions) == []
    assert ledger.next_offset(1) == 1
    stored = ledger.take_changes()
    assert stored["a-1"].withheld
    again = Ledger("desk", [ROUTE], stored)
    again.resume(make_alert(), NOW)
    assert again.review(NOW + seconds(59), actions) == []
    assert [each.alert.alert_id for each in again.review(NOW + seconds(60), actions)] == ["a-1"]


def test_the_end_of_what_was_withheld_or_refused_is_never_sent() -> None:
    for withhold in ("silence", "pending", "refuse"):
        ledger = Ledger("desk", [ROUTE], {})
        ledger.take(make_alert(status="pending" if withhold == "pending" else "firing"), 0, NOW)
        owed = ledger.review(NOW, silenced(NOW + seconds(9)) if withhold == "silence" else Actions())
        assert bool(owed) is (withhold == "refuse")
        for each in owed:
            ledger.pass_by(each)
        ledger.take(make_alert(revision=2, ended=True), 1, NOW + seconds(20))
        assert ledger.review(NOW + seconds(20), Actions()) == [], withhold


def test_an_alert_seen_pending_that_fires_and_ends_while_the_receiver_is_down_is_still_told() -> None:
    ledger = Ledger("desk", [ROUTE], {})
    for offset, more in enumerate(({"status": "pending"}, {}, {"ended": True})):
        ledger.take(make_alert(revision=offset + 1, **more), offset, NOW)
        owed = ledger.review(NOW, Actions())
    assert [each.alert.status for each in owed] == [AlertStatus.resolved]


def test_what_the_receiver_believes_to_go_on_is_what_it_was_told_and_has_not_ended() -> None:
    ledger = Ledger("desk", [ROUTE], {})
    for offset, alert_id in enumerate(("told", "untold", "over")):
        ledger.take(make_alert(alert_id, severity=WARNING), offset, NOW)
    for each in ledger.review(NOW, Actions()):
        if each.alert.alert_id != "untold":
            ledger.sent(each)
    ledger.take(make_alert("over", 2, ended=True), 3, NOW)
    ledger.take(make_alert("told", 2, severity=CRITICAL), 4, NOW)
    assert [(each.alert.alert_id, each.told.severity, each.again) for each in ledger.firing()] == [
        ("told", Severity.warning, True)
    ]


# The storm cap


def test_over_the_cap_alerts_wait_for_one_digest_a_window() -> None:
    storm = StormCap(2, timedelta(minutes=10))

    def offer(names: str, at: datetime) -> str:
        admitted = ""
        for name in names:
            if storm.admit(name, at):
                storm.count(at)
                admitted += name
        return admitted

    assert offer("abcde", NOW) == "ab"
    assert offer("cde", NOW + seconds(599)) == ""
    assert not storm.is_digest_due(NOW + seconds(599))
    assert storm.is_digest_due(NOW + seconds(600))
    assert offer("f", NOW + seconds(601)) == ""
    storm.close({"c", "d", "e"}, NOW + seconds(602))
    assert not storm.is_digest_due(NOW + seconds(603))
    assert offer("g", NOW + seconds(604)) == ""
    assert storm.is_digest_due(NOW + seconds(1202))
    storm.retain(set())
    assert not storm.is_digest_due(NOW + seconds(1203))
    assert offer("hij", NOW + seconds(1203)) == "hi"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 400)), max_size=80), st.integers(1, 5))
def test_no_window_has_more_than_the_cap_one_by_one_and_one_digest_and_none_is_forgotten(
    offers: list[tuple[int, int]], most: int
) -> None:
    window = seconds(600)
    storm, now = StormCap(most, window), NOW
    alone: list[datetime] = []
    digests: list[datetime] = []
    waiting: set[str] = set()
    for name, pause in offers:
        now += seconds(pause)
        if storm.is_digest_due(now):
            storm.close(frozenset(waiting), now)
            digests.append(now)
            waiting.clear()
        if storm.admit(str(name), now):
            storm.count(now)
            alone.append(now)
        else:
            waiting.add(str(name))
        assert all(map(storm.is_over, waiting))
    for start in alone:
        assert sum(start <= at < start + window for at in alone) <= most
    assert all(later - earlier >= window for earlier, later in pairwise(digests))
    assert storm.is_digest_due(now + window) is bool(waiting)


# Backing off


@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True))
def test_a_receiver_is_left_alone_twice_as_long_each_time_up_to_a_limit(failures: int, chance: float) -> None:
    backoff = Backoff(60.0, failures)
    waited = backoff.fail(NOW, chance)
    assert min(60.0, 2.0**failures) / 2 <= waited <= min(60.0, 2.0**failures)
    assert not backoff.is_over(NOW)
    assert backoff.is_over(NOW + seconds(waited) + timedelta(microseconds=1))
    backoff.succeed()
    assert backoff.is_over(NOW)


def test_a_receiver_that_asks_for_more_time_gets_it_up_to_an_hour() -> None:
    assert Backoff().fail(NOW, 0, 120) == 120
    assert Backoff().fail(NOW, 0, 10**9) == 3600
    assert Backoff(failures=9).fail(NOW, 0, 1) == 60
