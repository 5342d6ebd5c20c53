"""Bytes <-> values, with guards against hostile input. Pure; the limits are checked before anything costly runs."""

import hashlib
import itertools
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeVar, get_args

import numpy as np
import orjson
import regex
from msgspec import MsgspecError
from pydantic import ValidationError
from rensa import RMinHash

from schemas.events import DeadLetter, Entity, Event, InputRef, LabelledEvent, NewsItem
from worker.errors import Fatal, Misconfigured, Rejected
from worker.labelled import News, read_labelled
from worker.records import PartitionClock, Record

HEARTBEAT_HEADER = "stacknorm-heartbeat"
MAX_COMBINING_MARKS = 30  # in a row: normalising is quadratic in such a run
MAX_CONTAINERS = 120_000  # lists and objects of a value, counted by their brackets: each takes the parser 0.2 us
MAX_HEADERS = 1000
MAX_CASHTAGS = 64  # found in a text: each is a key of the detector
SIGNATURE_PERMUTATIONS = 64
SIGNATURE_WORDS = 64  # the title and the first words of the body; copies differ further down
SIGNATURE_CHARS = 4096  # in which these words must stand: some letters grow threefold when normalised
SHOWN_CHARS = 60  # of a value that is refused

Written = TypeVar("Written", bound=Event)

_EPOCH = datetime.fromtimestamp(0, UTC)
_COMBINING_RUN = regex.compile(rf"\p{{M}}{{{MAX_COMBINING_MARKS + 1},}}")
_CASHTAG = regex.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:\.[A-Za-z]{1,2})?)(?![\w$])")
_WORD = regex.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class InputRules:
    """How raw records are read. Lengths are in bytes and in characters."""

    input_format: Literal["json", "text"] = "json"
    max_value_bytes: int = 1 << 20
    max_text_chars: int = 100_000


def decode_event(contract: type[Written], record: Record) -> Written:
    """An event in a record that a worker wrote.

    Raises:
        Misconfigured: it is of a version that this program does not read, or no such event at all.
    """
    try:
        return contract.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise _foreign(contract, record, error) from error


def decode_labelled(record: Record) -> News:
    """A labelled event in a record that a labeller wrote, as far as the detector reads it.

    Raises:
        Misconfigured: as for ``decode_event``.
    """
    try:
        return read_labelled(record.value or b"")
    except MsgspecError:  # the whole event knows best what is wrong, if anything is
        return decode_event(LabelledEvent, record)


def _foreign(contract: type[Event], record: Record, error: ValidationError) -> Misconfigured:
    first = error.errors(include_url=False, include_context=False)[0]
    where = f"{record.topic}-{record.partition} at offset {record.offset}, key {(record.key or b'').decode()!r}"
    if first["loc"] == ("schema_version",):
        read = ", ".join(str(each) for each in get_args(contract.model_fields["schema_version"].annotation))
        return Misconfigured(
            f"{where} is of version {first['input']}, this worker reads {read}: a newer worker wrote it, so "
            "start one of its version"
        )
    return Misconfigured(f"{where} is no {contract.__name__}: {first['msg']}; did another program write it?")


def is_heartbeat(record: Record) -> bool:
    """Whether the record only moves the clock."""
    return any(name == HEARTBEAT_HEADER for name, _ in record.headers)


def decode_item(record: Record, rules: InputRules) -> NewsItem:
    """The item in a raw record. Of a key that a JSON object holds more than once, the last counts.

    Raises:
        Rejected: with the kind ``size``, ``empty``, ``encoding``, ``json``, ``schema``, ``length`` or ``combining``.
    """
    value = record.value
    if not value or value.isspace():
        raise Rejected("empty", "the record has no value")
    if len(value) > rules.max_value_bytes:
        raise Rejected("size", f"{len(value)} bytes, above max_value_bytes = {rules.max_value_bytes}")
    if len(record.headers) > MAX_HEADERS:
        raise Rejected("size", f"{len(record.headers)} headers, above {MAX_HEADERS}; the letter is without them")
    if len(value) > MAX_CONTAINERS and rules.input_format == "json":
        _check_containers(value)
    try:
        item = NewsItem(title=value.decode()) if rules.input_format == "text" else NewsItem.model_validate_json(value)
    except UnicodeDecodeError as error:
        raise Rejected("encoding", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except ValidationError as error:
        raise _rejection(error) from error
    _check_text(f"{item.title} {item.body or ''}", rules.max_text_chars)
    return item


def _check_containers(value: bytes) -> None:
    count = value.count(b"[") + value.count(b"{")
    if count > MAX_CONTAINERS:
        raise Rejected("size", f"{count} lists and objects, above {MAX_CONTAINERS}")


def _rejection(error: ValidationError) -> Rejected:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Rejected("json", first["msg"])
    place = ".".join(str(part) for part in first["loc"])
    return Rejected("schema", f"{place}: {first['msg']} (given: {_show(first['input'])})" if place else first["msg"])


def _show(given: object) -> str:
    """A value of JSON, cut, and then with its size."""
    if isinstance(given, list | dict):
        return f"{'a list' if isinstance(given, list) else 'an object'} of {len(given)}"
    if isinstance(given, str) and len(given) > SHOWN_CHARS:
        return f"{given[:SHOWN_CHARS]!r}... ({len(given)} characters)"
    shown = repr(given)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}... ({len(shown)} digits)"


