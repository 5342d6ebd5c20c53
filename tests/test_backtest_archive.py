"""An archive is read whole; what cannot be is named by file, row, column and value."""

import csv
import importlib.util
import io
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pytest

from backtests import write_lines
from schemas.events import NewsItem
from stacknorm.errors import DataError
from surge_streams import event
from worker.backtest.archive import Labelled, News, Selection, read_archive
from worker.codec import InputRules
from worker.errors import Misconfigured
from worker.feeds.jsonl import BadArchive, Line
from worker.feeds.jsonl import read_archive as read_feed

DAY_MS = 1_772_409_600_000  # 2026-03-02
WHOLE = Selection()


def read(*paths: Path, selection: Selection = WHOLE) -> tuple[Line, ...]:
    found = read_archive(paths, selection, InputRules())
    assert isinstance(found, News)
    return found.lines


def item(line: Line) -> NewsItem:
    return NewsItem.model_validate_json(line.value)


def write_csv(path: Path, *rows: dict[str, str]) -> Path:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys())
    table.writeheader()
    table.writerows(rows)
    path.write_text(text.getvalue())
    return path


def test_jsonl_gives_the_keys_and_times_that_a_feed_sends(tmp_path):
    lines = (
        '{"title": "one", "published_at": "2026-03-02T00:00:00Z", "symbols": ["A"], "extra": 1}',
        '{"id": "x", "title": "two", "source": "Wire", "published_at": "2026-03-02T01:00:00.125+01:00"}',
    )
    path = write_lines(tmp_path / "news.jsonl", lines)
    found, sent = read(path), read_feed(path, in_order=True)
    assert [(line.key, line.published_ms, item(line)) for line in found] == [
        (line.key, line.published_ms, item(line)) for line in sent
    ]


def test_csv_holds_symbols_in_a_cell_and_nothing_in_an_empty_one(tmp_path):
    cells = {
        "title": 'Says "no", twice',
        "published_at": "2026-03-02T00:00:00Z",
        "symbols": "AAPL, MSFT;T|GE",
        "url": "",
    }
    (line,) = read(write_csv(tmp_path / "news.csv", cells | {"revision": "2", "colour": "red"}))
    assert item(line) == NewsItem(
        title='Says "no", twice',
        published_at=datetime(2026, 3, 2, tzinfo=UTC),
        symbols=("AAPL", "MSFT", "T", "GE"),
        revision=2,
    )  # fmt: skip


def test_files_are_put_in_the_order_of_their_time_and_equal_times_stay_in_that_of_the_files(tmp_path):
    def line(title: str, day: int) -> str:
        return f'{{"title": "{title}", "published_at": "2026-03-0{day}T00:00:00Z"}}'

    late = write_lines(tmp_path / "late.jsonl", [line("c", 3), line("a", 2)])
    early = write_lines(tmp_path / "early.jsonl", [line("d", 3), line("b", 2)])
    assert [item(found).title for found in read(late, early)] == ["a", "b", "c", "d"]


def test_a_stretch_begins_at_its_start_and_ends_before_its_end(tmp_path):
    lines = [f'{{"title": "{day}", "published_at": "2026-03-0{day}T00:00:00Z"}}' for day in range(1, 8)]
    selection = Selection(datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 5, tzinfo=UTC))
    found = read(write_lines(tmp_path / "news.jsonl", lines), selection=selection)
    assert [item(line).title for line in found] == ["2", "3", "4"]
    with pytest.raises(BadArchive, match="no item between 2030"):
        read(tmp_path / "news.jsonl", selection=Selection(datetime(2030, 1, 1, tzinfo=UTC)))


def test_an_archive_of_which_no_row_is_an_item_says_what_is_wrong_with_the_first(tmp_path):
    path = write_lines(tmp_path / "news.jsonl", ['{"title": "t", "at": "2026-03-01T00:00:00Z"}'] * 3)
    with pytest.raises(BadArchive, match=r"3 left out, the first: .*needs the time at which it was known"):
        read(path, selection=Selection(skips_bad=True))


def test_another_column_may_say_when_an_item_was_known(tmp_path):
    line = '{"title": "t", "published_at": "2026-03-01T00:00:00Z", "received_at": "2026-03-02T00:00:00Z"}'
    (found,) = read(write_lines(tmp_path / "news.jsonl", [line]), selection=Selection(time_column="received_at"))
    assert found.published_ms == DAY_MS
    assert item(found).published_at == datetime(2026, 3, 1, tzinfo=UTC)


