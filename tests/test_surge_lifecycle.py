import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from scipy.stats import nbinom

from schemas.events import (
    AlertEvent,
    AlertStatus,
    ItemStatus,
    KeyType,
    LabelledEvent,
    NewsItem,
    ResolveReason,
    Severity,
)
from surge_streams import DAY_SECONDS, STACK, START, WALL, event, stream
from worker.codec import similarity_keys
from worker.detector import detect
from worker.surge.baseline import Baseline
from worker.surge.copies import Cluster
from worker.surge.keys import Target, Watchlist
from worker.surge.lifecycle import KeyState, count_copy, join
from worker.surge.rules import Prior, Priors, Rules
from worker.surge.runs import Level, Moment

HOUR = 3600.0
LEARNED = 5 * DAY_SECONDS
ENTITY = "symbol:ACME"


def background(days: float, every_hours: float = 2.0) -> list[tuple[float, dict[str, object]]]:
    """A market that talks of other things, so that the feed is never silent: a quarter of it is negative."""
    steps = int(days * 24 / every_hours)
    return [
        (step * every_hours * HOUR, {"symbols": ("CALM",), "negative": step % 4 == 0, "source": f"s{step % 3}"})
        for step in range(steps)
    ]


def burst(start: float, count: int, gap: float = 600.0, **options: object) -> list[tuple[float, dict[str, object]]]:
    """Bad news of ACME, from two sources in turn unless told."""
    sources = ("wire", "paper")
    return [(start + i * gap, {"source": sources[i % 2], "topic": "other", **options}) for i in range(count)]


def alerts_of(items: list[tuple[float, dict[str, object]]], key: str = ENTITY, **rules: Any) -> list[AlertEvent]:
    alerts = detect(Rules(**rules), stream(items), emitted_at=WALL, run_out=True)
    return [alert for alert in alerts if alert.key == key]


def firing(alerts: list[AlertEvent]) -> list[AlertEvent]:
    return [alert for alert in alerts if alert.status is AlertStatus.firing]


def test_a_burst_fires_once_is_revised_with_each_story_and_resolves_once():
    alerts = alerts_of(background(8) + burst(LEARNED, 20))
    assert [alert.revision for alert in alerts] == list(range(1, len(alerts) + 1))
    assert len({alert.alert_id for alert in alerts}) == 1
    assert [alert.status for alert in alerts] == [AlertStatus.firing] * (len(alerts) - 1) + [AlertStatus.resolved]
    first, last = alerts[0], alerts[-1]
    assert first.first_clock == START + timedelta(seconds=LEARNED)
    assert first.starts_at == first.detected_at == first.first_clock + timedelta(minutes=10 * (first.n_negative - 1))
    assert first.h <= first.W
    assert last.n_negative == 20
    assert len(alerts) == 20 - first.n_negative + 2


def test_it_resolves_as_quiet_six_hours_after_the_last_negative_story():
    last = alerts_of(background(8) + burst(LEARNED, 20))[-1]
    assert last.resolve_reason is ResolveReason.quiet
    assert last.ends_at == last.detected_at == START + timedelta(seconds=LEARNED + 19 * 600 + 6 * HOUR)


def test_it_resolves_when_every_statistic_has_fallen_below_its_share_of_the_threshold():
    busy = burst(0, 5 * 48, gap=HOUR / 2) + burst(LEARNED, 16, gap=60)
    alerts = alerts_of(background(7) + busy)
    last = alerts[-1]
    assert last.resolve_reason is ResolveReason.below_threshold
    assert pytest.approx(0.4 * last.h, rel=1e-3) == last.W
    assert 0.4 * last.h > last.W


def test_a_surge_that_stays_becomes_the_new_level():
    alerts = alerts_of(background(14) + burst(LEARNED, 6 * 48, gap=HOUR / 2))
    ends = [alert for alert in alerts if alert.status is AlertStatus.resolved]
    assert ends[0].resolve_reason is ResolveReason.new_level
    assert ends[0].ends_at == alerts[0].starts_at + timedelta(hours=48)
    assert len(ends) == 1


def test_nothing_fires_while_learning():
    assert not alerts_of(background(4) + burst(2 * DAY_SECONDS, 30))