def _check_text(text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise Rejected("length", f"{len(text)} characters of text, above max_text_chars = {max_chars}")
    if not text.isascii() and (run := _COMBINING_RUN.search(text)):
        length = run.end() - run.start()
        raise Rejected("combining", f"{length} combining marks in a row, above {MAX_COMBINING_MARKS}")


def identify(item: NewsItem, source: str) -> str:
    """The item's id: its own, else a hash of source, title and url; of a text without them, of the text."""
    if item.id is not None:
        return item.id
    parts = (source, item.title or item.body or "", item.url or "")
    return "h-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def event_id(record: Record | InputRef) -> str:
    """The id of the event made from this record, its coordinates; the same whenever and by whomever it is made."""
    return f"{record.topic}-{record.partition}-{record.offset}"


def listed_symbols(item: NewsItem) -> list[str]:
    """The item's own symbols, each once, upper case."""
    return list(dict.fromkeys(symbol for given in item.symbols if (symbol := given.strip().upper())))


def find_entities(item: NewsItem) -> tuple[Entity, ...]:
    """The item's symbols, then the first 64 cashtags in its text, each once, upper case."""
    text = f"{item.title} {item.body or ''}"
    found = dict.fromkeys(map(str.upper, _CASHTAG.findall(text))) if "$" in text else ()
    symbols = dict.fromkeys([*listed_symbols(item), *itertools.islice(found, MAX_CASHTAGS)])
    return tuple(Entity(id=symbol, scheme="symbol") for symbol in symbols)


def similarity_keys(items: Sequence[NewsItem]) -> list[str]:
    """For each item a MinHash signature of the set of words of its title and the first words of its body.

    64 permutations, the low 16 bits of each (b-bit MinHash, Li and König 2010), base64url behind its version. The share
    of equal positions estimates the Jaccard similarity of two items.
    """
    if not items:
        return []
    words = [_signed_words(item) for item in items]
    signatures = RMinHash.digest_matrix_from_token_sets(words, SIGNATURE_PERMUTATIONS, 1)
    low_halves = np.array(signatures.to_rows(), dtype="<u4").astype("<u2")
    return ["m1:" + urlsafe_b64encode(row.tobytes()).rstrip(b"=").decode() for row in low_halves]


def _signed_words(item: NewsItem) -> list[str]:
    text = unicodedata.normalize("NFC", f"{item.title} {item.body or ''}"[:SIGNATURE_CHARS]).casefold()
    words: list[str] = _WORD.findall(text)
    return words[:SIGNATURE_WORDS]


def make_dead_letter(record: Record, rejected: Rejected, failed_at: datetime, attempts: int = 1) -> DeadLetter:
    """The record whole, with the reason; without its headers where it has too many."""
    return DeadLetter(
        input=InputRef(topic=record.topic, partition=record.partition, offset=record.offset),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers) if len(record.headers) <= MAX_HEADERS else (),
        timestamp_ms=record.timestamp_ms,
        kind=rejected.kind,
        reason=rejected.reason,
        attempts=attempts,
        failed_at=failed_at,
    )


@lru_cache(maxsize=1024)
def to_instant(clock_ms: int) -> datetime:
    """Epoch milliseconds as a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=clock_ms)


def to_ms(instant: datetime) -> int:
    """A datetime as epoch milliseconds, cut."""
    return int(instant.replace(microsecond=0).timestamp()) * 1000 + instant.microsecond // 1000


def encode_clock(clock: PartitionClock) -> str:
    """The metadata of a committed offset."""
    return orjson.dumps(
        {"v": 1, "clock_ms": clock.clock_ms, "labelled_next_offset": clock.labelled_next_offset}
    ).decode()


def decode_clock(metadata: str) -> PartitionClock:
    """The clock in the metadata of a committed offset; unset where another tool committed without.

    Raises:
        Fatal: the metadata is not of this version.
    """
    if not metadata:
        return PartitionClock()
    try:
        stored = orjson.loads(metadata)
        if stored["v"] != 1:
            raise Fatal(f"committed offset carries metadata of version {stored['v']!r}, this worker reads version 1")
        return PartitionClock(stored["clock_ms"], stored["labelled_next_offset"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Fatal(
            f"committed offset carries foreign metadata {metadata[:80]!r}: is the group id used by another?"
        ) from error
