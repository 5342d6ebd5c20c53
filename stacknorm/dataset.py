"""Rows of users' files: labelled ones for training and evaluation, bare texts for prediction.

Every complaint names the file, the line and the problem.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO, TypeVar

from stacknorm.errors import DataError, LabelError
from stacknorm.labels import LabelSpace

R = TypeVar("R")

_MAX_FIELD_CHARS = 10_000_000
_MAX_SHIFT_CHARS = 16
"""How far a span's value may stand from its offsets: published sets were re-encoded after they were annotated."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text and the position of its label in the label space."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class MultiRow:
    """A text and the positions of all labels that apply to it, rising; there may be none."""

    text: str
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, order=True)
class LabelledSpan:
    """`text[start:end]` and the position of its type in the label space."""

    start: int
    end: int
    label_index: int


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A text and its labelled spans, from left to right, none overlapping another."""

    text: str
    spans: tuple[LabelledSpan, ...]
    mended: tuple[str, ...] = ()
    """What was wrong with the row's annotations and how it was read all the same, a sentence each."""


@dataclass(frozen=True, slots=True)
class LabelledMention:
    """An entity, where the text names it (`text[start:end]`), and the position of its label in the label space."""

    entity: str
    start: int
    end: int
    label_index: int


@dataclass(frozen=True, slots=True)
class EntityRow:
    """A text and its labelled entities, in the order of the file."""

    text: str
    mentions: tuple[LabelledMention, ...]
    unlocated: tuple[str, ...] = ()
    """Entities of the file that the text does not name: they have no place, so no mention."""


def read_labelled(path: Path, space: LabelSpace, order: Sequence[str] = ()) -> list[Row]:
    """Read labelled rows from CSV (`text`, `label`) or JSONL (`text` with `label`, or with `entities`).

    `entities` maps each entity of a headline to its label; a headline whose entities disagree has no label of its
    own and is left out.

    Args:
        path: a `.csv` or `.jsonl` file in UTF-8.
        space: the label space.
        order: what the integers 0, 1, ... in the file mean; without it only labels by name are understood.

    Raises:
        DataError: unreadable, a field is missing or a label unknown.
    """
    rows = [_labelled(record, space, order, f"{path}, line {line}") for line, record in read_records(path)]
    return _some([row for row in rows if row is not None], path)


def read_multi(path: Path, space: LabelSpace) -> list[MultiRow]:
    """Read rows with any number of labels: a list `labels` in JSONL, or `label` joined by `|` in CSV.

    Raises:
        DataError: unreadable, a field is missing or a label unknown.
    """
    rows = []
    for line, record in read_records(path):
        where = f"{path}, line {line}"
        labels = {_index(label, space, (), where) for label in _label_list(record, where)}
        rows.append(MultiRow(_text(record, where), tuple(sorted(labels))))
    return _some(rows, path)


def read_spans(path: Path, space: LabelSpace) -> list[SpanRow]:
    """Read texts with labelled spans.

    Two forms: JSONL of `{"text", "spans": [{"start", "end", "label"}]}`, or a `.json` list of `{"content",
    "annotations": [{"start", "end", "value", "label"}]}`, as FinEntity is published. Offsets count characters.

    Published annotations have three faults that are mended, each told in the row's `mended`: a `value` that stands
    a few characters beside its offsets is taken from where it stands, a span given twice is taken once, and of two
    labels for one span the first counts.

    Raises:
        DataError: unreadable, a field is missing, a label unknown, a span out of range, overlapping another or not
            its `value`; names row and value.
    """
    return _some([_span_row(record, space, f"{path}, {place}") for place, record in _span_records(path)], path)


def read_entities(path: Path, space: LabelSpace) -> list[EntityRow]:
    """Read JSONL of `{"text", "entities": {name: label}}`, and find where each text names its entities.

    A name is looked for as it is written, then in any case, then by its words alone; first as whole words. Longer
    names choose first; a name stands inside a longer one only where it has no place of its own.

    Raises:
        DataError: unreadable, a field is missing or a label unknown.
    """
    return _some([_entity_row(record, space, f"{path}, line {line}") for line, record in read_records(path)], path)