def test_learning_starts_again_with_a_new_stack():
    other = STACK.model_copy(update={"digest": "d2"})
    moved = [
        (seconds, {**options, "stack": other} if seconds > 4.5 * DAY_SECONDS else options)
        for seconds, options in background(12) + burst(LEARNED, 20) + burst(2 * LEARNED, 20)
    ]
    fired = [alert for alert in alerts_of(moved) if alert.revision == 1]
    assert [alert.first_clock for alert in fired] == [START + timedelta(seconds=2 * LEARNED)]
    assert fired[0].provenance.stack == other


def test_three_stories_are_not_enough_however_fast():
    assert {alert.status for alert in alerts_of(background(8) + burst(LEARNED, 3, gap=1), negatives_a_day=200)} == {
        AlertStatus.pending,
        AlertStatus.resolved,
    }


def test_one_source_is_not_enough_where_three_are_active():
    chatter = [(day * DAY_SECONDS, {"source": f"s{day}", "negative": False}) for day in range(4)]
    alone = burst(LEARNED, 20, source="s1")
    assert not firing(alerts_of(background(8) + chatter + alone))
    assert firing(alerts_of(background(8) + chatter + alone + burst(LEARNED + 5, 1, source="s2")))
    assert firing(alerts_of(background(8) + alone))


def test_a_source_key_is_held_to_the_number_of_stories_alone():
    alerts = alerts_of(background(8) + burst(LEARNED, 30, gap=30, source="rag"), key="rag")
    assert alerts[0].key_type is KeyType.source
    assert alerts[0].n_sources == 1


def test_all_negative_is_a_negative_surge_and_the_usual_mix_a_volume_surge():
    surge = alerts_of(background(8) + burst(LEARNED, 20))
    mixed = [(LEARNED + i * 120.0, {"negative": i % 4 == 0, "source": f"s{i % 3}"}) for i in range(160)]
    volume = alerts_of(background(8) + mixed)
    assert {alert.kind.value for alert in surge} == {"negative_surge"}
    assert {alert.kind.value for alert in volume} == {"negative_volume"}


def test_volume_alone_needs_twice_the_stories():
    mixed = [(LEARNED + i * 120.0, {"negative": i % 4 == 0, "source": f"s{i % 3}"}) for i in range(160)]
    assert firing(alerts_of(background(8) + mixed))[0].n_negative == 8
    assert alerts_of(background(8) + burst(LEARNED, 20))[0].n_negative < 8


def test_evidence_is_the_first_story_and_the_latest_nine_with_their_coordinates():
    alerts = alerts_of(background(8) + burst(LEARNED, 20))
    last = alerts[-1]
    times = [evidence.received_at for evidence in last.evidence]
    latest = [START + timedelta(seconds=LEARNED + 600 * i) for i in (0, *range(11, 20))]
    assert times == latest
    assert len(last.provenance.inputs) == 10


def test_copies_are_counted_and_never_tested():
    copies = burst(LEARNED + 60, 40, gap=200, title="acme sinks")
    assert not alerts_of(background(8) + copies)
    alerts = alerts_of(background(8) + burst(LEARNED, 20) + copies)
    assert alerts[-1].n_negative == 21
    assert alerts[-1].n_copies == 39
    assert max(evidence.copies for evidence in alerts[3].evidence) > 0


def test_a_copy_after_a_day_is_a_new_story():
    daily = [(LEARNED + i * (DAY_SECONDS + 1), {"title": "daily wrap"}) for i in range(3)]
    events = stream(background(9) + daily)
    assert _stories_of(events) == 3
    hourly = [(LEARNED + i * HOUR, {"title": "daily wrap"}) for i in range(25)]
    assert _stories_of(stream(background(9) + hourly)) == 1


def _stories_of(events: list[LabelledEvent]) -> int:
    alerts = detect(
        Rules(
            negatives_a_day=1,
            budget_a_day=1,
            min_clusters=1,
            min_volume_clusters=1,
            resolve_below=-1e-9,
            learning_days=0,
        ),
        events,
        emitted_at=WALL,
    )
    return sum(alert.key == ENTITY and alert.status is AlertStatus.firing for alert in alerts)


