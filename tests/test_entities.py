"""The table of aliases, and finding entities in texts."""

import json
import re
import time
import timeit
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.dataset import read_entities
from stacknorm.entities import AliasTable, EntityFinder, EntityKey, Mention, load_aliases
from stacknorm.errors import DataError
from stacknorm.labels import SENTIMENT

SENTFIN = Path(__file__).parents[2] / "shared" / "data" / "sentfin.jsonl"
PACKAGED = load_aliases()
FINDER = EntityFinder(PACKAGED)


def found(text: str, at: date | None = None, finder: EntityFinder = FINDER) -> list[tuple[str, str]]:
    return [(text[mention.start : mention.end], mention.entity) for mention in finder.find(text, at)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apple's supplier Foxconn beats Tesla", [("Apple", "AAPL"), ("Foxconn", "FXCOF"), ("Tesla", "TSLA")]),
        ("$tsla and $AAPL, not $5 or US$ZZZ", [("$tsla", "TSLA"), ("$AAPL", "AAPL")]),
        ("$BRK.B. Berkshire Hathaway", [("$BRK.B", "BRK.B"), ("Berkshire Hathaway", "BRK.B")]),
        ("$ZZZZ is unknown", [("$ZZZZ", "ZZZZ")]),
        ("General Electric (NYSE: GE) gains", [("General Electric", "GE"), ("NYSE: GE", "GE")]),
        ("An apple a day; the ford is deep", []),
        ("Bank of America, Reserve Bank of India", [("Bank of America", "BAC"), ("Reserve Bank of India",) * 2]),
        ("BANK OF AMERICA Bank Of America", [("BANK OF AMERICA", "BAC"), ("Bank Of America", "BAC")]),
        ("bank of america", []),
        ("AMD falls, Amd and amd do not", [("AMD", "AMD")]),
        (
            "Crude Oil, crude oil and CRUDE OIL",
            [("Crude Oil", "crude oil"), ("crude oil",) * 2, ("CRUDE OIL", "crude oil")],
        ),
        (
            "S&P 500, AT&T, Moody\N{RIGHT SINGLE QUOTATION MARK}s",
            [("S&P 500", "SPX"), ("AT&T", "T"), ("Moody\u2019s", "MCO")],
        ),
        ("Tata Motors, Tata Steel", [("Tata Motors", "TATAMOTORS.NS"), ("Tata Steel", "TATASTEEL.NS")]),
        ("Pineapple Nvidias", []),
        ("A silver lining: silver falls", [("silver", "silver")]),
        ("", []),
    ],
)
def test_names_and_cashtags_are_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "is_company"),
    [
        ("Target shares fall", True),
        ("Target's profit halves", True),
        ("Walmart and Target cut prices", True),
        ("Analysts like Target.", True),
        ("$TGT: Target hires", True),
        ("Target Corp hires", True),
        ("Target raised to $50", False),
        ("Brokers raise Target Price", False),
        ("Fed Says Inflation Target Stays", False),
        ("Gap between rich and poor widens", False),
        ("its price target", False),
    ],
)
def test_a_common_word_is_a_company_only_where_something_speaks_for_it(text: str, is_company: bool) -> None:
    assert (
        bool({"TGT", "GAP"} & {mention.entity for mention in FINDER.find(text) if text[mention.start] != "$"})
        is is_company
    )


def test_names_and_symbols_mean_what_they_meant_on_the_day() -> None:
    text = "Facebook $FB $META Meta"
    assert [entity for _, entity in found(text, date(2019, 5, 1))] == ["META", "META", "META"]
    assert FINDER.resolve("FB", date(2019, 5, 1)) == ("symbol", "META")
    assert FINDER.resolve("FB", date(2026, 5, 1)) == ("symbol", "FB")
    assert FINDER.resolve("META", date(2026, 5, 1)) == ("symbol", "META")
    assert found("Square shares", date(2020, 1, 1)) == [("Square", "XYZ")]
    assert found("Square shares", date(2025, 1, 1)) == []


def test_one_company_has_one_key_by_name_by_cashtag_and_by_symbol() -> None:
    keys = {
        (mention.scheme, mention.entity) for mention in FINDER.find("Alphabet, Google, $GOOG, $googl (NASDAQ:GOOGL)")
    }
    assert keys == {FINDER.resolve("GOOG")} == {EntityKey("symbol", "GOOGL")}


def test_what_has_no_symbol_has_a_scheme_of_its_own() -> None:
    assert FINDER.find("Gold up, Fed quiet") == (
        Mention("commodity", "gold", 0, 4),
        Mention("authority", "Federal Reserve", 9, 12),
    )


