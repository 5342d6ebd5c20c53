"""A unit is a contiguous run of each partition, within its limits; nothing is lost or reordered."""

from hypothesis import given
from hypothesis import strategies as st

from worker.records import Record
from worker.units import Backlog, UnitLimits


def records(partition: int, offsets: range, size_bytes: int = 10) -> list[Record]:
    return [Record("news.raw", partition, offset, 0, None, b"x" * size_bytes) for offset in offsets]


def test_partitions_give_in_turn():
    backlog = Backlog()
    backlog.add(records(0, range(100, 110)) + records(1, range(2)), now_seconds=0)
    unit = backlog.take_unit(UnitLimits(max_records=5), now_seconds=0)
    assert unit is not None
    assert {p: (run.first_offset, run.next_offset) for p, run in unit.runs.items()} == {0: (100, 103), 1: (0, 2)}


def test_a_record_larger_than_the_limit_travels_alone():
    backlog = Backlog()
    backlog.add(records(0, range(2), size_bytes=500), now_seconds=0)
    unit = backlog.take_unit(UnitLimits(max_bytes=100), now_seconds=0)
    assert unit is not None
    assert unit.count == 1
    assert backlog.count == 1


def test_a_small_unit_waits_no_longer_than_its_delay():
    backlog = Backlog()
    limits = UnitLimits(max_records=5, max_delay_seconds=1.0)
    backlog.add(records(0, range(2)), now_seconds=10.0)
    assert backlog.take_unit(limits, now_seconds=10.9) is None
    assert backlog.take_unit(limits, now_seconds=11.0) is not None


def test_a_full_unit_does_not_wait():
    backlog = Backlog()
    backlog.add(records(0, range(5)), now_seconds=0)
    assert backlog.take_unit(UnitLimits(max_records=5, max_delay_seconds=9.0), now_seconds=0) is not None


def test_dropped_partitions_are_forgotten_and_the_rest_stays():
    backlog = Backlog()
    backlog.add(records(0, range(3)) + records(1, range(4)), now_seconds=0)
    backlog.drop([0])
    assert (backlog.count, backlog.size_bytes) == (4, 40)
    assert not backlog.holds(0)
    backlog.drop()
    assert backlog.take_unit(UnitLimits(), now_seconds=99) is None


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=60),
    st.integers(1, 10),
    st.integers(1, 100),
)
def test_units_hold_every_record_once_in_order_and_stay_within_limits(arrivals, max_records, max_bytes):
    backlog, expected = Backlog(), {}
    for offset, (partition, size_bytes) in enumerate(arrivals):
        backlog.add(records(partition, range(offset, offset + 1), size_bytes), now_seconds=0)
        expected.setdefault(partition, []).append(offset)
    seen = {}
    while unit := backlog.take_unit(UnitLimits(max_records, max_bytes), now_seconds=0):
        size_bytes = sum(record.size_bytes for run in unit.runs.values() for record in run.records)
        assert unit.count <= max_records
        assert size_bytes <= max_bytes or unit.count == 1
        for partition, run in unit.runs.items():
            seen.setdefault(partition, []).extend(record.offset for record in run.records)
    assert seen == expected
    assert (backlog.count, backlog.size_bytes) == (0, 0)