@pytest.mark.parametrize("options", [{"abstained": True}, {"status": ItemStatus.withdrawn}])
def test_abstained_and_withdrawn_items_count_nowhere(options):
    assert not alerts_of(background(8) + burst(LEARNED, 30, **options))


def test_a_corrected_item_counts():
    assert alerts_of(background(8) + burst(LEARNED, 20, status=ItemStatus.corrected))


def test_a_hole_in_the_feed_is_no_exposure():
    whole = background(5) + burst(LEARNED, 20)
    hole = [(seconds + (30 * DAY_SECONDS if seconds > 4 * DAY_SECONDS else 0), options) for seconds, options in whole]
    market = alerts_of(whole)[0].baseline, alerts_of(hole)[0].baseline
    assert market[0].b == pytest.approx(market[1].b, abs=0.3)


def test_an_alert_is_named_by_rule_kind_key_and_first_story():
    items = background(8) + burst(LEARNED, 20)
    one, again, other = alerts_of(items)[0], alerts_of(items)[0], alerts_of(items, budget_a_day=3.0)[0]
    assert one.alert_id == again.alert_id != other.alert_id
    assert one.provenance.rule_version == Rules().version != other.provenance.rule_version


def test_expected_counts_at_least_an_hour_of_the_baseline():
    first = alerts_of(background(8) + burst(LEARNED, 20, gap=0.0))[0]
    assert first.first_clock == first.starts_at
    assert first.expected == pytest.approx(first.baseline.a / first.baseline.b / 24)
    assert first.ratio == pytest.approx(first.n_negative / first.expected)


def test_every_source_of_the_run_is_counted_however_many_others_speak():
    chatter = [(LEARNED + i * 60.0, {"negative": False, "source": f"quiet{i}"}) for i in range(300)]
    alerts = alerts_of(background(8) + chatter + burst(LEARNED + 1, 20))
    assert {alert.n_sources for alert in alerts} == {2}
    crowd = [(LEARNED + 1 + i * 60.0, {"source": f"loud{i}"}) for i in range(30)]
    assert alerts_of(background(8) + crowd)[-1].n_sources == 16


def test_a_budget_above_the_number_of_negatives_is_refused():
    with pytest.raises(ValueError, match="a budget of 3 false alerts a day"):
        Rules(negatives_a_day=2, budget_a_day=3)


def test_another_number_is_another_rule_version():
    assert Rules().version == Rules().version
    others = (Rules(budget_a_day=0.5), Rules(guard_hours=5), Rules(priors=Priors(entity=Prior(2.0))))
    assert len({rules.version for rules in (Rules(), *others)}) == 4


def test_a_story_at_the_instant_of_a_timer_comes_before_it():
    end = LEARNED + 19 * 600 + 6 * HOUR
    joined = alerts_of(background(8) + burst(LEARNED, 20) + burst(end, 1))[-1]
    assert joined.n_negative == 21
    assert joined.ends_at == START + timedelta(seconds=end + 6 * HOUR)
    late = alerts_of(background(8) + burst(LEARNED, 20) + burst(end + 0.001, 1))[-1]
    assert late.n_negative == 20
    assert late.ends_at == START + timedelta(seconds=end)


def test_a_copy_of_a_story_before_the_run_is_not_counted_in_it():
    state = KeyState(1, Baseline(0), 0)
    join(state, 7, Moment(0, 0), Level(1.0, 1.0, 0.25))
    count_copy(state, Cluster("old", b"g", seq=6, clock_ms=0))
    assert [run.copies for run in state.counting()] == [0, 0]
    count_copy(state, Cluster("new", b"f", seq=7, clock_ms=0))
    assert [run.copies for run in state.counting()] == [1, 1]


# Pending


def test_a_pending_alert_fires_under_the_same_id_once_the_evidence_is_enough():
    chatter = [(day * DAY_SECONDS, {"source": f"s{day}", "negative": False}) for day in range(4)]
    alone = burst(LEARNED, 20, source="s1")
    alerts = alerts_of(background(8) + chatter + alone + burst(LEARNED + 20 * 600, 3, source="s2"))
    statuses = [alert.status for alert in alerts]
    assert statuses == sorted(statuses, key=list(AlertStatus).index)
    assert len({alert.alert_id for alert in alerts}) == 1
    assert len({alert.starts_at for alert in alerts}) == 1
    first = firing(alerts)[0]
    assert first.starts_at < first.detected_at == START + timedelta(seconds=LEARNED + 20 * 600)
    assert first.n_sources == 2