def test_a_users_table_goes_first_and_replaces_entities_of_its_ids() -> None:
    user = AliasTable.model_validate(
        {
            "phrases": ["Intel report"],
            "entities": [
                {"id": "MINE", "names": ["Apple"], "symbols": ["AAPL"]},
                {"id": "TSLA", "names": ["Edison Motors"]},
            ],
        }
    )
    finder = EntityFinder(PACKAGED.overridden_by(user))
    assert found("Apple $AAPL Apple Inc", finder=finder) == [
        ("Apple", "MINE"),
        ("$AAPL", "MINE"),
        ("Apple Inc", "AAPL"),
    ]
    assert found("Tesla, Edison Motors, Intel report", finder=finder) == [("Edison Motors", "TSLA")]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"entities": [{"id": "A"}, {"id": "A"}]}, "more than once: A"),
        ({"entities": [{"id": "A", "names": [""]}]}, "entities.0.names.0"),
        ({"entities": [{"id": "A", "names": ["..."], "born": 1}]}, "entities.0.born"),
        (
            {"entities": [{"id": "A", "names": [{"text": "B", "valid_from": "2020-02-02", "valid_to": "2020-02-01"}]}]},
            "which is no time",
        ),
    ],
)
def test_a_faulty_table_is_refused_with_the_place(tmp_path: Path, table: object, problem: str) -> None:
    path = tmp_path / "aliases.json"
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match=problem):
        load_aliases(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        load_aliases(tmp_path / "none.json")


def test_every_name_of_the_packaged_table_finds_its_own_entity() -> None:
    for entity in PACKAGED.entities:
        for name in entity.names:
            text = f"{name.text} shares" if name.ambiguous else name.text
            day = name.valid_from or name.valid_to
            assert found(text, day)[:1] == [(name.text, entity.id)]
        for symbol in entity.symbols:
            assert FINDER.resolve(symbol.text, symbol.valid_from or symbol.valid_to) == (entity.scheme, entity.id)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("$AaeplTsSBofnkdi .&'-:"))))
def test_mentions_lie_in_the_text_and_never_overlap(text: str) -> None:
    mentions = FINDER.find(text)
    assert all(left.end <= right.start for left, right in pairwise(mentions))
    assert all(0 <= mention.start < mention.end <= len(text) for mention in mentions)


@pytest.mark.parametrize(
    "unit", ["Bank of ", "S&", "$", "$A", "NASDAQ:", "Bank of Bank of America ", "Target ", "'s", "é\u0301"]
)
def test_hostile_texts_take_time_in_proportion_to_their_length(unit: str) -> None:
    def seconds(length: int) -> float:
        """The fastest of five by the clock of this process, without the garbage collector."""
        text = unit * (length // len(unit))
        return min(timeit.repeat(lambda: FINDER.find(text), timer=time.process_time, number=1, repeat=5))

    short = seconds(20_000)
    assert seconds(100_000) < 25 * short + 0.1
    assert seconds(100_000) < 2


def test_finders_of_the_same_table_agree_whatever_is_between_names() -> None:
    assert found("Apple\n\tInc.,Boeing/Airbus;(Intel)") == [
        ("Apple\n\tInc", "AAPL"),
        ("Boeing", "BA"),
        ("Airbus", "EADSY"),
        ("Intel", "INTC"),
    ]


@pytest.mark.skipif(not SENTFIN.is_file(), reason="the data sets are not beside the project")
def test_the_packaged_table_knows_more_than_half_of_the_entities_of_sentfin() -> None:
    rows = read_entities(SENTFIN, SENTIMENT)
    mentions = [(row.text, mention) for row in rows for mention in row.mentions]
    places = {row.text: FINDER.find(row.text) for row in rows}
    known = [any(f.start < m.end and m.start < f.end for f in places[text]) for text, m in mentions]
    assert sum(known) / len(known) > 0.55


def test_the_table_in_the_documentation_finds_what_it_says() -> None:
    written = (Path(__file__).parents[1] / "docs" / "entities.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", written, re.DOTALL)
    assert len(blocks) == 1
    finder = EntityFinder(PACKAGED.overridden_by(AliasTable.model_validate_json(blocks[0])))
    text = "Acme shares fall with the Ruritanian crown. Acme of perfection: $ANVL"
    assert found(text, date(2019, 5, 1), finder) == [
        ("Acme", "ACME"),
        ("Ruritanian crown", "Ruritanian crown"),
        ("$ANVL", "ACME"),
    ]
    assert found("$ANVL", date(2020, 5, 1), finder) == [("$ANVL", "ANVL")]
