"""What a labeller holds and writes, without Kafka."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Progress, StackRef
from worker.codec import decode_clock, encode_clock, to_ms
from worker.kafka.connection import Committed, Place
from worker.kafka.source import End, Ownership
from worker.kip447 import Membership
from worker.labeller import LabelledRun
from worker.records import PartitionClock, Record
from worker.tenure import Reached, Shipment, Tenure, is_drained
from worker.topics import Topics

TOPICS = Topics("n.")
STACK = StackRef(name="s", digest="d")
NOW_MS = to_ms(datetime(2026, 1, 1, tzinfo=UTC))


def tenure_of(**committed: PartitionClock) -> Tenure:
    offsets = {int(name[1:]): Committed(10, encode_clock(clock)) for name, clock in committed.items()}
    return Tenure.begin(Ownership(1, Membership("g", 1, "m"), offsets))


def test_a_tenure_goes_on_from_the_clock_stored_with_the_committed_offset() -> None:
    tenure = tenure_of(p0=PartitionClock(NOW_MS, 7), p1=PartitionClock())
    assert tenure.clocks_ms == {0: NOW_MS, 1: None}
    assert tenure.labelled_next_offsets == {0: 7, 1: 0}


def test_an_idle_mark_needs_a_drained_partition_with_nothing_on_its_way() -> None:
    tenure = tenure_of(p0=PartitionClock(), p1=PartitionClock(), p2=PartitionClock(), p3=PartitionClock())
    tenure.backlog.add([Record("n.raw", 1, 10, NOW_MS, None, b"x")], 0.0)
    ends = {0: End(10, 10), 1: End(11, 11), 2: End(9, 10), 3: End(12, 12)}
    assert tenure.mark_idle(ends, [3], NOW_MS, 5.0) == {0: Reached(10, NOW_MS)}
    assert tenure.clocks_ms[0] == NOW_MS


def test_idle_marks_come_once_a_second_and_their_clock_never_falls() -> None:
    tenure = tenure_of(p0=PartitionClock(NOW_MS + 5000, 3))
    ends = {0: End(4, 4)}
    assert tenure.mark_idle(ends, (), NOW_MS, 5.0) == {0: Reached(4, NOW_MS + 5000)}
    assert tenure.mark_idle(ends, (), NOW_MS + 900, 5.9) == {}
    assert tenure.mark_idle(ends, (), NOW_MS + 6000, 6.0) == {0: Reached(4, NOW_MS + 6000)}


@given(st.integers(0, 9), st.integers(0, 9))
def test_drained_is_to_stand_at_or_behind_the_last_stable_offset(position: int, last: int) -> None:
    assert is_drained(End(position, last)) is (position >= last)


def test_marks_and_metadata_carry_the_labelled_offset_that_the_broker_gave() -> None:
    tenure = tenure_of(p0=PartitionClock(None, 3), p1=PartitionClock(None, 4), p2=PartitionClock(None, 5))
    reached = {0: Reached(12, NOW_MS), 1: Reached(20, NOW_MS), 2: Reached(30, None)}
    shipment = Shipment(tenure, TOPICS, STACK, (), reached, {0: End(15, 15), 1: End(20, 20)})
    ending = shipment.finish({Place("n.labelled", 0): 8})
    marks = [Progress.model_validate_json(mark.value or b"") for mark in ending.marks]
    assert [(m.partition, m.labelled_next_offset, m.raw_next_offset, m.lag) for m in marks] == [
        (0, 8, 12, 3),
        (1, 4, 20, 0),
    ]
    stored = {place.partition: decode_clock(at.metadata) for place, at in ending.offsets.items()}
    assert stored == {0: PartitionClock(NOW_MS, 8), 1: PartitionClock(NOW_MS, 4), 2: PartitionClock(None, 5)}
    assert tenure.labelled_next_offsets == {0: 3, 1: 4, 2: 5}
    shipment.settle()
    assert tenure.labelled_next_offsets == {0: 8, 1: 4, 2: 5}


def test_a_second_attempt_takes_the_offsets_of_the_second_attempt() -> None:
    tenure = tenure_of(p0=PartitionClock(None, 0))
    shipment = Shipment(tenure, TOPICS, STACK, (), {0: Reached(1, NOW_MS)}, {})
    shipment.finish({Place("n.labelled", 0): 2})
    shipment.finish({Place("n.labelled", 0): 5})
    shipment.settle()
    assert tenure.labelled_next_offsets == {0: 5}


def test_labelled_runs_move_the_clock_before_they_are_committed() -> None:
    tenure = tenure_of(p0=PartitionClock())
    assert tenure.advance({0: LabelledRun(11, NOW_MS, (), ())}) == {0: Reached(11, NOW_MS)}
    assert tenure.clocks_ms == {0: NOW_MS}