def test_the_baseline_learns_on_while_an_alert_is_pending_and_is_frozen_while_it_fires():
    def usual_after(source: str) -> float:
        bad = burst(LEARNED, 60, gap=HOUR, source=source)
        chatter = [(day * DAY_SECONDS, {"source": f"s{day}", "negative": False}) for day in range(4)]
        again = burst(LEARNED + 20 * DAY_SECONDS, 20)
        told = background(40) + chatter + bad + burst(LEARNED + 60, 1, source="s0") + again
        alerts = alerts_of(told, max_frozen_hours=300)
        return alerts[-1].baseline.a / alerts[-1].baseline.b

    assert usual_after("s0") > 1.5 * usual_after("wire")


def test_an_alert_began_with_the_story_that_it_says_even_where_a_later_burst_lets_it_fire():
    usual = [(half_day * 12 * HOUR, {"source": "s1"}) for half_day in range(40)]
    chatter = [(19 * DAY_SECONDS + n * HOUR, {"source": f"s{n}", "negative": False}) for n in range(4)]
    slow = burst(20 * DAY_SECONDS, 20, gap=2 * HOUR, source="s1")
    end = 20 * DAY_SECONDS + 40 * HOUR
    fast = burst(end, 8, gap=1, source="s1") + burst(end + 8, 3, gap=1, source="s2")
    alerts = alerts_of(background(23) + usual + chatter + slow + fast)
    assert firing(alerts)[0].R == 32
    assert firing(alerts)[0].n_negative == 29
    assert {alert.first_clock for alert in alerts} == {alerts[0].first_clock}
    assert all(alert.first_clock <= alert.starts_at <= alert.detected_at for alert in alerts)


# The end


@pytest.mark.parametrize("every_hours", [4, 9])
def test_a_slow_surge_of_a_rare_key_is_one_alert(every_hours):
    slow = burst(0, 1, negative=False) + burst(LEARNED, 24, gap=every_hours * HOUR)
    alerts = alerts_of(background(20) + slow, max_frozen_hours=300, negatives_a_day=100)
    ends = [alert for alert in alerts if alert.status is AlertStatus.resolved]
    assert len(ends) == 1
    assert ends[0].n_negative == 24
    assert ends[0].resolve_reason is ResolveReason.quiet
    last_story = START + timedelta(seconds=LEARNED + 23 * every_hours * HOUR)
    assert ends[0].ends_at is not None
    unlikely = timedelta(hours=23 * every_hours * (20_000 ** (1 / 23) - 1))
    assert ends[0].ends_at - last_story == pytest.approx(unlikely, abs=timedelta(seconds=1))


def test_while_the_feed_is_silent_an_alert_waits_and_goes_on_where_it_stood():
    slow = burst(0, 1, negative=False) + burst(LEARNED, 12, gap=4 * HOUR)
    silence = 3 * 24 * HOUR
    after = LEARNED + 11 * 4 * HOUR + 1
    heard = [item for item in background(20) if item[0] < after]
    later = [(seconds + silence, told) for seconds, told in background(20) if seconds >= after]
    options = {"max_frozen_hours": 300, "negatives_a_day": 100}
    alone, torn = (alerts_of(items + slow, **options)[-1] for items in (background(20), heard + later))
    assert alone.resolve_reason is torn.resolve_reason is ResolveReason.quiet
    assert torn.ends_at is not None
    assert alone.ends_at is not None
    waited = torn.ends_at - alone.ends_at
    assert timedelta(seconds=silence - 6 * HOUR) <= waited <= timedelta(seconds=silence)


# Severity and chance


def test_severity_rises_with_the_height_and_never_falls():
    alerts = alerts_of(background(8) + burst(LEARNED, 40, gap=60))
    ladder = [list(Severity).index(alert.severity) for alert in alerts if alert.severity]
    assert ladder[0] == 0
    assert ladder == sorted(ladder)
    assert alerts[-1].severity is Severity.critical


