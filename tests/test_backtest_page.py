"""The page and the sentences: plain words, right numbers, nothing loaded, hostile text harmless."""

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import chi2

from backtests import backtest, write_demo
from schemas.events import AlertEvent, AlertKind, KeyType, ResolveReason
from stacknorm.text import fingerprints
from worker.backtest.output import check_out, render_table, write_out
from worker.backtest.overlap import Overlap, count_known, find_overlap
from worker.backtest.page import render_backtest
from worker.backtest.picture import MAX_BARS, Subject, draw_alert, draw_whole
from worker.backtest.run import Backtest
from worker.backtest.sentences import chance_a_day, explain_alert, figure, summarise, warn
from worker.errors import Misconfigured
from worker.judging.intervals import count_interval
from worker.settings import EngineSettings

HOSTILE = '<script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(2)> "& \u202e'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    folder = tmp_path_factory.mktemp("archive")
    return backtest(write_demo(folder), folder=folder)


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def rewritten(found: Backtest, **changes: object) -> Backtest:
    return replace(found, alerts=tuple(alert.model_copy(update=changes) for alert in found.alerts))


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_page_loads_nothing_and_runs_no_script_whatever_the_texts_are(found):
    evidence = tuple(
        story.model_copy(update={"title": HOSTILE, "source": HOSTILE}) for story in found.alerts[0].evidence
    )
    hostile = replace(rewritten(found, evidence=evidence), files=(HOSTILE,), overlap=Overlap(HOSTILE, 2, 1))
    page = Page(render_backtest(hostile))
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in {"src", "href"} and value]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_every_alert_stands_in_the_table_and_by_itself_with_its_stories(found):
    text = words(render_backtest(found))
    for life in found.lives:
        assert life[0].alert_id in text
        for sentence in explain_alert(life, found.rules):
            assert sentence in text
        for story in life[-1].evidence:
            assert story.title in text.replace("&#39;", "'").replace("&amp;", "&")


def test_links_lead_to_places_on_the_page(found):
    page = Page(render_backtest(found))
    places = {attrs.get("id") for _, attrs in page.tags}
    assert {attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and attrs["href"]} <= places


def test_an_archive_without_alerts_has_a_page_too(found):
    text = words(render_backtest(replace(found, alerts=(), histories={})))
    assert "0 alerts in" in text
    text = words(render_backtest(replace(found, alerts=(), histories={}, watched_from=None, watched_days=0.0)))
    assert "Nothing could fire: the detector first learns for 3 days" in text


def test_an_alert_is_told_in_plain_words(found):
    life = next(life for life in found.lives if life[0].key_type is KeyType.entity)
    counts = {"n_negative": 5, "n_total": 6, "n_copies": 1, "n_sources": 4, "expected": 1.24, "ratio": 4.03}
    at = life[0].starts_at - timedelta(hours=1, minutes=28)
    first = life[0].model_copy(update=counts | {"first_clock": at})
    told = list(explain_alert([first.model_copy(update={"kind": AlertKind.negative_surge}), life[-1]], found.rules))
    assert re.match(
        r"Between 1\d:\d\d and 1\d:\d\d on Friday 6 March 2026, 5 different negative stories named HRVL, where "
        r"1\.2 were expected: 4\.0 times as many\.$",
        told[0],
    )
    assert told[1] == "They came from 4 sources. 1 copy of them came too and was not counted."
    assert "5 of the 6 stories in that time were negative, a larger share than usual" in told[2]


@pytest.mark.parametrize(
    ("reason", "words_of_it"),
    [
        (ResolveReason.quiet, "no negative story had come for 6 hours"),
        (ResolveReason.below_threshold, "faded below 40% of the threshold"),
        (ResolveReason.new_level, "after 48 hours this much had become the new normal"),
    ],
)
def test_each_end_is_told(found, reason, words_of_it):
    life = next(life for life in found.lives if life[-1].ends_at is not None)
    *_, end = explain_alert([life[0], life[-1].model_copy(update={"resolve_reason": reason})], found.rules)
    assert words_of_it in end
    *_, end = explain_alert([life[0]], found.rules)
    assert end.startswith("It was still firing at the end of the archive")


def test_chance_is_the_budget_at_this_pace_of_bad_news(found):
    rules = found.rules
    at_pace = replace(found, watched_days=2.0, watched_negatives=round(2 * rules.negatives_a_day))
    assert chance_a_day(at_pace) == pytest.approx(rules.budget_a_day)
    half = replace(at_pace, watched_days=4.0)
    assert chance_a_day(half) == pytest.approx(rules.budget_a_day / 2)
    assert not any("surge.negatives_a_day" in sentence for sentence in summarise(at_pace))
    rare = replace(at_pace, watched_days=20.0)
    assert any(f"surge.negatives_a_day = {rules.negatives_a_day / 10:.1g}" in sentence for sentence in summarise(rare))


@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_intervals_of_counts_are_exact(count):
    low, high = count_interval(count)
    assert low == pytest.approx(chi2.ppf(0.025, 2 * count) / 2 if count else 0)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2)


def test_figures_are_as_long_as_they_mean_something():
    assert [figure(value) for value in (0, 0.004, 0.0456, 1.24, 14.6, 20_000)] == [
        "0", "less than 0.01", "0.046", "1.2", "15", "20,000",
    ]  # fmt: skip


