"""The demo's headlines: a quiet week, and one bank in trouble within it. Companies and sources are invented."""

import heapq
from pathlib import Path

from worker.feeds.jsonl import Line, read_archive

FOLDER = Path(__file__).parent


def load_stream(*, trouble: bool = True) -> list[Line]:
    """The headlines in the order of their publication, with the trouble or without."""
    quiet = read_archive(FOLDER / "quiet.jsonl", in_order=True)
    if not trouble:
        return quiet
    return list(heapq.merge(quiet, read_archive(FOLDER / "trouble.jsonl", in_order=True), key=_published))


def _published(line: Line) -> int:
    assert line.published_ms is not None  # read_archive has seen to it
    return line.published_ms
