"""A unit is a contiguous run of each partition, within its limits; nothing is lost or reordered."""

from hypothesis import given
from hypothesis import strategies as st

from worker.records import Record
from worker.units import FIRST_BYTES, Backlog, BacklogLimits, Pace, UnitLimits


def records(partition: int, offsets: range, size_bytes: int = 10) -> list[Record]:
    return [Record("news.raw", partition, offset, 0, None, b"x" * size_bytes) for offset in offsets]


def test_partitions_give_in_turn():
    backlog = Backlog()
    backlog.add(records(0, range(100, 110)) + records(1, range(2)), now_seconds=0)
    unit = backlog.take_unit(UnitLimits(max_records=5), now_seconds=0)
    assert unit is not None
    assert {p: (run.first_offset, run.next_offset) for p, run in unit.runs.items()} == {0: (100, 103), 1: (0, 2)}


def test_partitions_give_in_turn_from_unit_to_unit_too():
    backlog = Backlog()
    backlog.add(records(0, range(9)) + records(1, range(9)) + records(4, range(9)), now_seconds=0)
    units = [backlog.take_unit(UnitLimits(max_records=1), now_seconds=0) for _ in range(5)]
    assert [list(unit.runs) for unit in units if unit] == [[0], [1], [4], [0], [1]]


def test_a_backlog_of_tiny_records_is_full_by_their_number_until_it_is_half_empty():
    limits = BacklogLimits(high_bytes=1000, low_bytes=500, high_records=10, low_records=5)
    backlog = Backlog()
    backlog.add(records(0, range(10), size_bytes=1), now_seconds=0)
    assert not backlog.is_full(limits, was_full=False)
    backlog.add(records(0, range(10, 11), size_bytes=1), now_seconds=0)
    assert backlog.is_full(limits, was_full=False)
    backlog.take_unit(UnitLimits(max_records=5), now_seconds=0)
    assert backlog.is_full(limits, was_full=True)
    backlog.take_unit(UnitLimits(max_records=1), now_seconds=0)
    assert not backlog.is_full(limits, was_full=True)


def test_a_backlog_of_large_records_is_full_by_their_bytes():
    limits = BacklogLimits(high_bytes=1000, low_bytes=500, high_records=10, low_records=5)
    backlog = Backlog()
    backlog.add(records(0, range(3), size_bytes=400), now_seconds=0)
    assert backlog.is_full(limits, was_full=False)
    backlog.take_unit(UnitLimits(max_records=2), now_seconds=0)
    assert not backlog.is_full(limits, was_full=True)


def test_headers_count_as_bytes():
    assert Record("news.raw", 0, 0, 0, b"k", b"vv", (("name", b"value"), ("none", None))).size_bytes == 3 + 9 + 4


def test_units_of_a_slow_stack_are_split_so_that_each_takes_its_time():
    pace, limits = Pace(), UnitLimits(max_records=500, max_seconds=10.0)
    assert pace.narrow(limits).max_bytes == FIRST_BYTES
    pace.observe(records=20, seconds=40.0)
    assert pace.narrow(limits).max_records == 5
    assert pace.narrow(limits).max_bytes == limits.max_bytes
    pace.observe(records=5, seconds=500.0)
    assert pace.narrow(limits).max_records == 1


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1000)), min_size=1, max_size=20), st.integers(1, 500))
def test_a_unit_as_slow_as_the_last_is_never_over_its_time_unless_it_is_one_record(observed, max_records):
    pace, limits = Pace(), UnitLimits(max_records=max_records, max_seconds=10.0)
    for count, seconds in observed:
        pace.observe(count, seconds)
    most = pace.narrow(limits).max_records
    count, seconds = observed[-1]
    assert 1 <= most <= max_records
    assert most == 1 or most * seconds / count <= 10.0 + 1e-6


def test_a_stack_that_has_become_fast_again_gets_whole_units_by_and_by():
    pace, limits = Pace(), UnitLimits(max_records=500, max_seconds=10.0)
    pace.observe(1, 10.0)
    sizes = []
    for _ in range(40):
        sizes.append(pace.narrow(limits).max_records)
        pace.observe(sizes[-1], 0.004 * sizes[-1])
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 500)


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
