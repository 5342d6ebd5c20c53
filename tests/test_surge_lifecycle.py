from datetime import timedelta

import pytest

from schemas.events import AlertEvent, AlertStatus, ItemStatus, KeyType, LabelledEvent, ResolveReason
from surge_streams import DAY_SECONDS, STACK, START, WALL, stream
from worker.detector import detect
from worker.surge.baseline import Baseline
from worker.surge.copies import Cluster
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


def alerts_of(items: list[tuple[float, dict[str, object]]], key: str = ENTITY, **rules: float) -> list[AlertEvent]:
    alerts = detect(Rules(**rules), stream(items), emitted_at=WALL, run_out=True)  # type: ignore[arg-type]
    return [alert for alert in alerts if alert.key == key]


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
    assert not alerts_of(background(8) + burst(LEARNED, 3, gap=1), negatives_a_day=200)


def test_one_source_is_not_enough_where_three_are_active():
    chatter = [(day * DAY_SECONDS, {"source": f"s{day}", "negative": False}) for day in range(4)]
    alone = burst(LEARNED, 20, source="s1")
    assert not alerts_of(background(8) + chatter + alone)
    assert alerts_of(background(8) + chatter + alone + burst(LEARNED + 5, 1, source="s2"))
    assert alerts_of(background(8) + alone)


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
    assert alerts_of(background(8) + mixed)[0].n_negative == 8
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
    join(state, Cluster("new", "f", seq=7, clock_ms=0), Moment(0, 0), Level(1.0, 1.0, 0.25))
    count_copy(state, Cluster("old", "g", seq=6, clock_ms=0))
    assert [run.copies for run in state.counting()] == [0, 0]
    count_copy(state, Cluster("new", "f", seq=7, clock_ms=0))
    assert [run.copies for run in state.counting()] == [1, 1]
