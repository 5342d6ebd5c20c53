"""What is read is what was meant, and hostile input is refused quickly, with its kind."""

import base64
import contextlib
import struct
import time
import unicodedata
from datetime import UTC, datetime

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from rensa import RMinHash

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
    assert codec.similarity_keys([item])[0].startswith("m1:")
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
    titles = ("Harrow & Vale shares fall", "HARROW & VALE  Shares fall!", "Harrow & Vale shares rise")
    first, again, other = codec.similarity_keys([NewsItem(title=title) for title in titles])
    assert first == again != other
    assert codec.similarity_keys([]) == []


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=9))
def test_a_signature_is_the_low_halves_of_a_minhash_whatever_is_signed_beside_it(titles):
    for title, key in zip(titles, codec.similarity_keys([NewsItem(title=title) for title in titles]), strict=True):
        alone = RMinHash(64, 1)
        alone.update(regex.findall(r"\w+", unicodedata.normalize("NFC", title).casefold())[:64])
        signed = b"".join(struct.pack("<H", number & 0xFFFF) for number in alone.digest())
        assert key == "m1:" + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


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