def test_more_news_of_the_usual_mix_is_never_critical():
    mixed = [(LEARNED + i * 20.0, {"negative": i % 4 == 0, "source": f"s{i % 3}"}) for i in range(600)]
    assert {alert.severity for alert in alerts_of(background(8) + mixed)} == {Severity.info, Severity.warning}


def test_chance_is_the_budget_at_the_threshold_and_falls_with_every_nat():
    for alert in firing(alerts_of(background(8) + burst(LEARNED, 20))):
        assert alert.chance_a_day == pytest.approx(alert.budget * math.exp(alert.h - alert.W))
        assert alert.p_value is not None
        hours = max((alert.detected_at - alert.first_clock).total_seconds() / HOUR, 1)
        usual = nbinom(alert.baseline.a, alert.baseline.b / (alert.baseline.b + hours / 24))
        assert alert.p_value == pytest.approx(usual.sf(alert.n_negative - 2), rel=1e-6)


def test_after_a_new_stack_alerts_say_so_for_a_while():
    other = STACK.model_copy(update={"digest": "d2"})
    moved = [(s, {**told, "stack": other} if s > DAY_SECONDS else told) for s, told in background(30)]
    soon, late = burst(LEARNED, 20, stack=other), burst(LEARNED + 20 * DAY_SECONDS, 20, stack=other)
    alerts = alerts_of(moved + soon + late)
    assert {alert.quality for alert in alerts if alert.detected_at < START + timedelta(days=10)} == {("model_changed",)}
    assert {alert.quality for alert in alerts if alert.detected_at > START + timedelta(days=20)} == {()}


# Corrections


def taken_back(number: int, seconds: float, status: ItemStatus, **options: Any) -> LabelledEvent:
    """A later word on ``item-<number>``."""
    later = event(10_000 + number, seconds, status=status, **options)
    return later.model_copy(update={"item_id": f"item-{number}", "title": f"story {number} again"})


def revised(
    items: list[tuple[float, dict[str, object]]], *words: LabelledEvent, key: str = ENTITY, **rules: Any
) -> list[AlertEvent]:
    events = sorted([*stream(items), *words], key=lambda each: each.clock)
    events = [
        each.model_copy(update={"input": each.input.model_copy(update={"offset": n})}) for n, each in enumerate(events)
    ]
    return [alert for alert in detect(Rules(**rules), events, emitted_at=WALL, run_out=True) if alert.key == key]


def numbers_of_the_burst(items: list[tuple[float, dict[str, object]]]) -> list[int]:
    """Of its stories in the stream."""
    return [n for n, (_, told) in enumerate(sorted(items, key=lambda item: item[0])) if told.get("topic") == "other"]


@pytest.mark.parametrize("status", [ItemStatus.withdrawn, ItemStatus.corrected])
def test_a_story_that_is_taken_back_is_counted_off_and_shown_as_such(status):
    items = background(8) + burst(LEARNED, 12)
    sixth = numbers_of_the_burst(items)[5]
    word = taken_back(sixth, LEARNED + 12 * 600, status, negative=False)
    alerts = revised(items, word)
    said = next(alert for alert in alerts if alert.detected_at == word.clock)
    assert said.n_negative == alerts[alerts.index(said) - 1].n_negative - 1 == 11
    assert [evidence.status for evidence in said.evidence if evidence.item_id == f"item-{sixth}"] == [status]
    assert said.revision == alerts[alerts.index(said) - 1].revision + 1


def test_the_copies_of_a_story_that_is_taken_back_are_counted_off_with_it():
    items = background(8) + burst(LEARNED, 12)
    again = [(LEARNED + 12 * 600 + n, {"title": "acme sinks", "source": "wire"}) for n in range(4)]
    told = sorted(items + again, key=lambda item: item[0])
    first = next(n for n, (_, options) in enumerate(told) if "title" in options)
    alerts = revised(told, taken_back(first, LEARNED + 13 * 600, ItemStatus.withdrawn))
    assert [(alert.n_negative, alert.n_copies) for alert in alerts[-2:]] == [(12, 0), (12, 0)]
    assert revised(told)[-1].n_copies == 3