def read_texts(path: Path) -> list[str]:
    """Read texts: the `text` field of CSV or JSONL, else one text a line.

    Raises:
        DataError: unreadable, or a row has no text.
    """
    if path.suffix not in {".csv", ".jsonl"}:
        return read_lines(_read_bytes(path), str(path))
    return [_text(record, f"{path}, line {line}") for line, record in read_records(path)]


def read_lines(content: bytes, name: str) -> list[str]:
    """One text a line, empty lines too.

    Raises:
        DataError: not UTF-8; names the line of `name`.
    """
    return [line.rstrip("\r\n") for line in _decode(content, name)]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror}") from exc


def _decode(content: bytes, name: str) -> TextIO:
    try:
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise DataError(f"{name}, line {line}: not UTF-8 ({exc.reason})") from exc


def _some(rows: list[R], path: Path) -> list[R]:
    if not rows:
        raise DataError(f"{path} has no usable rows")
    return rows


def read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each record of CSV or JSONL with the line it ends on; the values of CSV are text.

    Raises:
        DataError: unreadable, or no such record; names file and line.
    """
    stream = _decode(_read_bytes(path), str(path))
    if path.suffix == ".csv":
        return _read_csv(stream, str(path))
    if path.suffix == ".jsonl":
        return _read_jsonl(stream, str(path))
    raise DataError(f"{path}: rows come as .csv or .jsonl, not {path.suffix or 'without a suffix'}")


def _read_csv(stream: TextIO, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    reader = csv.DictReader(stream, strict=True)
    try:
        for record in reader:
            if None in record:
                raise DataError(f"{name}, line {reader.line_num}: more fields than the header names; quote commas")
            yield reader.line_num, record
    except csv.Error as exc:
        raise DataError(f"{name}, line {reader.reader.line_num}: {exc}") from exc


def _read_jsonl(stream: TextIO, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as exc:
            raise DataError(f"{name}, line {number}: not JSON ({exc})") from exc
        if not isinstance(record, dict):
            raise DataError(f"{name}, line {number}: a JSON object is needed, not {type(record).__name__}")
        yield number, record


def _text(record: Mapping[str, Any], where: str) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"{where}: no text field (found {', '.join(record) or 'nothing'})")
    return text


def _labelled(record: Mapping[str, Any], space: LabelSpace, order: Sequence[str], where: str) -> Row | None:
    text = _text(record, where)
    entities = record.get("entities")
    if isinstance(entities, dict):
        labels = {_index(label, space, order, where) for label in entities.values()}
        return Row(text, labels.pop()) if len(labels) == 1 else None
    if (label := record.get("label")) is None:
        raise DataError(f"{where}: no label field (found {', '.join(record)})")
    return Row(text, _index(label, space, order, where))


def _index(label: object, space: LabelSpace, order: Sequence[str], where: str) -> int:
    name = str(label).strip()
    if order and name.isascii() and name.isdigit():
        if int(name) >= len(order):
            raise DataError(f"{where}: label {name}, but only {len(order)} labels were named")
        name = order[int(name)]
    try:
        return space.index(name)
    except LabelError as exc:
        raise DataError(f"{where}: {exc}") from exc


def _label_list(record: Mapping[str, Any], where: str) -> Sequence[object]:
    if isinstance(labels := record.get("labels"), list):
        return labels
    if isinstance(joined := record.get("label"), str):
        return [label for label in joined.split("|") if label.strip()]
    raise DataError(f"{where}: no list labels and no text label joined by | (found {', '.join(record)})")


def _span_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each record in the JSONL form, and its place in the file."""
    if path.suffix != ".json":
        yield from ((f"line {line}", record) for line, record in read_records(path))
        return
    try:
        listed = json.load(_decode(_read_bytes(path), str(path)))
    except ValueError as exc:
        raise DataError(f"{path} is not JSON ({exc})") from exc
    if not isinstance(listed, list):
        raise DataError(f"{path}: a JSON list is needed, not {type(listed).__name__}")
    for number, record in enumerate(listed, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path}, row {number}: a JSON object is needed, not {type(record).__name__}")
        yield f"row {number}", {"text": record.get("content"), "spans": record.get("annotations")}


