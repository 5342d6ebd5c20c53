"""Files of old news, read whole and put in the order of their time: items to label, or events that are labelled.

A complaint names file, row, column and value.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.events import Instant, LabelledEvent, NewsItem
from stacknorm.dataset import read_records
from worker import codec
from worker.backtest.parquet import read_rows
from worker.codec import InputRules
from worker.errors import Rejected
from worker.feeds.jsonl import BadArchive, Line
from worker.records import Record

PUBLISHED = "published_at"
MAX_VALUE_SHOWN = 80
_INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)
_LABELLED_FIELDS = {"event_id", "clock", "stack", "input"}
"""Those a news item has not."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items count, and how their time is read.

    Attributes:
        start: items before it are left out.
        end: items from it on are left out.
        time_column: when an item was known; nothing may have reacted to it before.
        zone: of times that name none; without it such a time is a mistake.
        skips_bad: whether a row that is no item is left out instead of being a mistake.
    """

    start: datetime | None = None
    end: datetime | None = None
    time_column: str = PUBLISHED
    zone: tzinfo | None = None
    skips_bad: bool = False

    def holds(self, instant: datetime) -> bool:
        """Whether an item of this instant counts."""
        return (self.start is None or instant >= self.start) and (self.end is None or instant < self.end)


@dataclass(frozen=True, slots=True)
class News:
    """Items in the order of their time, as a feed would send them."""

    lines: tuple[Line, ...]
    left_out: tuple[str, ...] = ()
    """What is wrong with each row that was left out."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Events by partition, each partition in the order of its offsets; there is at least one event."""

    partitions: tuple[tuple[LabelledEvent, ...], ...]


class _Row(NamedTuple):
    path: Path
    where: str
    fields: Mapping[str, Any]

    def complain(self, column: str, problem: str) -> BadArchive:
        found = repr(self.fields.get(column))
        shown = found if len(found) <= MAX_VALUE_SHOWN else f"{found[: MAX_VALUE_SHOWN - 1]}…"
        return BadArchive(f"{self.path}, {self.where}, column {column}: {problem} (found {shown})")


def read_archive(paths: Sequence[Path], selection: Selection, rules: InputRules) -> News | Labelled:
    """All that counts of some files: `.jsonl` or `.csv` or `.parquet` with the fields of a NewsItem, or `.jsonl` of
    LabelledEvents.

    In CSV an empty cell is an absent field, and several symbols stand in one cell, with spaces, commas, semicolons or
    bars between them. Columns that a NewsItem has not are left out.

    Raises:
        BadArchive: a row that is no item, or has no time; or nothing counts.
        DataError: a file cannot be read.
        Misconfigured: a Parquet file cannot be read.
    """  # noqa: D205 -- two lines name the forms
    rows = [row for path in paths for row in _rows_of(path)]
    kinds = {_is_labelled(row.fields) for row in rows}
    if len(kinds) > 1:
        raise BadArchive(f"{', '.join(map(str, paths))} hold both news items and labelled events; give one kind")
    found = _read_labelled(rows, selection) if kinds == {True} else _read_news(rows, selection, rules)
    if found is None:
        raise BadArchive(
            f"{', '.join(map(str, paths))}: no item between {selection.start or '…'} and {selection.end or '…'}"
        )
    return found


def _rows_of(path: Path) -> Iterator[_Row]:
    if path.suffix == ".parquet":
        return (_Row(path, f"row {number}", fields) for number, fields in read_rows(path))
    return (_Row(path, f"line {number}", fields) for number, fields in read_records(path))


def _is_labelled(fields: Mapping[str, Any]) -> bool:
    return fields.keys() >= _LABELLED_FIELDS


# News items


