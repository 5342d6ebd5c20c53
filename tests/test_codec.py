"""What is read is what was meant, and hostile input is refused quickly, with its kind."""

import contextlib
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import DeadLetter, ItemStatus, NewsItem
from worker import codec
from worker.codec import InputRules
from worker.errors import Fatal, Rejected
from worker.records import PartitionClock, Record

TEXT = InputRules(input_format="text")
LONGEST_SECONDS = 0.05
COMBINING = "\u0301\u0316" * 20_000


def record(value: bytes | None, **fields) -> Record:
    return Record(
        **{"topic": "news.raw", "partition": 1, "offset": 7, "timestamp_ms": 5, "key": None, "value": value} | fields
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "empty"),
        (b" \n", "empty"),
        (b"{", "json"),
        (b"\xff\xfe{}", "json"),
        (b'{"title": "\\ud800"}', "json"),
        (b'{"title": NaN}', "schema"),
        (b"[" * 100_000, "json"),
        (b'{"title":' * 100_000, "json"),
        (b'{"title": "t", "revision": 1e999}', "schema"),
        (b'{"title": ""}', "schema"),
        (b"[]", "schema"),
        (b'{"title": "%s"}' % (b"x" * 200_000), "length"),
        (b'{"title": "%s"}' % (b"x" * (1 << 20)), "size"),
        (f'{{"title": "e{COMBINING}"}}'.encode(), "combining"),
    ],
)
def test_hostile_input_is_rejected_with_its_kind_and_soon(value, kind):
    started = time.perf_counter()
    with pytest.raises(Rejected) as caught:
        codec.decode_item(record(value), InputRules())
    assert caught.value.kind == kind
    assert time.perf_counter() - started < LONGEST_SECONDS


def test_text_that_grows_when_normalised_is_bounded():
    item = codec.decode_item(record(("\ufdfa" * 30_000).encode()), TEXT)
    started = time.perf_counter()
    assert codec.similarity_key(item).startswith("m1:")
    assert time.perf_counter() - started < LONGEST_SECONDS


def test_plain_text_is_an_item_whose_id_is_a_hash_of_the_text():
    item = codec.decode_item(record("Übernahme im Bankensektor".encode()), TEXT)
    assert item == NewsItem(title="Übernahme im Bankensektor")
    assert codec.identify(item, "news.raw") == codec.identify(item, "news.raw") != codec.identify(item, "elsewhere")


def test_text_that_is_not_utf8_names_the_byte():
    with pytest.raises(Rejected, match="invalid start byte at byte 3"):
        codec.decode_item(record(b"abc\xff"), TEXT)


def test_an_item_keeps_its_own_id():
    assert codec.identify(NewsItem(id="hv-1", title="t"), "s") == "hv-1"


def test_symbols_and_cashtags_are_entities_once_each():
    item = NewsItem(title="$AAPL slides, $brk.b up 3%, costs $5, US$ weak", symbols=("aapl", "HRVL"))
    assert [entity.id for entity in codec.find_entities(item)] == ["AAPL", "HRVL", "BRK.B"]


def test_only_the_first_cashtags_of_a_text_are_entities():
    item = NewsItem(title=" ".join(f"$a{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(100)), symbols=("HRVL",))
    found = [entity.id for entity in codec.find_entities(item)]
    assert (len(found), found[:2], found[-1]) == (65, ["HRVL", "AAA"], "ACL")


def test_equal_word_sets_have_equal_signatures_and_others_do_not():
    key = codec.similarity_key(NewsItem(title="Harrow & Vale shares fall"))
    assert key == codec.similarity_key(NewsItem(title="HARROW & VALE  Shares fall!"))
    assert key != codec.similarity_key(NewsItem(title="Harrow & Vale shares rise"))


def test_what_is_refused_is_shown_cut_with_its_size():
    with pytest.raises(Rejected) as caught:
        codec.decode_item(record(b'{"title": "t", "id": "%s"}' % (b"x" * 100_000)), InputRules())
    assert caught.value.reason.startswith("id: String should have at most 256 characters (given: 'xxx")
    assert caught.value.reason.endswith("xxx'... (100000 characters))")
    assert len(caught.value.reason) < 200


def test_a_dead_letter_keeps_the_record_whole():
    poison = record(b"\xff\x00{", key=b"\x01", headers=(("trace", b"\xfe"), ("none", None)), timestamp_ms=-1)
    letter = codec.make_dead_letter(poison, Rejected("json", "broken"), datetime(2026, 1, 1, tzinfo=UTC), attempts=3)
    read = DeadLetter.model_validate_json(letter.to_json())
    assert (read.value, read.key, read.headers) == (b"\xff\x00{", b"\x01", (("trace", b"\xfe"), ("none", None)))
    assert (read.timestamp_ms, read.input.offset, read.attempts, read.kind) == (-1, 7, 3, "json")


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_milliseconds_survive_the_way_to_an_instant_and_back(clock_ms):
    assert codec.to_ms(codec.to_instant(clock_ms)) == clock_ms


@given(st.builds(PartitionClock, st.none() | st.integers(0, 2**53), st.integers(0, 2**53)))
def test_a_clock_survives_the_metadata(clock):
    assert codec.decode_clock(codec.encode_clock(clock)) == clock


def test_no_metadata_is_an_unset_clock_and_foreign_metadata_stops():
    assert codec.decode_clock("") == PartitionClock()
    with pytest.raises(Fatal, match="foreign metadata 'spam'"):
        codec.decode_clock("spam")
    with pytest.raises(Fatal, match="version 2"):
        codec.decode_clock('{"v": 2}')


@given(st.binary(max_size=200), st.sampled_from([InputRules(), TEXT]))
def test_any_bytes_are_an_item_or_rejected(value, rules):
    with contextlib.suppress(Rejected):
        item = codec.decode_item(record(value), rules)
        assert item.title or item.body or item.status is ItemStatus.withdrawn
