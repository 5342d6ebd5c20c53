"""An archive is read whole before anything is sent, keeps its time, and moves the clocks of idle partitions."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.feeds.jsonl import BadArchive, cut_by_due_time, read_archive, replay, stamp, stamp_with_archive
from worker.records import OutRecord
from worker.settings import load_settings

QUARTER_MS = 15 * 60_000


def write(folder: Path, *lines: str) -> Path:
    path = folder / "archive.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_lines_are_sent_as_they_stand_keyed_by_their_id(tmp_path):
    line = '{"id": "a", "title": "t",   "published_at": "2026-03-02T00:00:00Z"}'
    (read,) = read_archive(write(tmp_path, line, "", ""), in_order=True)
    assert (read.key, read.value, read.published_ms) == (b"a", line.encode(), 1_772_409_600_000)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"title": "t", "published_at": "2026-03-02T00:00:00Z"}', "{"], ":2: Invalid JSON"),
        (['{"title": "t"}'], ":1: published_at is missing"),
        (
            [
                '{"title": "t", "published_at": "2026-03-02T00:00:01Z"}',
                '{"title": "t", "published_at": "2026-03-02T00:00:00Z"}',
            ],
            ":2: published_at is before that of the line above",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, lines, problem):
    with pytest.raises(BadArchive, match=problem):
        read_archive(write(tmp_path, *lines), in_order=True)


def test_order_does_not_matter_when_records_carry_the_time_of_sending(tmp_path):
    lines = read_archive(write(tmp_path, '{"title": "t"}'), in_order=False)
    assert [record.timestamp_ms for record in stamp(lines, load_settings())] == [None]


def test_heartbeats_go_to_every_partition_and_end_after_the_last_record(tmp_path):
    template = '{{"id": "{}", "title": "t", "published_at": "2026-03-02T{}:00Z"}}'
    lines = read_archive(write(tmp_path, template.format("a", "00:00"), template.format("b", "00:40")), in_order=True)
    start = lines[0].published_ms
    sent = list(stamp_with_archive(lines, "news.raw", partitions=2))
    beats = [(r.partition, r.timestamp_ms - start) for r in sent if r.value is None]
    assert beats == [(p, t) for t in (QUARTER_MS, 2 * QUARTER_MS, 40 * 60_000 + 1_000) for p in (0, 1)]
    assert [r.timestamp_ms for r in sent] == sorted(r.timestamp_ms for r in sent)


def records_at(*timestamps_ms: int | None) -> list[OutRecord]:
    return [OutRecord("news.raw", None, str(n).encode(), timestamp_ms=ms) for n, ms in enumerate(timestamps_ms)]


def test_records_are_due_at_the_archives_pace():
    records = records_at(1_000, 1_000, 61_000, None, 121_000)
    batches = list(cut_by_due_time(records, speed=60.0))
    assert [due for due, _ in batches] == [0.0, 1.0, 2.0]
    assert [len(batch) for _, batch in batches] == [2, 2, 1]


@given(st.lists(st.integers(0, 10**9) | st.none(), max_size=40).map(lambda t: records_at(*t)), st.none() | st.just(9.0))
def test_batches_hold_every_record_once_in_order(records, speed):
    assert [record for _, batch in cut_by_due_time(records, speed) for record in batch] == records


async def test_a_replay_waits_for_what_is_due_and_writes_all():
    records, written = records_at(0, 0, 100), []

    async def write(batch: list[OutRecord]) -> None:
        assert all(record in records for record in batch)

    started = asyncio.get_running_loop().time()
    await replay(records, 2.0, write, written.extend)
    assert written == records
    assert asyncio.get_running_loop().time() - started >= 0.05