def _read_news(rows: Iterable[_Row], selection: Selection, rules: InputRules) -> News | None:
    lines: list[tuple[int, Line]] = []
    left_out: list[str] = []
    for row in rows:
        try:
            clock = _read_time(row, selection)
            if selection.holds(clock):
                clock_ms = codec.to_ms(clock)
                lines.append((clock_ms, _read_line(row, selection, clock_ms, rules)))
        except BadArchive as bad:
            if not selection.skips_bad:
                raise
            left_out.append(str(bad))
    if left_out and not lines:
        raise BadArchive(f"no row is an item: {len(left_out):,} left out, the first: {left_out[0]}")
    lines.sort(key=lambda timed: timed[0])  # stable: what is of one instant stays in the order of the files
    return News(tuple(line for _, line in lines), tuple(left_out)) if lines else None


def _read_time(row: _Row, selection: Selection) -> datetime:
    column = selection.time_column
    value = row.fields.get(column)
    if value is None or value == "":
        others = ", ".join(row.fields) or "nothing"
        raise row.complain(column, f"an item needs the time at which it was known; the columns are {others}")
    try:
        return _INSTANT.validate_python(_in_zone(value, selection.zone))
    except ValidationError as error:
        raise row.complain(column, _explain_time(error)) from error


def _explain_time(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    hint = "; --zone says in which one such times are" if problem["type"] == "timezone_aware" else ""
    return f"{problem['msg']}{hint}"


def _in_zone(value: object, zone: tzinfo | None) -> object:
    """A time that names no zone in the one given; everything else as it is."""
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value.strip())
        except ValueError:
            return value
    elif isinstance(value, datetime):
        read = value
    else:
        return f"{value!r} is no time"  # a number of what since when
    return read if read.tzinfo is not None or zone is None else read.replace(tzinfo=zone)


def _read_line(row: _Row, selection: Selection, clock_ms: int, rules: InputRules) -> Line:
    fields = {name: value for name, value in row.fields.items() if name in NewsItem.model_fields and _is_given(value)}
    if PUBLISHED in fields:
        fields[PUBLISHED] = _in_zone(fields[PUBLISHED], selection.zone)
    if row.path.suffix == ".csv":
        fields |= _read_cells(row, fields)
    try:
        value = orjson.dumps(fields)
        item = NewsItem.model_validate_json(value)
        codec.decode_item(Record("archive", 0, 0, -1, None, value), rules)
    except orjson.JSONEncodeError as error:
        raise BadArchive(f"{row.path}, {row.where}: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise row.complain(str(problem["loc"][0]) if problem["loc"] else "title", problem["msg"]) from error
    except Rejected as rejected:
        raise row.complain("body" if "body" in fields else "title", rejected.reason) from rejected
    return Line(codec.identify(item, item.source or row.path.name).encode(), value, clock_ms)


def _is_given(value: object) -> bool:
    return value is not None and value != ""


def _read_cells(row: _Row, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of CSV that stand for something else than text."""
    read: dict[str, Any] = {}
    if "symbols" in fields:
        read["symbols"] = fields["symbols"].translate(str.maketrans(",;|", "   ")).split()
    for name in ("revision", "schema_version"):
        if name in fields:
            try:
                read[name] = int(fields[name])
            except ValueError as error:
                raise row.complain(name, "a whole number is needed") from error
    return read


# Labelled events


def _read_labelled(rows: Iterable[_Row], selection: Selection) -> Labelled | None:
    found: dict[int, list[LabelledEvent]] = defaultdict(list)
    for row in rows:
        event = _read_event(row)
        if selection.holds(event.clock):
            found[event.input.partition].append(event)
    if not found:
        return None
    for events in found.values():
        events.sort(key=lambda event: event.input.offset)
        for before, event in pairwise(events):
            if event.clock < before.clock:
                raise BadArchive(
                    f"event {event.event_id} has the clock {event.clock}, before that of {before.event_id}: these are "
                    "not the events of one topic, or not as they stood on it"
                )
    return Labelled(tuple(tuple(found[number]) for number in range(max(found) + 1)))


def _read_event(row: _Row) -> LabelledEvent:
    try:
        return LabelledEvent.model_validate_json(orjson.dumps(row.fields))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise row.complain(str(problem["loc"][0]) if problem["loc"] else "sentiment", problem["msg"]) from error
