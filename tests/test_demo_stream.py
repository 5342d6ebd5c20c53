"""The demo's headlines: well formed, of an invented world, and calm but for the trouble."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from schemas.events import NewsItem

DEMO = files("worker") / "demo"
DATA = Path(__file__).parents[2] / "shared" / "data"
TROUBLED = "HRVL"


def read(name: str) -> list[NewsItem]:
    return [NewsItem.model_validate_json(line) for line in (DEMO / name).read_text("utf-8").splitlines()]


def published(item: NewsItem) -> datetime:
    assert item.published_at is not None
    return item.published_at


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def stories(items: list[NewsItem]) -> list[NewsItem]:
    """The first item of each headline, copies left out."""
    first: dict[tuple[str, ...], NewsItem] = {}
    for item in items:
        first.setdefault(words(item.title), item)
    return list(first.values())


def data_texts(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        rows: list[dict[str, object]] = list(csv.DictReader(text.splitlines(keepends=True)))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = json.loads(text)
    for row in rows:
        yield from (value for value in row.values() if isinstance(value, str))


QUIET = read("quiet.jsonl")
TROUBLE = read("trouble.jsonl")
MERGED = sorted(QUIET + TROUBLE, key=published)


def test_every_item_has_all_that_a_feed_would_send() -> None:
    for item in MERGED:
        assert item.id
        assert item.title
        assert item.source
        assert item.language == "en"
        assert item.url is not None
        assert item.url.startswith("https://example.com/")


def test_ids_and_urls_are_unique_over_both_files() -> None:
    assert len({item.id for item in MERGED}) == len(MERGED)
    assert len({item.url for item in MERGED}) == len(MERGED)


@pytest.mark.parametrize("items", [QUIET, TROUBLE], ids=["quiet", "trouble"])
def test_a_file_is_in_the_order_of_publication_without_ties(items: list[NewsItem]) -> None:
    assert all(published(earlier) < published(later) for earlier, later in pairwise(items))


def test_the_two_files_share_no_instant() -> None:
    assert len({published(item) for item in MERGED}) == len(MERGED)


def test_the_quiet_stream_spans_six_days_and_is_never_silent_for_five_hours() -> None:
    assert timedelta(days=5, hours=20) < published(QUIET[-1]) - published(QUIET[0]) < timedelta(days=6)
    assert max(published(later) - published(earlier) for earlier, later in pairwise(QUIET)) < timedelta(hours=5)


def test_the_trouble_comes_after_four_quiet_days_and_lasts_ten_hours_at_most() -> None:
    assert published(TROUBLE[0]) - published(QUIET[0]) > timedelta(days=4)
    assert timedelta(hours=8) < published(TROUBLE[-1]) - published(TROUBLE[0]) < timedelta(hours=10)
    assert published(QUIET[-1]) - published(TROUBLE[-1]) > timedelta(hours=24)


def test_a_fifth_of_the_quiet_items_are_copies_from_another_source() -> None:
    share = 1 - len(stories(QUIET)) / len(QUIET)
    assert 0.15 < share < 0.25


def test_a_copy_comes_later_from_another_source_with_the_same_symbols_and_body() -> None:
    first = {words(item.title): item for item in stories(MERGED)}
    sources: dict[tuple[str, ...], set[str | None]] = {}
    for item in MERGED:
        key = words(item.title)
        assert item.source not in sources.setdefault(key, set())
        sources[key].add(item.source)
        assert (item.symbols, item.body) == (first[key].symbols, first[key].body)
        assert published(item) - published(first[key]) < timedelta(hours=6)


def test_stories_that_are_no_copies_share_less_than_half_of_their_words() -> None:
    for one, other in combinations([set(words(item.title)) for item in stories(MERGED)], 2):
        assert len(one & other) < 0.5 * len(one | other), (one, other)


def test_no_company_is_in_more_than_two_quiet_stories_a_day() -> None:
    mentions: Counter[tuple[date, str]] = Counter(
        (published(item).date(), symbol) for item in stories(QUIET) for symbol in item.symbols
    )
    assert max(mentions.values()) <= 2


def test_the_bank_is_known_before_the_trouble_and_then_has_many_stories_from_many_sources() -> None:
    before = [item for item in QUIET if TROUBLED in item.symbols]
    during = [item for item in TROUBLE if TROUBLED in item.symbols]
    assert before
    assert 25 <= len(stories(during)) <= 35
    assert len({item.source for item in stories(during)}) >= 5


def test_the_trouble_spreads_to_other_banks_that_the_quiet_stream_knows() -> None:
    others = [item for item in stories(TROUBLE) if item.symbols and TROUBLED not in item.symbols]
    banks = {symbol for item in others for symbol in item.symbols}
    assert 15 <= len(others) <= 20
    assert 5 <= len(banks) <= 6
    assert banks <= {symbol for item in QUIET for symbol in item.symbols}


def test_a_symbol_is_four_letters_and_always_goes_with_the_same_name() -> None:
    titles: dict[str, list[set[str]]] = {}
    for item in stories(MERGED):
        for symbol in item.symbols:
            titles.setdefault(symbol, []).append(set(words(item.title)))
    assert len(titles) >= 60
    for symbol, mentions in titles.items():
        assert re.fullmatch(r"[A-Z]{4}", symbol)
        assert any(word[0] == symbol[0].lower() for word in set.intersection(*mentions)), symbol


@pytest.mark.skipif(not DATA.is_dir(), reason="the training data is not beside the project")
def test_no_headline_and_no_symbol_comes_from_the_data() -> None:
    texts = [text for path in sorted(DATA.glob("*.[cj]s*")) for text in data_texts(path)]
    corpus = "\n".join(" ".join(words(text)) for text in texts)
    cashtags = {tag for text in texts for tag in re.findall(r"\$([A-Z]{1,6})\b", text)}
    assert [item.title for item in stories(MERGED) if " ".join(words(item.title)) in corpus] == []
    assert cashtags.isdisjoint({symbol for item in MERGED for symbol in item.symbols})
