"""What stands still is told from what has nothing to do, and a suspended process does not age."""

from hypothesis import given
from hypothesis import strategies as st

from worker.standstill import MOST_SECONDS, Stand, Standstill, Still, Unchanged, WatchClock


def test_a_value_ages_from_when_it_was_first_seen():
    unchanged = Unchanged()
    assert [unchanged.note(value, now) for now, value in enumerate("aaabb", 10)] == [0, 1, 2, 0, 1]


def test_nothing_does_not_age_and_what_comes_after_it_is_new():
    unchanged = Unchanged()
    assert [unchanged.note(value, now) for now, value in enumerate(["a", "a", None, None, "a", "a"])] == [
        0,
        1,
        0,
        0,
        0,
        1,
    ]


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_between_two_looks_no_more_than_two_seconds_pass(times):
    clock, looks = WatchClock(), [0.0]
    for now in sorted(times):
        looks.append(clock.look(now))
        assert 0 <= looks[-1] - looks[-2] <= MOST_SECONDS


def test_seconds_that_are_looked_at_pass_as_they_are():
    clock = WatchClock()
    assert [clock.look(now) for now in (100.0, 101.0, 102.5, 5000.0, 5001.0)] == [0.0, 1.0, 2.5, 4.5, 5.5]


def stands(**of: tuple[int, int, bool]) -> dict[int, Stand]:
    return {int(name[1:]): Stand(*stand) for name, stand in of.items()}


def test_the_partition_that_has_not_moved_for_longest_is_named():
    standstill = Standstill()
    assert standstill.note(stands(p0=(5, 5, True), p1=(7, 7, True)), 0.0) is None
    assert standstill.note(stands(p0=(5, 5, True), p1=(8, 7, True)), 1.0) == Still(0, 1.0)
    assert standstill.note(stands(p0=(5, 6, True), p1=(8, 7, True)), 3.0) == Still(1, 2.0)


def test_a_partition_without_work_never_stands_still_and_one_that_is_taken_away_is_forgotten():
    standstill = Standstill()
    for now in range(100):
        assert standstill.note(stands(p0=(5, 5, False)), now) is None
    assert standstill.note(stands(p0=(5, 5, True)), 100.0) is None
    assert standstill.note({}, 101.0) is None
    assert standstill.note(stands(p0=(5, 5, True)), 200.0) is None


def test_an_excuse_begins_anew():
    standstill = Standstill()
    standstill.note(stands(p0=(5, 5, True)), 0.0)
    standstill.excuse()
    assert standstill.note(stands(p0=(5, 5, True)), 50.0) is None
    assert standstill.note(stands(p0=(5, 5, True)), 51.0) == Still(0, 1.0)
