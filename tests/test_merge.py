from hypothesis import given
from hypothesis import strategies as st

from worker.merge import Merge, Merged, Position

Log = list[list[int]]


def merge_of(partitions: int) -> Merge[str]:
    merge: Merge[str] = Merge(partitions)
    for number in range(partitions):
        merge.start(number, Position(0, 0))
    return merge


def drain(merge: Merge[str]) -> list[Merged[str]]:
    taken = []
    while (record := merge.take()) is not None:
        taken.append(record)
    return taken


def told(record: Merged[str] | None) -> tuple[int, int, int, str, bool]:
    assert record is not None
    return record.clock_ms, record.partition, record.offset, record.item, record.late


@st.composite
def logs(draw: st.DrawFn) -> Log:
    partition = st.lists(st.integers(0, 30), max_size=12).map(sorted)
    return draw(st.lists(partition, min_size=1, max_size=4))


@given(logs(), st.randoms(use_true_random=False))
def test_any_interleaving_gives_the_order_of_clock_then_partition(log, random):
    merge = merge_of(len(log))
    expected = sorted(
        (clock, number, offset) for number, clocks in enumerate(log) for offset, clock in enumerate(clocks)
    )
    read, marked, taken = [0] * len(log), [0] * len(log), []
    while any(at < len(clocks) for at, clocks in zip(read, log, strict=True)):
        number = random.randrange(len(log))
        if random.random() < 0.3:
            at = random.randint(0, len(log[number]))
            promise = log[number][at] if at < len(log[number]) else 31
            merge.mark(number, marked[number], promise, at)
            marked[number] += 1
        elif read[number] < len(log[number]):
            merge.add(number, read[number], log[number][read[number]], "")
            read[number] += 1
        if random.random() < 0.5:
            taken += drain(merge)
    for number, clocks in enumerate(log):
        merge.mark(number, marked[number], 31, len(clocks))
    taken += drain(merge)
    assert [(record.clock_ms, record.partition, record.offset) for record in taken] == expected
    assert not any(record.late for record in taken)


@given(logs(), st.randoms(use_true_random=False))
def test_a_merge_started_from_the_positions_of_another_goes_on_in_the_same_order(log, random):
    whole, cut = merge_of(len(log)), merge_of(len(log))
    marks = [sorted(random.sample(range(len(clocks) + 1), random.randint(0, len(clocks)))) for clocks in log]

    def read_to_the_end(merge: Merge[str]) -> None:
        for number, clocks in enumerate(log):
            for index, at in enumerate([*marks[number], len(clocks)]):
                if index >= merge.positions[number].progress_next_offset:
                    merge.mark(number, index, clocks[at] if at < len(clocks) else 31, at)
        for number, clocks in enumerate(log):
            for offset in range(merge.positions[number].labelled_next_offset, len(clocks)):
                merge.add(number, offset, clocks[offset], "")

    read_to_the_end(whole)
    everything = drain(whole)
    read_to_the_end(cut)
    before = [record for record in (cut.take() for _ in range(random.randint(0, len(everything)))) if record]
    restored: Merge[str] = Merge(len(log))
    for number, position in cut.positions.items():
        restored.start(number, position, cut.marked_clocks_ms[number])
    read_to_the_end(restored)
    assert [told(record) for record in [*before, *drain(restored)]] == [told(record) for record in everything]


def test_a_record_waits_until_every_other_partition_is_known_to_be_past_it():
    merge = merge_of(3)
    merge.add(1, 0, 100, "b")
    merge.add(0, 0, 101, "a")
    assert merge.take() is None
    merge.mark(2, 0, 99, 0)
    assert merge.take() is None
    merge.mark(2, 1, 100, 0)
    record = merge.take()
    assert record is not None
    assert record.item == "b"
    assert merge.take() is None


def test_a_mark_at_the_same_clock_holds_back_a_higher_partition_only():
    merge = merge_of(2)
    merge.add(1, 0, 100, "b")
    merge.mark(0, 0, 100, 0)
    assert merge.take() is None
    merge.mark(0, 1, 101, 0)
    assert merge.take() is not None


def test_a_mark_counts_only_once_the_reader_has_reached_its_offset():
    merge = merge_of(2)
    merge.add(0, 0, 100, "a")
    merge.mark(1, 0, 200, 7)
    assert merge.take() is None
    merge.reach(1, 6)
    assert merge.take() is None
    merge.reach(1, 7)
    assert merge.take() is not None


def test_a_mark_does_not_speak_for_records_that_still_wait_below_it():
    merge = merge_of(2)
    merge.add(0, 0, 50, "early")
    merge.mark(0, 0, 100, 1)
    assert merge.positions[0] == Position(0, 0)
    merge.mark(1, 0, 60, 0)
    assert merge.take() is not None
    assert merge.positions[0] == Position(1, 1)
    assert merge.marked_clocks_ms[0] == 100


def test_a_head_below_the_clock_is_applied_at_the_clock_and_flagged():
    merge = merge_of(2)
    merge.add(0, 0, 100, "a")
    merge.mark(1, 0, 200, 0)
    assert told(merge.take()) == (100, 0, 0, "a", False)
    merge.add(1, 0, 40, "broken promise")
    merge.mark(0, 0, 100, 1)
    assert told(merge.take()) == (100, 1, 0, "broken promise", True)


def test_the_bound_is_the_least_clock_still_to_come():
    merge = merge_of(2)
    assert merge.bound_ms() == -1
    merge.add(0, 0, 100, "a")
    assert merge.bound_ms() == -1
    merge.mark(1, 0, 90, 0)
    assert merge.bound_ms() == 90
    merge.mark(1, 1, 150, 0)
    assert merge.bound_ms() == 100


def test_nothing_is_taken_before_every_partition_has_started():
    merge: Merge[str] = Merge(2)
    merge.start(0, Position(5, 2))
    merge.add(0, 5, 100, "a")
    assert merge.take() is None
    assert merge.bound_ms() == -1


def test_positions_pass_transaction_markers_only_when_nothing_waits():
    merge = merge_of(1)
    merge.add(0, 3, 100, "a")
    merge.reach(0, 9)
    assert merge.positions[0].labelled_next_offset == 3
    assert merge.take() is not None
    assert merge.positions[0].labelled_next_offset == 9
