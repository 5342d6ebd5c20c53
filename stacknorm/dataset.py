"""Rows of users' files: labelled ones for training and evaluation, bare texts for prediction.

Every complaint names the file, the line and the problem.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stacknorm.errors import DataError, LabelError
from stacknorm.labels import LabelSpace

_MAX_FIELD_CHARS = 10_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """A text and the position of its label in the label space."""

    text: str
    label: int


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
    records = _read_records(path.suffix, _decode(_read_bytes(path), str(path)), str(path))
    rows = [_labelled(record, space, order, f"{path}, line {line}") for line, record in records]
    kept = [row for row in rows if row is not None]
    if not kept:
        raise DataError(f"{path} has no usable rows")
    return kept


def read_texts(path: Path) -> list[str]:
    """Read texts: the `text` field of CSV or JSONL, else one text a line.

    Raises:
        DataError: unreadable, or a row has no text.
    """
    if path.suffix not in {".csv", ".jsonl"}:
        return read_lines(_read_bytes(path), str(path))
    records = _read_records(path.suffix, _decode(_read_bytes(path), str(path)), str(path))
    return [_text(record, f"{path}, line {line}") for line, record in records]


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


def _read_records(suffix: str, stream: TextIO, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if suffix == ".csv":
        return _read_csv(stream, name)
    if suffix == ".jsonl":
        return _read_jsonl(stream, name)
    raise DataError(f"{name}: labelled rows come as .csv or .jsonl, not {suffix or 'without a suffix'}")


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
