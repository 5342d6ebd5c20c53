"""Dead letters as people read them in a terminal. Pure: letters in, rich text out.

What a record holds is a stranger's: it is shown as text alone, without markup, and without what steers a terminal.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.events import format_instant
from worker.codec import to_instant
from worker.dlq.letters import Identity, Letter, read_text
from worker.dlq.redrive import Fate, RedriveRules, Tally
from worker.sinks.terminal import printable

SHOWN_CHARS = 4000


@dataclass(slots=True)
class Count:
    """How many letters there are of a kind and topic, how many of them were sent again, and when they failed."""

    letters: int = 0
    redriven: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, letter: Letter, *, redriven: bool) -> None:
        """One more."""
        at = letter.body.failed_at
        self.letters += 1
        self.redriven += redriven
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)


@dataclass(slots=True)
class Survey:
    """Counts of all letters that are meant, by kind and topic, and the newest of them."""

    notes: Mapping[Identity, datetime]
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    newest: deque[Letter] = field(default_factory=deque)

    def add(self, letter: Letter) -> None:
        """Count one more."""
        count = self.counts.setdefault((letter.body.kind, letter.body.input.topic), Count())
        count.add(letter, redriven=letter.identity in self.notes)
        self.newest.append(letter)

    def describe_counts(self) -> list[dict[str, Any]]:
        """The counts for scripts, the most first."""
        return [
            {
                "kind": kind,
                "topic": topic,
                "letters": count.letters,
                "redriven": count.redriven,
                "first_failed_at": format_instant(count.first) if count.first else None,
                "last_failed_at": format_instant(count.last) if count.last else None,
            }
            for (kind, topic), count in sorted(self.counts.items(), key=lambda pair: -pair[1].letters)
        ]


def _line(text: str) -> Text:
    return Text(" ".join(printable(text).split()), no_wrap=True, overflow="ellipsis")


def render_survey(survey: Survey) -> RenderableType:
    """For `dlq list`: the counts, then the newest letters, newest last."""
    if not survey.counts:
        return Text("no dead letters", "green")
    counts = _table("kind", "topic", "letters", "redriven", "first seen", "last seen")
    for each in survey.describe_counts():
        counts.add_row(*(_line(str(value)) for value in each.values()))
    letters = _table("coordinates", "kind", "attempts", "failed", "redriven", "reason")
    for letter in survey.newest:
        redriven = survey.notes.get(letter.identity)
        body = letter.body
        letters.add_row(
            _line(letter.coordinates),
            _line(body.kind),
            str(body.attempts),
            f"{body.failed_at:%m-%d %H:%M:%S}",
            f"{redriven:%m-%d %H:%M}" if redriven else "",
            _line(body.reason),
        )
    return Group(counts, Text(), letters)


def _table(*columns: str) -> Table:
    """A table whose last column gives way where the terminal is too narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in {"letters", "redriven", "attempts"} else "left"
        table.add_column(column, justify=justify, no_wrap=column != columns[-1])
    return table


def render_letter(letter: Letter, redriven_at: datetime | None) -> RenderableType:
    """For `dlq show`: all that is known of a letter, and its record."""
    body, times = letter.body, letter.times_redriven
    rows = {
        "coordinates": letter.coordinates,
        "kind": body.kind,
        "reason": body.reason,
        "attempts": str(body.attempts),
        "failed": format_instant(body.failed_at),
        "timestamp": format_instant(to_instant(body.timestamp_ms)) if body.timestamp_ms >= 0 else "none",
        "redriven": _tell_redrives(times, redriven_at),
        "headers": "\n".join(f"{name}: {_tell_bytes(value)}" for name, value in body.headers) or "none",
        "key": _tell_bytes(body.key),
        "value": "left out, since the letter would be too large" if letter.lacks_value else _tell_bytes(body.value),
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(printable(value)))
    return table


def _tell_redrives(times: int | None, redriven_at: datetime | None) -> str:
    before = "" if times == 0 else f"{'unknown how many' if times is None else times} times before it failed; "
    return before + (f"sent again at {format_instant(redriven_at)}" if redriven_at else "not sent again since")


def _tell_bytes(content: bytes | None) -> str:
    if content is None:
        return "none"
    text = read_text(content)
    size = f"{len(content)} bytes{'' if text is not None else ', not UTF-8, in hexadecimal'}"
    whole = content.hex(" ") if text is None else text
    cut = "" if len(whole) <= SHOWN_CHARS else f"\n... cut after {SHOWN_CHARS} characters; `dlq export` has it whole"
    return f"({size}) {whole[:SHOWN_CHARS]}{cut}"


_MENDS = {
    Fate.exhausted: "redriven {times} times and failed again: mend what makes them fail, then raise --max-times",
    Fate.lacking: "too large to keep: send them from where they come from",
    Fate.foreign: "not of {topic} with its {partitions} partitions",
    Fate.expired: "older than {topic} keeps records: raise its retention.ms first, or `dlq export` them",
}


def render_tally(tally: Tally, rules: RedriveRules, *, dry_run: bool) -> RenderableType:
    """The summary of a redrive, with the mend of each refusal."""
    fates = tally.fates
    sent = f"{'would redrive' if dry_run else 'redrove'} {fates[Fate.redriven]} to {rules.raw_topic}"
    lines = [Text(f"{sent}; {fates[Fate.already]} redriven before; {tally.refused} refused")]
    for fate, mend in _MENDS.items():
        if fates[fate]:
            why = mend.format(times=rules.max_times, topic=rules.raw_topic, partitions=rules.partitions)
            example = printable(tally.examples[fate].coordinates)
            lines.append(Text(f"  {fates[fate]} {why} ({example}{', ...' if fates[fate] > 1 else ''})", "yellow"))
    return Group(*lines)