def test_times_without_a_zone_are_in_the_one_that_is_given(tmp_path):
    path = write_csv(tmp_path / "news.csv", {"title": "t", "published_at": "2026-03-01 19:00:00"})
    (found,) = read(path, selection=Selection(zone=ZoneInfo("America/New_York")))
    assert found.published_ms == DAY_MS
    assert item(found).published_at == datetime(2026, 3, 2, tzinfo=UTC)
    with pytest.raises(BadArchive, match=r"line 2, column published_at: .*--zone .*'2026-03-01 19:00:00'"):
        read(path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"title": "t"}, r"line 1, column published_at: .*the columns are title \(found None\)"),
        ({"title": "t", "published_at": "soon"}, r"line 1, column published_at: .*\(found 'soon'\)"),
        ({"title": "t", "published_at": 1772409600}, r"line 1, column published_at: .*\(found 1772409600\)"),
        ({"title": 5}, r"line 1, column title: .*valid string \(found 5\)"),
        ({"title": " "}, r"line 1, column title: .*both empty.*\(found ' '\)"),
        ({"title": "t", "symbols": "AAPL"}, r"line 1, column symbols: .*\(found 'AAPL'\)"),
        ({"title": "a" * 100_001}, r"line 1, column title: 100002 characters.*\(found 'aaa.*…\)"),
    ],
)
def test_a_row_that_is_no_item_is_named_with_its_value(tmp_path, row, problem):
    if set(row) != {"title"} or row["title"] != "t":
        row = {"published_at": "2026-03-02T00:00:00Z"} | row
    path = write_lines(tmp_path / "news.jsonl", [orjson.dumps(row)])
    with pytest.raises(BadArchive, match=rf"news\.jsonl, {problem}"):
        read(path)


def test_rows_that_are_no_items_may_be_left_out_and_are_told(tmp_path):
    lines = ['{"title": "t", "published_at": "2026-03-02T00:00:00Z"}', '{"title": ""}', '{"title": "no time"}']
    path = write_lines(tmp_path / "news.jsonl", lines)
    found = read_archive([path], Selection(skips_bad=True), InputRules())
    assert isinstance(found, News)
    assert [item(line).title for line in found.lines] == ["t"]
    assert [problem.split(":")[0].split(", ", 1)[1] for problem in found.left_out] == [
        "line 2, column published_at",
        "line 3, column published_at",
    ]


def test_a_number_in_csv_is_named_too(tmp_path):
    cells = {"title": "t", "published_at": "2026-03-02T00:00:00Z", "revision": "second"}
    with pytest.raises(BadArchive, match=r"line 2, column revision: a whole number is needed \(found 'second'\)"):
        read(write_csv(tmp_path / "news.csv", cells))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not \.txt"):
        read(write_lines(tmp_path / "news.txt", ["a"]))


def test_labelled_events_go_to_their_partitions_in_the_order_of_their_offsets(tmp_path):
    events = [event(number, number, partition=number % 2 * 2) for number in range(6)]
    path = write_lines(tmp_path / "labelled.jsonl", [one.to_json() for one in reversed(events)])
    found = read_archive([path], WHOLE, InputRules())
    assert isinstance(found, Labelled)
    assert [[one.input.offset for one in part] for part in found.partitions] == [[0, 2, 4], [], [1, 3, 5]]


def test_events_whose_clock_falls_are_not_those_of_one_topic(tmp_path):
    path = write_lines(tmp_path / "labelled.jsonl", [event(0, 5).to_json(), event(1, 4).to_json()])
    with pytest.raises(BadArchive, match=r"news\.raw-0-1 has the clock .* before that of news\.raw-0-0"):
        read_archive([path], WHOLE, InputRules())


def test_items_and_events_are_not_mixed(tmp_path):
    lines = [event(0, 5).to_json(), b'{"title": "t", "published_at": "2026-03-02T00:00:00Z"}']
    with pytest.raises(BadArchive, match="both news items and labelled events"):
        read_archive([write_lines(tmp_path / "mixed.jsonl", lines)], WHOLE, InputRules())


def test_parquet_gives_what_jsonl_gives(tmp_path):
    polars = pytest.importorskip("polars")
    rows = [{"title": "t", "published_at": datetime(2026, 3, 2, tzinfo=UTC), "symbols": ["A", "B"], "source": None}]
    polars.DataFrame(rows).write_parquet(tmp_path / "news.parquet")
    line = '{"title": "t", "published_at": "2026-03-02T00:00:00Z", "symbols": ["A", "B"], "source": "news"}'
    (found,), (other,) = read(tmp_path / "news.parquet"), read(write_lines(tmp_path / "n.jsonl", [line]))
    assert (found.published_ms, item(found).symbols) == (other.published_ms, item(other).symbols)


@pytest.mark.skipif(importlib.util.find_spec("polars") is not None, reason="polars is installed")
def test_parquet_says_what_it_needs(tmp_path):
    with pytest.raises(Misconfigured, match=r"news\.parquet is Parquet, which needs polars"):
        read(tmp_path / "news.parquet")