def test_what_is_taken_back_of_before_an_alert_fired_is_no_part_of_the_new_level():
    items = background(20) + burst(LEARNED, 12, gap=300) + burst(LEARNED + 10 * DAY_SECONDS, 30, gap=60)
    first_four = numbers_of_the_burst(items)[:4]
    words = [taken_back(n, LEARNED + 2 * HOUR + n, ItemStatus.corrected, negative=False) for n in first_four]
    rules = {"max_frozen_hours": 30, "quiet_hours": 40, "resolve_below": 0.001}
    alone, torn = (revised(items, *said, **rules) for said in ([], words))
    assert next(alert.resolve_reason for alert in torn if alert.resolve_reason) is ResolveReason.new_level
    assert firing(torn)[0].n_negative == 5
    assert torn[-1].alert_id == alone[-1].alert_id != torn[0].alert_id
    assert torn[-1].baseline.a == alone[-1].baseline.a > 5


def test_of_a_surge_of_which_no_more_came_nothing_is_a_new_level():
    slow = burst(0, 1, negative=False) + burst(LEARNED, 5, gap=9 * HOUR)
    alerts = alerts_of(background(20) + slow, negatives_a_day=20)
    (end,) = [alert for alert in alerts if alert.status is AlertStatus.resolved]
    (fired, *_) = firing(alerts)
    assert fired.n_negative == end.n_negative
    assert end.ends_at == fired.detected_at + timedelta(hours=48)
    assert end.resolve_reason is ResolveReason.quiet


def test_a_correction_that_is_as_bad_changes_the_words_and_no_count():
    items = background(8) + burst(LEARNED, 12)
    word = taken_back(numbers_of_the_burst(items)[5], LEARNED + 12 * 600, ItemStatus.corrected)
    alerts = revised(items, word)
    said = next(alert for alert in alerts if alert.detected_at == word.clock)
    assert said.n_negative == 12
    assert word.title in {evidence.title for evidence in said.evidence}


def test_once_its_copies_are_unknown_a_correction_revises_who_cites_the_story_and_is_a_new_one_to_all_others():
    items = background(8) + burst(LEARNED, 12)
    sixth = numbers_of_the_burst(items)[5]
    early, late = (
        [taken_back(sixth, seconds, ItemStatus.corrected, symbols=("ACME", "OTHER"), topic="other")]
        for seconds in (LEARNED + 5.5 * 600, LEARNED + 12 * 600)
    )
    others = burst(LEARNED + 13 * 600, 7, symbols=("OTHER",), gap=60)
    for words, count in ((early, 7), (late, 8)):
        alerts = revised(items, *words, copy_window_hours=1)
        assert max(alert.n_negative for alert in alerts) == 12
        assert words[0].title in {evidence.title for evidence in alerts[-1].evidence}
        about = revised(items + others, *words, copy_window_hours=1, key="symbol:OTHER")
        assert max(alert.n_negative for alert in about) == count


def test_an_alert_whose_stories_are_all_taken_back_ends_so():
    items = background(8) + burst(LEARNED, 8)
    words = [
        taken_back(number, LEARNED + 9 * 600 + n, ItemStatus.withdrawn)
        for n, number in enumerate(numbers_of_the_burst(items))
    ]
    alerts = revised(items, *words)
    assert alerts[-1].resolve_reason is ResolveReason.withdrawn
    assert alerts[-1].detected_at <= words[-1].clock


# Other keys


def test_a_topic_inhibits_the_entities_whose_story_it_tells_and_they_say_so():
    crisis = [
        (LEARNED + i * 300.0, {"symbols": (f"BANK{i % 3}",), "topic": "banking", "source": f"s{i % 4}"})
        for i in range(60)
    ]
    alerts = detect(Rules(), stream(background(8) + crisis), emitted_at=WALL, run_out=True)
    topic = [alert for alert in alerts if alert.key == "banking"]
    banks = [alert for alert in alerts if alert.key.startswith("symbol:BANK")]
    hidden = [alert for alert in banks if alert.inhibited_by]
    assert {alert.key for alert in hidden} == {"symbol:BANK0", "symbol:BANK1", "symbol:BANK2"}
    assert {ref.alert_id for alert in hidden for ref in alert.inhibited_by} == {topic[0].alert_id}


