"""The judge with a small plan: what few trials can show, that it says where a bar is missed, and how days are drawn."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from surge_streams import STACK, at, event
from tests.judge import QUICK, RULES
from worker.backtest.output import render_judgement
from worker.judging.chance import Chance, watch_calm
from worker.judging.intervals import mean_interval
from worker.judging.judge import Archive, Judgement, Plan, judge
from worker.judging.jumps import MAX_STORIES, Jump, Trial, try_jump
from worker.judging.reprints import Comparison, compare_copies
from worker.judging.resampling import (
    MIN_DAYS,
    WEEK_DAYS,
    Arrivals,
    deal_labels,
    draw_days,
    read_story,
    split_days,
    watch_resampled,
)
from worker.judging.streams import Arrival, Story, clock_at, count_hits, rules_for_streams, write_arrivals, write_timed
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.exposure import FLAT, HOURS, WHOLE, Profile
from worker.surge.keys import NEGATIVE, Target, Watchlist
from worker.surge.rules import Primed, Prior, Priors, Profiles

TINY = Plan(
    calm_streams=2, calm_alerts=0.1, trials=1, rates=(10,), jumps=(50,), resampled_streams=2, resampled_stories=2_000
)
SLOW = replace(RULES, negatives_a_day=400.0)
"""At a pace that takes no time to simulate."""

DAYTIME = Profile(tuple(2 * WHOLE - 1 if 6 <= hour % 24 < 18 else 1 for hour in range(HOURS)))
WORKDAYS = Profile(tuple(1398 if hour < 5 * 24 else 5 for hour in range(HOURS)))


def make_days(days: int, a_day: int = 20, seed: int = 0) -> dict[int, list[Arrival]]:
    random = Random(seed)
    first = 20_000
    found = {}
    for day in range(first, first + days):
        clocks = sorted(random.randrange(day * DAY_MS, (day + 1) * DAY_MS) for _ in range(random.randint(1, a_day)))
        found[day] = [
            Arrival(clock_ms, Story(random.choice(("negative", "neutral", None)), "m&a", "wire", ("symbol:ACME",)))
            for clock_ms in clocks
        ]
    return found


def test_chance_stays_within_the_budget():
    chance = watch_calm(RULES, 0.5, 0)
    assert chance.keyed_negatives > 5_000
    assert chance.a_day.low <= RULES.budget_a_day


def test_alerts_are_counted_at_the_pace_of_the_rules():
    chance = Chance(4, round(2 * RULES.negatives_a_day), RULES.negatives_a_day, RULES.budget_a_day)
    found = chance.a_day
    assert (chance.days, found.value) == (2, 2)
    assert (found.low, found.high) == (pytest.approx(0.545, abs=0.001), pytest.approx(5.121, abs=0.001))
    assert not chance.met
    assert not replace(chance, alerts=60, keyed_negatives=20 * chance.keyed_negatives // 2 // 10).met
    assert replace(chance, alerts=60, keyed_negatives=20 * chance.keyed_negatives).met


@pytest.mark.parametrize("jump", QUICK.jumps)
def test_a_jump_is_told_about_as_soon_as_by_the_bare_test_and_once(jump):
    found = Jump(10, jump, tuple(try_jump(RULES, 10, jump, seed) for seed in range(3)))
    assert found.met, found


@pytest.mark.parametrize("profile", [FLAT, WORKDAYS])
def test_copies_change_no_alert(profile):
    found = compare_copies(replace(RULES, profiles=Profiles(market=profile)), 0)
    assert found.same
    assert found.alerts


def test_a_surge_begins_in_no_alert_of_chance():
    eager = replace(RULES, negatives_a_day=68.0)
    trials = [try_jump(eager, 1, 50, seed) for seed in range(8)]
    assert all(trial.opened for trial in trials)


def test_more_alerts_of_one_surge_are_borne_as_far_as_chance_opens_them():
    trials = (Trial(10, 10.0, 2), Trial(13, 10.0, 1))
    assert Jump(10, 8, trials, 1.2 / (2 * MAX_STORIES)).met
    assert not Jump(10, 8, trials, 0.9 / (2 * MAX_STORIES)).met


def test_a_surge_takes_as_long_as_its_stories():
    assert Jump(10, 4, (Trial(20, 20.0, 1),)).hours(20) == 12


def shown(judgement: Judgement) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_judgement(judgement))
    return captured.get()


@pytest.mark.parametrize(
    ("trial", "word"),
    [
        (Trial(14, 10.0, 1), "13.5 stories (13"),
        (Trial(10, 10.0, 2), "1 of 2 opened a second alert"),
        (Trial(MAX_STORIES, 10.0, 0), "1 of 2 had none"),
    ],
)
def test_a_missed_bar_is_said(trial, word):
    kept = Chance(60, round(40 * RULES.negatives_a_day), RULES.negatives_a_day, RULES.budget_a_day)
    judgement = Judgement(kept, (Jump(10, 8, (trial, Trial(13, 10.0, 1))),), (Comparison(3, same=True),))
    assert not judgement.met
    row = next(line for line in shown(judgement).splitlines() if line.strip().startswith("10 a day, 8 times"))
    assert word in row
    assert row.split()[-1] == "missed"
    met = replace(judgement, jumps=(Jump(10, 8, (Trial(13, 10.0, 1),)),))
    assert met.met
    assert "missed" not in shown(met)


def test_copies_that_change_an_alert_or_find_none_are_no_proof():
    judgement = Judgement(Chance(0, 1, 1, 1), (), (Comparison(3, same=True), Comparison(2, same=False)))
    assert not judgement.copies_met
    assert not replace(judgement, copies=(Comparison(0, same=True),)).copies_met
    assert replace(judgement, copies=(Comparison(3, same=True),)).copies_met


def test_a_mean_has_an_interval_within_what_was_seen():
    assert mean_interval([5.0]).model_dump() == {"value": 5, "low": 5, "high": 5}
    found = mean_interval([4.0, 5.0, 6.0])
    assert 4 <= found.low < 5 == found.value < found.high <= 6


def test_the_same_input_gives_the_same_in_any_number_of_processes():
    archive = Archive(make_days(MIN_DAYS), STACK)
    steps: list[tuple[int, int]] = []
    alone = judge(SLOW, archive, TINY, report=lambda _, done, total: steps.append((done, total)))
    assert steps == [(done, 6) for done in range(1, 7)]
    assert alone.resampled is not None
    assert judge(SLOW, archive, TINY, processes=2) == alone


def test_an_archive_that_is_too_short_gives_no_number():
    tiny = replace(TINY, calm_streams=1, calm_alerts=0.0, jumps=(), trials=0)
    assert judge(SLOW, Archive(make_days(MIN_DAYS - 1), STACK), tiny).resampled is None
    assert judge(SLOW, Archive({}, STACK), tiny).resampled is None
    silent = {day: arrivals[:1] for day, arrivals in make_days(MIN_DAYS).items()}  # time stands still most of the day
    assert judge(SLOW, Archive(silent, STACK), tiny).resampled is None


# Streams


def test_made_up_news_follows_the_week_of_the_rules():
    story = Story("negative", "m&a", "wire", ("symbol:ACME",))
    clocks = [event.clock for event in write_timed([(60 * minute, story) for minute in range(7 * 1440)], DAYTIME)]
    assert clocks == sorted(clocks)
    assert clocks[-1] < clock_at(0) + timedelta(days=7)
    assert Counter(6 <= clock.hour < 18 for clock in clocks)[True] > 0.99 * len(clocks)


def test_streams_are_judged_by_the_users_rules_without_what_is_of_other_keys():
    mine = Watchlist("mine", ("symbol:AAPL",))
    own = Watchlist("own", ("symbol:MSFT",), budget_a_day=1.0)
    rules = replace(
        RULES,
        targets=(Target("topic", "m&a"),),
        watchlists=(mine, own),
        budget_a_day=0.5,
        priors=Priors(entity=Prior(0.1, 0.5)),
        profiles=Profiles(market=DAYTIME),
        primed=Primed("p", "d1", {}),
    )
    found = rules_for_streams(rules)
    assert (found.targets, found.watchlists, found.primed) == ((NEGATIVE,), (mine,), None)
    assert (found.budget_a_day, found.priors) == (0.5, Priors())
    assert found.profiles == Profiles(DAYTIME, DAYTIME, DAYTIME, DAYTIME, DAYTIME)


def test_the_keys_of_watchlists_are_in_made_up_news_and_count():
    mine = Watchlist("mine", ("symbol:AAPL",), ("m&a",))
    alone, listed = (watch_calm(replace(SLOW, watchlists=lists), 5, 0) for lists in ((), (mine,)))
    assert listed.keyed_negatives > 1.05 * alone.keyed_negatives


def test_stories_read_from_events_are_written_as_the_detector_reads_them():
    given_event = event(0, 60, symbols=("ACME", "BETA"), topic="m&a", source="wire")
    story = read_story(given_event)
    assert story == Story("negative", "m&a", "wire", ("symbol:ACME", "symbol:BETA"))
    (written,) = write_arrivals([Arrival(round(at(60).timestamp() * 1000), story)], STACK)
    assert written.clock == given_event.clock
    assert read_story(written) == story
    assert count_hits([written], RULES) == 5
    unnamed = read_story(given_event.model_copy(update={"source": given_event.input.topic}))
    assert count_hits(write_arrivals([Arrival(0, unnamed)], STACK), RULES) == 4
    unsure = read_story(event(0, 60, topic_probability=0.3, negative=False))
    assert (unsure.sentiment, unsure.topic) == ("neutral", None)
    (written,) = write_arrivals([Arrival(0, unsure._replace(sentiment=None))], STACK)
    assert read_story(written) == unsure._replace(sentiment=None)
    assert not count_hits([written], RULES)


# Days drawn anew


def test_only_whole_days_are_drawn_from_and_silent_ones_are_days_too():
    story = Story("negative", None, "wire")
    days = split_days([Arrival(round(day * DAY_MS), story) for day in (10.5, 11.2, 11.9, 13.1, 15.0)])
    assert {day: len(arrivals) for day, arrivals in days.items()} == {11: 2, 12: 0, 13: 1, 14: 0}
    assert split_days([]) == {}


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32))
def test_a_drawn_stream_is_as_long_and_each_date_a_whole_day_of_its_day_of_the_week(days, dates, seed):
    pool = make_days(days, a_day=6, seed=seed)
    drawn = draw_days(pool, dates, Random(seed))
    assert [arrival.clock_ms for arrival in drawn] == sorted(arrival.clock_ms for arrival in drawn)
    by_date = {date: [a for a in drawn if a.clock_ms // DAY_MS == date] for date in sorted(pool)[:dates]}
    assert sum(map(len, by_date.values())) == len(drawn)
    for date, arrivals in by_date.items():
        assert any(
            arrivals == [Arrival(a.clock_ms + (date - day) * DAY_MS, a.story) for a in pool[day]]
            for day in pool
            if (date - day) % WEEK_DAYS == 0
        )


def test_every_day_of_the_pool_can_be_drawn_for_a_date():
    pool = make_days(3 * WEEK_DAYS)
    drawn = {tuple(arrival.clock_ms % DAY_MS for arrival in draw_days(pool, 1, Random(seed))) for seed in range(60)}
    assert len(drawn) == 3


@given(st.integers(1, 10), st.integers(0, 2**32), st.sets(st.sampled_from(("sentiment", "topic"))))
def test_dealing_labels_out_anew_keeps_their_share_and_all_else(days, seed, tasks):
    arrivals = [arrival for day in make_days(days, seed=seed).values() for arrival in day]
    dealt = deal_labels(arrivals, tasks, Random(seed))
    assert Counter(a.story.sentiment for a in dealt) == Counter(a.story.sentiment for a in arrivals)
    assert Counter(a.story.topic for a in dealt) == Counter(a.story.topic for a in arrivals)
    bare = [[(a.clock_ms, a.story.source, a.story.entities) for a in each] for each in (arrivals, dealt)]
    assert bare[0] == bare[1]
    assert tasks or dealt == arrivals


def test_labels_dealt_out_are_not_where_they_were():
    arrivals = [arrival for day in make_days(10).values() for arrival in day]
    assert deal_labels(arrivals, {"sentiment"}, Random(0)) != arrivals


def test_a_stream_is_watched_once_the_detector_has_learned_and_from_the_start_where_it_is_primed():
    days = {
        day: [Arrival(day * DAY_MS + hour * HOUR_MS, Story("negative", None, "wire")) for hour in range(24)]
        for day in range(20_000, 20_000 + MIN_DAYS)
    }
    learning = watch_resampled(RULES, days, MIN_DAYS, STACK, 0)
    assert learning.days == pytest.approx(MIN_DAYS - 1 / 24 - 3)
    assert learning.keyed_hits == 2 * 24 * (MIN_DAYS - 3)
    primed = watch_resampled(replace(RULES, primed=Primed("p", STACK.digest, {})), days, MIN_DAYS, STACK, 0)
    assert primed.days == pytest.approx(MIN_DAYS - 1 / 24)
    assert primed.keyed_hits == 2 * 24 * MIN_DAYS


def test_arrivals_are_those_of_the_events_that_are_asked_for_in_order_of_time():
    arrivals = Arrivals()
    for number, seconds in enumerate((30, 10, 20)):
        arrivals.add(event(number, seconds, source=f"wire {number}"))
    found = arrivals.of(["news.raw-0-0", "news.raw-0-1"])
    assert [arrival.story.source for arrival in found] == ["wire 1", "wire 0"]
