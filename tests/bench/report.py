"""Measurements as tables for people and as JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from .contest import Row
from .detection import Detection
from .machine import Machine
from .rivals import Agreement
from .throughput import Throughput
from .transactions import Cost


@dataclass(frozen=True, slots=True)
class Outcome:
    """A contest's rows, and how far its contenders agree."""

    title: str
    docs: int
    rows: Sequence[Row]
    parity: Agreement
    auto: Agreement

    @property
    def remark(self) -> str:
        """What stands under the table."""
        return (
            f"Before timing, engine and pipelines in fp32 differed by {self.parity.largest_difference:.0e} at most. "
            f"The engine's own precision moves a probability by {self.auto.largest_difference:.1e} at most, and "
            f"{self.auto.labels_that_differ} of {self.docs} sentiment labels."
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run has found."""

    machine: Machine
    texts: str
    outcomes: Sequence[Outcome]
    costs: Sequence[Cost]
    throughputs: Sequence[Throughput]
    detections: Sequence[Detection] = ()

    def to_json(self) -> Mapping[str, Any]:
        """As plain values."""
        return asdict(self)


def _open_table(title: str, *columns: str) -> Table:
    """A table without rows; words stand left, numbers right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in {"", "guarantee"} else "right")
    return table


def render_outcome(outcome: Outcome) -> Table:
    """Rates, and what each document costs."""
    table = _open_table(outcome.title, "", "docs/s", "min - max", "ratio", "CPU ms/doc")
    for row in outcome.rows:
        rate = row.docs_per_second
        table.add_row(
            row.name,
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f} - {rate.high:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.cpu_ms_per_doc:.2f}",
        )
    return table


def render_costs(costs: Sequence[Cost]) -> Table:
    """A line for each size of unit and guarantee."""
    title = "Labelled units on the broker, one after the other, no model"
    table = _open_table(title, "records a unit", "guarantee", "ms a unit", "min - max", "records/s", "CPU µs/record")
    for cost in costs:
        table.add_row(
            f"{cost.unit_records:,}",
            cost.guarantee.replace("_", " "),
            f"{cost.unit_ms.median:.1f}",
            f"{cost.unit_ms.low:.1f} - {cost.unit_ms.high:.1f}",
            f"{cost.records_per_second:,.0f}",
            f"{cost.cpu_us_per_record:.0f}",
        )
    return table


def render_throughputs(throughputs: Sequence[Throughput]) -> Table:
    """A line for each fleet and guarantee."""
    title = "Labellers from topic to topic, no model"
    columns = (
        "partitions",
        "labellers",
        "guarantee",
        "items/s",
        "min - max",
        "ratio",
        "CPU µs/item",
        "records out/item",
    )
    table = _open_table(title, *columns)
    for row in throughputs:
        rate = row.items_per_second
        table.add_row(
            str(row.partitions),
            str(row.labellers),
            row.guarantee.replace("_", " "),
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f} - {rate.high:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.cpu_us_per_item:.0f}",
            f"{row.records_per_item:.2f}",
        )
    return table


def render_detections(detections: Sequence[Detection]) -> Table:
    """A line for each number of keys."""
    how = "compiled" if all(row.restored.compiled for row in detections) else "uncompiled"
    title = f"The detector, {how}, on one core: decode, merge, fold, statistic, changelog"
    columns = (
        "keys",
        "events/s",
        "min - max",
        "ratio",
        "decode µs",
        "step µs",
        "rest µs",
        "B/key",
        "restore s",
    )
    table = _open_table(title, *columns)
    for row in detections:
        rate = row.events_per_second
        table.add_row(
            f"{row.restored.keys:,}",
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f} - {rate.high:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.decode_us:.1f}",
            f"{row.step_us:.1f}",
            f"{row.rest_us:.1f}",
            f"{row.restored.idle_key_bytes:.0f}",
            f"{row.restored.seconds:.1f}",
        )
    return table


def compare_costs(worker: Row, engine: Row) -> str:
    """What the worker adds to the engine, in a sentence."""
    more = worker.cpu_ms_per_doc / engine.cpu_ms_per_doc - 1
    speed = worker.docs_per_second.median / engine.docs_per_second.median
    return (
        f"A document cost the worker {worker.cpu_ms_per_doc:.2f} CPU ms, reading, events and transactions included, "
        f"and the engine alone {engine.cpu_ms_per_doc:.2f} ({more:+.0%}). The worker gave {speed:.0%} of the engine's "
        "rate, on the cores that it shares with the broker and this reader."
    )
