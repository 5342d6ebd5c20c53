"""What the demo tells at its end. Pure: takes what was seen, gives numbers and rich text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from rich.table import Table

from schemas.events import AlertEvent, LabelledEvent
from worker.detector import Facts
from worker.lives import fired_lives
from worker.sinks.terminal import describe_key
from worker.surge.lifecycle import is_volume


@dataclass(slots=True)
class Seen:
    """What came out of the topics, and when, in seconds of one monotonic clock."""

    sent_at: dict[str, float] = field(default_factory=dict)
    labelled_at: dict[str, float] = field(default_factory=dict)
    events: list[LabelledEvent] = field(default_factory=list)
    alerts: list[AlertEvent] = field(default_factory=list)

    def add_label(self, event: LabelledEvent, now_seconds: float) -> None:
        """A labelled event was read."""
        self.events.append(event)
        self.labelled_at.setdefault(event.item_id, now_seconds)

    @property
    def latencies(self) -> list[float]:
        """From handing an item to the producer to reading its committed label, in seconds."""
        return [at - self.sent_at[item] for item, at in self.labelled_at.items() if item in self.sent_at]


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th percentile; of one value, that value twice."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def render_summary(seen: Seen, facts: Facts, seconds: float) -> Table:
    """The table at the end of the demo."""
    labels = Counter(event.sentiment.label for event in seen.events if event.sentiment)
    p50, p99 = percentiles(seen.latencies)
    alerts = [life[-1] for life in fired_lives(seen.alerts)]
    table = Table(title="What happened", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    mix = ", ".join(f"{count} {label}" for label, count in labels.most_common())
    table.add_row("labelled", f"{len(seen.events)} headlines: {mix}")
    table.add_row("pace", f"{len(seen.events) / seconds:.1f} headlines a second, as fast as the replay sent them")
    table.add_row("latency", f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, from the feed to the committed label")
    table.add_row("keys", f"{facts.keys} watched, {facts.keys - facts.keys_learning} past learning")
    table.add_row("alerts", f"{len(alerts)}" + "".join(f"\n{_line(alert)}" for alert in alerts))
    return table


def _line(alert: AlertEvent) -> str:
    what = "volume" if is_volume(alert.kind) else "surge"
    return (
        f"{alert.starts_at:%a %d %b %H:%M}  {describe_key(alert)}: {alert.n_negative} negative stories, "
        f"{alert.expected:.1f} expected ({what}, {alert.status.value})"
    )