def test_a_topic_whose_alert_is_one_entitys_story_does_not_inhibit_it():
    one = burst(LEARNED, 40, gap=60, topic="banking")
    alerts = detect(Rules(), stream(background(8) + one), emitted_at=WALL, run_out=True)
    assert {alert.key for alert in alerts} >= {ENTITY, "banking"}
    assert not any(alert.inhibited_by for alert in alerts)


def test_a_watchlist_fires_as_one_key_by_its_own_budget():
    banks = [f"symbol:BANK{n}" for n in range(12)]
    spread = [(LEARNED + i * 120.0, {"symbols": (f"BANK{i % 12}",), "source": f"s{i % 2}"}) for i in range(60)]
    items = background(8) + spread
    loose = Watchlist("banks", tuple(banks), budget_a_day=2.0, negatives_a_day=20.0)
    alerts = alerts_of(items, key="banks", watchlists=(loose,))
    shared = alerts_of(items, key="banks", watchlists=(replace(loose, budget_a_day=None),))
    assert firing(alerts)[0].key_type is KeyType.watchlist
    assert firing(alerts)[0].h < firing(shared)[0].h
    assert firing(alerts)[0].n_negative < firing(shared)[0].n_negative


def test_another_target_is_watched_beside_bad_news():
    targets = (Target("sentiment", "neutral"), Target("sentiment", "negative"))
    good = burst(LEARNED, 20, negative=False)
    calm = [(s, {**told, "negative": True}) for s, told in background(8)]
    alerts = alerts_of(calm + good, targets=targets)
    assert {(alert.kind.value, alert.target) for alert in alerts} == {("surge", "sentiment=neutral")}
    both = alerts_of(background(8) + burst(LEARNED, 20), targets=targets)
    alone = alerts_of(background(8) + burst(LEARNED, 20))
    assert [alert.W for alert in both] == [alert.W for alert in alone]


# Near copies


def reworded(seconds: float, words: str, *symbols: str) -> LabelledEvent:
    (key,) = similarity_keys([NewsItem(title=words)])
    told = event(round(seconds), seconds, symbols=symbols, title=words, source=f"s{round(seconds) % 3}", topic="other")
    return told.model_copy(update={"similarity_key": key})


def fired_on(key: str, *items: LabelledEvent) -> bool:
    events = sorted([*stream(background(8)), *items], key=lambda each: each.clock)
    events = [
        each.model_copy(update={"input": each.input.model_copy(update={"offset": n})}) for n, each in enumerate(events)
    ]
    return any(alert.key == key for alert in detect(Rules(), events, emitted_at=WALL))


BODY = " ".join(f"word{n}" for n in range(40))


def test_the_same_story_in_other_words_of_others_is_one_piece_of_evidence():
    again = [reworded(LEARNED + 60 * n, f"{BODY} wire{n}", "ACME") for n in range(30)]
    other = [reworded(LEARNED + 60 * n, " ".join(f"w{n}x{k}" for k in range(40)), "ACME") for n in range(30)]
    assert not fired_on(ENTITY, *again)
    assert fired_on(ENTITY, *other)


def test_a_text_that_names_another_company_is_no_copy_however_alike():
    filings = [reworded(LEARNED + 60 * n, f"{BODY} form{n}", f"C{n}") for n in range(30)]
    assert fired_on("global", *filings)
    unnamed = [reworded(LEARNED + 60 * n, f"{BODY} form{n}") for n in range(30)]
    assert not fired_on("global", *unnamed)


def test_a_crowded_window_is_shorter_and_forgets_its_oldest_stories_first():
    again = burst(LEARNED, 30, title="acme sinks")
    chatter = [(LEARNED + 300 + n * 600.0 + k, {"symbols": ()}) for n in range(30) for k in range(3)]
    items = background(8) + again + [(s, {**told, "negative": False}) for s, told in chatter]
    assert not firing(alerts_of(items))
    assert firing(alerts_of(items, max_window_stories=2))
