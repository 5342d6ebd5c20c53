"""Readers of rows with several labels, labelled spans, or labelled entities."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.dataset import (
    LabelledMention,
    LabelledSpan,
    MultiRow,
    SpanRow,
    locate_name,
    read_entities,
    read_multi,
    read_spans,
)
from stacknorm.errors import DataError
from stacknorm.labels import SENTIMENT

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not beside the project")


def write_jsonl(folder: Path, *records: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def write_finentity(folder: Path, content: str, *annotations: dict[str, object]) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps([{"content": content, "annotations": annotations}]))
    return path


def test_spans_of_jsonl_come_sorted_with_the_index_of_their_label(tmp_path: Path) -> None:
    record = {
        "text": "Dell up, HP down",
        "spans": [{"start": 9, "end": 11, "label": "negative"}, {"start": 0, "end": 4, "label": "bullish"}],
    }
    rows = read_spans(write_jsonl(tmp_path, record), SENTIMENT)
    assert rows == [SpanRow("Dell up, HP down", (LabelledSpan(0, 4, 2), LabelledSpan(9, 11, 0)))]


def test_a_span_whose_value_stands_beside_its_offsets_is_moved_and_told(tmp_path: Path) -> None:
    path = write_finentity(
        tmp_path, "It said Dell and Dell fell", {"start": 15, "end": 19, "value": "Dell", "label": "Negative"}
    )
    (row,) = read_spans(path, SENTIMENT)
    assert row.spans == (LabelledSpan(17, 21, 0),)
    assert row.mended == ("'Dell' stands at 17, not at 15",)


def test_a_span_given_twice_is_taken_once_and_of_two_labels_the_first_counts(tmp_path: Path) -> None:
    one = {"start": 0, "end": 4, "value": "Dell"}
    path = write_finentity(
        tmp_path, "Dell", one | {"label": "Neutral"}, one | {"label": "Positive"}, one | {"label": "Neutral"}
    )
    (row,) = read_spans(path, SENTIMENT)
    assert row.spans == (LabelledSpan(0, 4, 1),)
    assert row.mended == (
        "'Dell' at 0 is given as neutral and otherwise, the first counts",
        "'Dell' at 0 is given twice",
    )


@pytest.mark.parametrize(
    ("spans", "problem"),
    [
        ([{"start": 0, "end": 4, "label": "positive"}, {"start": 3, "end": 6, "label": "positive"}], "overlap"),
        ([{"start": 5, "end": 40, "label": "positive"}], "outside the text"),
        ([{"start": 3, "end": 3, "label": "positive"}], "is empty"),
        ([{"start": 0, "end": 4, "label": "great"}], "'great'"),
        ([{"start": 0, "end": 4, "label": "positive", "value": "Fell"}], "'Dell' stands at 0 to 4, not 'Fell'"),
        ([{"start": 0, "end": True, "label": "positive"}], "whole numbers"),
        (["Dell"], "is an object"),
        (None, "no list of spans"),
    ],
)
def test_a_span_that_cannot_be_is_an_error_that_names_its_line(
    tmp_path: Path, spans: list[object] | None, problem: str
) -> None:
    path = write_jsonl(tmp_path, {"text": "Dell up", "spans": spans})
    with pytest.raises(DataError, match=f"line 1: .*{problem}"):
        read_spans(path, SENTIMENT)


@pytest.mark.parametrize("content", ["{", '{"content": ""}', "[3]", "[]"])
def test_a_json_file_that_is_no_list_of_rows_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"rows\.json"):
        read_spans(path, SENTIMENT)


def test_entities_get_the_place_where_the_text_names_them_and_the_rest_is_told(tmp_path: Path) -> None:
    record = {
        "text": "TCS, Tata Steel and infosys fall",
        "entities": {"Infosys": "negative", "Tata Steel": "negative", "TCS": "neutral", "Wipro": "neutral"},
    }
    (row,) = read_entities(write_jsonl(tmp_path, record), SENTIMENT)
    assert row.mentions == (
        LabelledMention("Infosys", 20, 27, 0),
        LabelledMention("Tata Steel", 5, 15, 0),
        LabelledMention("TCS", 0, 3, 1),
    )
    assert row.unlocated == ("Wipro",)


def test_a_short_name_avoids_the_longer_one_that_holds_it(tmp_path: Path) -> None:
    record = {"text": "Tata Steel up, Tata down", "entities": {"Tata": "negative", "Tata Steel": "positive"}}
    (row,) = read_entities(write_jsonl(tmp_path, record), SENTIMENT)
    assert [(m.start, m.end) for m in row.mentions] == [(15, 19), (0, 10)]


def test_a_name_is_found_by_its_words_where_its_marks_differ() -> None:
    text = "Shares of S. & P.  Global rose"
    place = locate_name("S&P Global", text)
    assert place is not None
    assert text[slice(*place)] == "S. & P.  Global"


def test_a_whole_word_is_preferred_to_a_part_of_one() -> None:
    assert locate_name("Nifty", "Nifty50 and Nifty") == (12, 17)
    assert locate_name("Nifty", "Nifty50 gains") == (0, 5)
    assert locate_name("&", "S&P") is None


@given(st.text(), st.text())
def test_a_located_name_lies_within_the_text(name: str, text: str) -> None:
    place = locate_name(name, text)
    assert place is None or 0 <= place[0] < place[1] <= len(text)


def test_many_labels_come_as_a_list_or_joined_in_one_field(tmp_path: Path) -> None:
    listed = write_jsonl(
        tmp_path, {"text": "a", "labels": ["positive", "negative", "positive"]}, {"text": "b", "labels": []}
    )
    joined = tmp_path / "rows.csv"
    joined.write_text("text,label\na,positive|negative\nb,\n")
    assert read_multi(listed, SENTIMENT) == read_multi(joined, SENTIMENT) == [MultiRow("a", (0, 2)), MultiRow("b", ())]


def test_a_row_without_labels_names_its_fields(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: no list labels .*found text, labels"):
        read_multi(write_jsonl(tmp_path, {"text": "a", "labels": "positive"}), SENTIMENT)


@needs_data
def test_every_paragraph_of_finentity_is_read_and_its_faults_are_mended() -> None:
    rows = read_spans(DATA / "finentity.json", SENTIMENT)
    mended = [fault for row in rows for fault in row.mended]
    assert (len(rows), sum(len(row.spans) for row in rows)) == (684, 1_492)
    assert (len(mended), sum("not at" in fault for fault in mended)) == (58, 55)


@needs_data
def test_all_but_the_damaged_names_of_sentfin_are_located() -> None:
    rows = read_entities(DATA / "sentfin.jsonl", SENTIMENT)
    unlocated = [name for row in rows for name in row.unlocated]
    assert sum(len(row.mentions) for row in rows) == 10_143
    # Somebody replaced "hold" by "neutral" and "sell" by "negative" in the published file: Rane neutralings.
    assert len(unlocated) == 14
    assert all("neutral" in name or "negative" in name for name in unlocated)
