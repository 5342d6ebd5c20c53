"""How far alerts can be trusted: the section of the page, its numbers in words, and what of an archive is shuffled."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backtests import backtest, make_settings, write_demo, write_lines
from test_backtest_page import Page, words
from tests.test_judge import DAYTIME, SLOW, TINY
from worker.backtest.page import render_backtest
from worker.backtest.run import Backtest
from worker.backtest.trust import (
    STORY_TICKS,
    place_stories,
    show_trust,
    spell_hours,
    tell_copies,
    tell_false_alerts,
    tell_protocol,
    tell_speed,
)
from worker.cli import app
from worker.judging.chance import Chance
from worker.judging.judge import Judgement
from worker.judging.jumps import MAX_STORIES, Jump, Trial
from worker.judging.reprints import Comparison
from worker.judging.resampling import MIN_DAYS, Resampled, Watched
from worker.judging.streams import STACK, Arrival, Story, write_arrivals
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.keys import Target
from worker.surge.rules import Profiles

JUMPS = tuple(
    Jump(rate, times, (Trial(12, 10.0, 1), Trial(14, 11.0, 1))) for rate in (1, 10, 100) for times in (4, 8, 16, 50)
)
JUDGEMENT = Judgement(
    chance=Chance(alerts=30, keyed_negatives=1_200, negatives_a_day=60.0, budget_a_day=2.0),
    jumps=JUMPS,
    copies=(Comparison(4, same=True), Comparison(5, same=True)),
    resampled=Resampled(tuple(Watched(alerts, 10.0, 600) for alerts in (10, 20, 30))),
)
DAYS = 20


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    folder = tmp_path_factory.mktemp("archive")
    return replace(backtest(write_demo(folder), folder=folder), days=DAYS, judgement=JUDGEMENT)


def test_the_page_has_the_section_only_where_it_was_judged(found):
    page = Page(render_backtest(found))
    places = {attrs.get("id") for _, attrs in page.tags}
    assert {"trust", "trust-chance-title", "trust-archive-title", "trust-surges-3-title"} <= places
    bare = render_backtest(replace(found, judgement=None))
    assert "trust" not in {attrs.get("id") for _, attrs in Page(bare).tags}
    assert "can be trusted" not in words(bare)


def test_the_page_stands_without_alerts_and_without_shuffles_too(found):
    text = words(render_backtest(replace(found, alerts=(), histories={})))
    assert "How far these alerts can be trusted" in text
    short = replace(JUDGEMENT, resampled=None)
    page = render_backtest(replace(found, judgement=short, days=5))
    assert "trust-archive-title" not in page
    assert f"that takes at least {MIN_DAYS} whole days, not silent for most of their hours, to draw from; it has 5" in (
        words(page)
    )


def test_every_sentence_and_number_stands_on_the_page(found):
    text = words(render_backtest(found)).replace("&#39;", "'")
    for sentence in (
        *tell_false_alerts(found, JUDGEMENT),
        *tell_speed(JUDGEMENT),
        tell_copies(JUDGEMENT),
        *tell_protocol(found, JUDGEMENT),
    ):
        assert sentence in text
    assert text.count("13.0 (12.0 to 14.0)") == len(JUMPS)


def test_chance_and_shuffles_are_told_beside_what_is_expected(found):
    chance, shuffled = tell_false_alerts(found, JUDGEMENT)
    assert "gave 1.5 alerts a day, all of them false (30 alerts in 20 days of 60 negative stories;" in chance
    assert chance.endswith("The budget of 2 a day is kept.")
    assert "still gave 2.0 alerts a day (" in shuffled
    assert "in 95 % of 3 shuffles), where 2.0 are to be expected if its 60 negative stories a day" in shuffled
    assert "`stacknorm-worker backfill` teaches the detector. No bar is set for it." in shuffled
    taught = replace(found, rules=replace(found.rules, profiles=Profiles(market=DAYTIME)))
    assert "backfill" not in list(tell_false_alerts(taught, JUDGEMENT))[1]


@pytest.mark.parametrize(
    ("alerts", "verdict"),
    [(50, "is not kept"), (39, "is kept."), (15, "is kept.")],
)
def test_the_verdict_on_the_budget_is_that_of_the_bar(found, alerts, verdict):
    chance, _ = tell_false_alerts(found, replace(JUDGEMENT, chance=replace(JUDGEMENT.chance, alerts=alerts)))
    assert verdict in chance


def test_a_budget_kept_by_too_few_alerts_is_not_made_sure_of(found):
    few = Chance(alerts=3, keyed_negatives=120, negatives_a_day=60.0, budget_a_day=2.0)
    chance, _ = tell_false_alerts(found, replace(JUDGEMENT, chance=few))
    assert "is kept, but up to 3 cannot be made sure of" in chance


def test_late_missed_and_repeated_alerts_are_told():
    assert "No surge took more than 1.3 times" in " ".join(tell_speed(JUDGEMENT))
    assert "None of 24 surges opened more than one alert." in " ".join(tell_speed(JUDGEMENT))
    worse = (Jump(1, 4, (Trial(120, 30.0, 0), Trial(50, 30.0, 2))), *JUMPS[1:])
    told = " ".join(tell_speed(replace(JUDGEMENT, jumps=worse)))
    assert "1 a day, 4 times as many, 85 for 30" in told
    assert "Without an alert within 120 stories: 1 a day, 4 times as many, 1 of 2 surges." in told
    assert "Of 24 surges 1 opened more than one alert." in told
    eager = (Jump(1, 4, (Trial(50, 30.0, 2), Trial(50, 30.0, 2)), 3 / (2 * MAX_STORIES)), *JUMPS[1:])
    told = " ".join(tell_speed(replace(JUDGEMENT, jumps=eager)))
    assert "Of 24 surges 2 opened more than one alert, where chance opens 3 alerts in as many stories." in told


def test_the_protocol_names_what_is_dealt_out(found):
    assert any("which stories are negative (a block bootstrap)" in each for each in tell_protocol(found, JUDGEMENT))
    watching = replace(found, rules=replace(found.rules, targets=(Target("topic", "m&a"),)))
    assert any("which stories are watched for" in each for each in tell_protocol(watching, JUDGEMENT))


def test_a_pace_that_is_not_simulated_is_told(found):
    assert not any("does not depend on the pace" in each for each in tell_protocol(found, JUDGEMENT))
    busy = replace(found, rules=replace(found.rules, negatives_a_day=200_000.0))
    assert any("counted up to 200,000" in each for each in tell_protocol(busy, JUDGEMENT))


def test_pictures_hold_every_number_within_their_frame(found):
    trust = show_trust(found, JUDGEMENT)
    assert trust.archive is not None
    for rates in (trust.chance, trust.archive):
        shares = [rates.axis.share(end) for row in rates.rows for end in (row.found.low, row.found.high)]
        shares += [rates.axis.share(place) for place, _ in rates.marks]
        assert all(0 <= share <= 1 for share in shares)
    assert [row.name for row in trust.archive.rows] == ["shuffled: no real surge is left", "as it was"]
    assert [rate for rate, _ in trust.surges] == [1, 10, 100]
    assert all(len(jumps) == 4 for _, jumps in trust.surges)
    assert [place_stories(tick) for tick in STORY_TICKS] == pytest.approx([n / 6 for n in range(7)])
    assert place_stories(1.0) == 0


def test_lengths_of_time_are_as_one_says_them():
    assert [spell_hours(hours) for hours in (0.1, 0.95, 1, 3.3, 47, 48, 240)] == [
        "6 min", "57 min", "1.0 h", "3.3 h", "47 h", "2.0 days", "10 days",
    ]  # fmt: skip


def test_an_archive_is_shuffled_without_its_copies_and_what_is_not_labelled(tmp_path):
    arrivals = [
        Arrival(20_000 * DAY_MS + hour * HOUR_MS, Story("negative", "m&a", "wire", title=f"the story of hour {hour}"))
        for hour in range(24 * (MIN_DAYS + 2))
    ]
    copies = [Arrival(arrival.clock_ms + 60_000, arrival.story) for arrival in arrivals]
    events = write_arrivals([*arrivals, *copies], STACK)
    archive = write_lines(tmp_path / "labelled.jsonl", (event.to_json() for event in events))
    plan = replace(TINY, calm_streams=1, calm_alerts=0.0)
    settings = make_settings(negatives_a_day=SLOW.negatives_a_day)
    judged = backtest(archive, folder=tmp_path, settings=settings, judging=plan)
    assert judged.stories == len(arrivals)
    assert judged.days == MIN_DAYS
    assert judged.judgement is not None
    assert judged.judgement.resampled is not None
    learned = MIN_DAYS - settings.rules.learning_days
    assert [stream.keyed_hits for stream in judged.judgement.resampled.streams] == 2 * [3 * 24 * learned]
    assert backtest(archive, folder=tmp_path, settings=settings).judgement is None


@pytest.mark.slow
def test_the_command_judges_where_asked_to(tmp_path: Path):
    page = tmp_path / "report.html"
    environment = {"STACKNORM_ENGINE__KIND": "deterministic", "STACKNORM_SURGE__NEGATIVES_A_DAY": "60"}
    arguments = ["backtest", str(write_demo(tmp_path)), "--cache", str(tmp_path), "--html", str(page), "--judge"]
    done = CliRunner().invoke(app, arguments, env=environment)
    assert done.exit_code == 0, done.output
    assert "false alerts a day, V = 60" in done.stdout
    assert "How far these alerts can be trusted" in page.read_text()