def _span_row(record: Mapping[str, Any], space: LabelSpace, where: str) -> SpanRow:
    text = _text(record, where)
    given = record.get("spans")
    if not isinstance(given, list):
        raise DataError(f"{where}: no list of spans (found {', '.join(record)})")
    mended: list[str] = []
    spans: dict[tuple[int, int], LabelledSpan] = {}
    for annotation in given:
        span = _span(annotation, text, space, where, mended)
        kept = spans.setdefault((span.start, span.end), span)
        if kept is not span:
            fault = "twice" if kept == span else f"as {space.labels[kept.label_index]} and otherwise, the first counts"
            mended.append(f"{text[span.start : span.end]!r} at {span.start} is given {fault}")
    ordered = sorted(spans.values())
    for left, right in pairwise(ordered):
        if right.start < left.end:
            raise DataError(
                f"{where}: {text[left.start : left.end]!r} at {left.start} and {text[right.start : right.end]!r} "
                f"at {right.start} overlap"
            )
    return SpanRow(text, tuple(ordered), tuple(mended))


def _span(annotation: object, text: str, space: LabelSpace, where: str, mended: list[str]) -> LabelledSpan:
    """One annotation, checked against the text; what had to be mended is added to `mended`."""
    if not isinstance(annotation, dict):
        raise DataError(f"{where}: a span is an object, not {annotation!r}")
    start, end, label = (annotation.get(name) for name in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int or label is None:
        raise DataError(f"{where}: a span needs start and end as whole numbers, and a label: {annotation!r}")
    index = _index(label, space, (), where)
    if not 0 <= start < end <= len(text):
        raise DataError(f"{where}: span {annotation!r} lies outside the text of {len(text)} characters or is empty")
    value = annotation.get("value")
    if value is None or text[start:end] == value:
        return LabelledSpan(start, end, index)
    found = _nearest(str(value), text, start)
    if found is None:
        raise DataError(f"{where}: {text[start:end]!r} stands at {start} to {end}, not {value!r}")
    mended.append(f"{value!r} stands at {found}, not at {start}")
    return LabelledSpan(found, found + len(str(value)), index)


def _nearest(value: str, text: str, start: int) -> int | None:
    """Where `value` stands closest to `start`, if not too far."""
    low = max(start - _MAX_SHIFT_CHARS, 0)
    window = text[low : start + _MAX_SHIFT_CHARS + len(value)]
    places = [low + match.start() for match in re.finditer(re.escape(value), window)] if value else []
    return min(places, key=lambda place: abs(place - start), default=None)


def _entity_row(record: Mapping[str, Any], space: LabelSpace, where: str) -> EntityRow:
    text = _text(record, where)
    entities = record.get("entities")
    if not isinstance(entities, dict):
        raise DataError(f"{where}: entities must be an object of names and labels (found {', '.join(record)})")
    places: dict[str, tuple[int, int]] = {}
    for name in sorted(entities, key=len, reverse=True):
        if place := locate_name(name, text, tuple(places.values())):
            places[name] = place
    labels = {name: _index(label, space, (), where) for name, label in entities.items()}
    mentions = tuple(LabelledMention(name, *places[name], labels[name]) for name in entities if name in places)
    return EntityRow(text, mentions, tuple(name for name in entities if name not in places))


def locate_name(name: str, text: str, taken: Sequence[tuple[int, int]] = ()) -> tuple[int, int] | None:
    """Where `text` names `name` first: outside of `taken` if it can be, whole words before parts of words.

    Returns:
        First character and one past the last, or None where the text has not all its words in a row.
    """
    words = re.findall(r"\w+", name)
    if not words:
        return None
    exact, loose = re.escape(name), r"\W+".join(words)
    places = [
        match.span()
        for pattern in (
            rf"(?<!\w){exact}(?!\w)",
            rf"(?i)(?<!\w){exact}(?!\w)",
            rf"(?i)(?<!\w){loose}(?!\w)",
            f"(?i){loose}",
        )
        for match in re.finditer(pattern, text)
    ]
    free = (place for place in places if all(place[1] <= start or end <= place[0] for start, end in taken))
    return next(free, places[0] if places else None)
