"""Parquet in and out; the only user of polars, which is needed for nothing else and may be missing."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.events import AlertEvent, TrendEvent
from worker.errors import Misconfigured


def require_polars(path: Path) -> ModuleType:
    """The library.

    Raises:
        Misconfigured: it is not installed; names the file that needs it, and how to get it.
    """
    try:
        return import_module("polars")
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"{path} is Parquet, which needs polars: pip install 'stacknorm[parquet]'; JSONL needs nothing more"
        ) from error


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row, counted from 1.

    Raises:
        Misconfigured: as `require_polars`, or the file cannot be read.
    """
    polars = require_polars(path)
    try:
        table = polars.read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error
    yield from enumerate(table.iter_rows(named=True), 1)


def write_alerts(alerts: Sequence[AlertEvent], path: Path) -> None:
    """Every revision as a row; the columns are the fields of the event, nested where they are."""
    polars = require_polars(path)
    rows = [_row(alert) for alert in alerts]
    polars.DataFrame(rows, schema=_alert_schema(polars)).write_parquet(path)


def write_windows(trends: Sequence[TrendEvent], path: Path) -> None:
    """Every window as a row; the columns are the fields of the event."""
    polars = require_polars(path)
    rows = [_row(trend) for trend in trends]
    polars.DataFrame(rows, schema=_trend_schema(polars)).write_parquet(path)


def _trend_schema(pl: ModuleType) -> dict[str, Any]:
    """The columns of trends."""
    instant, text, count = pl.Datetime("ms", "UTC"), pl.String, pl.Int64
    return {
        "schema_version": count,
        **dict.fromkeys(("key_type", "key", "window"), text),
        **dict.fromkeys(("starts_at", "ends_at"), instant),
        "final": pl.Boolean,
        "clock": instant,
        **dict.fromkeys(("n_items", "n_clusters", "n_negative", "n_neutral", "n_positive", "n_copies"), count),
        "mean_score": pl.Float64,
        "stack": pl.Struct({"name": text, "digest": text}),
        "rule_version": text,
    }


def _row(event: AlertEvent | TrendEvent) -> dict[str, Any]:
    return {name: _plain(value) for name, value in event.model_dump().items()}


def _plain(value: Any) -> Any:
    """Of a word its text, all the way down: polars takes no enumerations."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def _alert_schema(pl: ModuleType) -> dict[str, Any]:
    """The columns of alerts; those of an archive without any too."""
    instant, text, count, measure = pl.Datetime("ms", "UTC"), pl.String, pl.Int64, pl.Float64
    story = {"item_id": text, "title": text, "url": text, "source": text, "score": measure}
    story |= {"received_at": instant, "copies": count, "status": text}
    other = pl.List(pl.Struct({"alert_id": text, "key_type": text, "key": text}))
    stack = pl.Struct({"name": text, "digest": text})
    place = pl.Struct({"topic": text, "partition": count, "offset": count})
    return {
        "schema_version": count,
        **dict.fromkeys(("alert_id", "status", "kind", "key_type", "key"), text),
        "revision": count,
        **dict.fromkeys(("first_clock", "starts_at", "detected_at", "emitted_at", "ends_at"), instant),
        "resolve_reason": text,
        **dict.fromkeys(("n_negative", "n_total", "n_copies", "n_sources"), count),
        **dict.fromkeys(("expected", "ratio", "R", "W", "h", "budget"), measure),
        "severity": text,
        **dict.fromkeys(("p_value", "chance_a_day"), measure),
        "target": text,
        "inhibited_by": other,
        "quality": pl.List(text),
        "baseline": pl.Struct({"a": measure, "b": measure, "share": measure, "learning": pl.Boolean}),
        "evidence": pl.List(pl.Struct(story)),
        "incomplete_partitions": pl.List(count),
        "provenance": pl.Struct({"stack": stack, "rule_version": text, "inputs": pl.List(place)}),
    }