def test_a_picture_holds_every_story_and_stays_within_its_frame(found):
    for key, history in found.histories.items():
        lives = [life for life in found.lives if (life[0].key_type, life[0].key) == (key.type, key.name)]
        subject = Subject(history, lives, found.first, found.watched_from or found.last, found.last)
        whole = draw_whole(subject)
        assert sum(bar.negatives for bar in whole.bars) == len(history.negatives_ms)
        assert sum(bar.stories for bar in whole.bars) == len(history.stories_ms)
        for picture in (whole, *(draw_alert(subject, life) for life in lives)):
            assert len(picture.bars) <= MAX_BARS
            assert picture.bars[-1].left + picture.bars[-1].width == pytest.approx(1)
            places = [x for x, _ in (*picture.usual, *picture.test, *picture.ticks)]
            assert all(0 <= x <= 1 for x in places)
            assert [x for x, _ in picture.test] == sorted(x for x, _ in picture.test)
            assert max(height for _, height in picture.test) <= picture.figures.high
            assert max(bar.negatives for bar in picture.bars) <= picture.stories.high


def test_the_test_reaches_the_mark_where_an_alert_fires_and_not_before(found):
    for key, history in found.histories.items():
        lives = [life for life in found.lives if (life[0].key_type, life[0].key) == (key.type, key.name)]
        picture = draw_whole(Subject(history, lives, found.first, found.watched_from or found.last, found.last))
        for begin, end in picture.spans:
            assert max(height for x, height in picture.test if begin - 1e-9 <= x <= end) >= 1


def test_only_the_bundle_that_labelled_says_what_was_trained_on():
    texts = ["Not a text that anybody trained on, whatever it is", "nor is this"]
    settings = EngineSettings(bundle="finance")
    assert find_overlap(texts, texts, "finance", settings).trained_on == 0
    assert find_overlap(texts, texts, "another", settings).trained_on is None
    assert find_overlap(texts, texts, "deterministic", EngineSettings(kind="deterministic")).trained_on is None


def test_a_title_or_a_whole_text_may_have_been_trained_on():
    seen = np.unique(fingerprints(["Acme falls", "Beta rises a lot"]))
    titles = ["ACME falls!", "Beta rises", "Gamma"]
    assert count_known(titles, ["Acme falls after all", "Beta rises a lot", "Gamma stays"], seen) == 2


def test_known_texts_are_warned_of(found):
    assert not list(warn(found))
    (warning,) = warn(replace(found, overlap=Overlap("finance", 396, 40)))
    (told,) = warn(replace(found, left_out=("a.csv, line 3: bad", "a.csv, line 9: worse")))
    assert told == "2 rows were left out as no item; the first: a.csv, line 3: bad."
    assert warning.startswith("40 of 396 items (10.1%) have a text on which finance was trained. It knows their labels")


def test_alerts_are_written_as_events_one_a_line(found, tmp_path):
    write_out(found.alerts, tmp_path / "alerts.jsonl")
    lines = (tmp_path / "alerts.jsonl").read_bytes().splitlines()
    assert [AlertEvent.model_validate_json(line).alert_id for line in lines] == [a.alert_id for a in found.alerts]


NESTED = {"evidence", "provenance", "inhibited_by"}


def test_alerts_are_written_as_rows_with_the_same_fields(found, tmp_path):
    polars = pytest.importorskip("polars")
    write_out(found.alerts, tmp_path / "alerts.parquet")
    rows = polars.read_parquet(tmp_path / "alerts.parquet").to_dicts()
    for row, alert in zip(rows, found.alerts, strict=True):
        told = alert.model_dump()
        for name in ("starts_at", "ends_at", "emitted_at", "detected_at", "first_clock"):  # kept to the millisecond
            at = told.pop(name)
            assert row.pop(name) == (at and at.replace(microsecond=at.microsecond // 1000 * 1000))
        assert {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()
                if name not in NESTED} == {
            name: value for name, value in row.items() if name not in NESTED}  # fmt: skip
        assert [other["alert_id"] for other in row["inhibited_by"]] == [other.alert_id for other in alert.inhibited_by]
        assert [story["title"] for story in row["evidence"]] == [story.title for story in alert.evidence]
        assert row["provenance"]["inputs"][0]["offset"] == alert.provenance.inputs[0].offset
    write_out((), tmp_path / "none.parquet")
    assert (
        polars.read_parquet(tmp_path / "none.parquet").schema == polars.read_parquet(tmp_path / "alerts.parquet").schema
    )


def test_where_alerts_cannot_be_written_is_said_before_the_work(tmp_path):
    with pytest.raises(Misconfigured, match=r"\.jsonl or \.parquet, not to alerts\.csv"):
        check_out(Path("alerts.csv"))
    with pytest.raises(Misconfigured, match="no folder"):
        check_out(tmp_path / "nowhere" / "alerts.jsonl")
    check_out(tmp_path / "alerts.jsonl")


def test_the_terminal_has_a_row_for_each_alert(found):
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_table(found))
    rows = captured.get().splitlines()
    assert len(rows) == 1 + len(found.lives)
    assert any(row.split()[:2] == ["entity", "HRVL"] for row in rows)
