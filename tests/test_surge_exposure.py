from schemas.events import StackRef
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.exposure import Exposure
from worker.surge.learning import Learning


def test_exposure_runs_with_the_clock_while_items_come():
    exposure = Exposure(6 * HOUR_MS)
    assert [exposure.advance(hours * HOUR_MS) for hours in (100, 103, 109)] == [0, 3 * HOUR_MS, 9 * HOUR_MS]


def test_exposure_stands_still_after_six_silent_hours():
    exposure = Exposure(6 * HOUR_MS)
    exposure.advance(0)
    assert exposure.at(5 * HOUR_MS) == 5 * HOUR_MS
    assert exposure.at(500 * HOUR_MS) == 6 * HOUR_MS
    assert exposure.advance(48 * HOUR_MS) == 6 * HOUR_MS
    assert exposure.advance(49 * HOUR_MS) == 7 * HOUR_MS


def test_a_stack_is_learning_until_three_days_of_exposure():
    learning = Learning(3 * DAY_MS)
    learning.hear(StackRef(name="s", digest="a"), 0)
    assert learning.at(3 * DAY_MS - 1)
    assert not learning.at(3 * DAY_MS)


def test_a_new_stack_starts_learning_again():
    learning = Learning(3 * DAY_MS)
    learning.hear(StackRef(name="s", digest="a"), 0)
    epoch = learning.epoch
    learning.hear(StackRef(name="s", digest="b"), 4 * DAY_MS)
    assert learning.epoch == epoch + 1
    assert learning.at(5 * DAY_MS)
    assert learning.stack == StackRef(name="s", digest="b")


def test_two_stacks_speaking_at_once_start_learning_once():
    learning = Learning(3 * DAY_MS)
    a, b = StackRef(name="s", digest="a"), StackRef(name="s", digest="b")
    learning.hear(a, 0)
    for hour in range(8):
        learning.hear(b, hour * HOUR_MS)
        learning.hear(a, hour * HOUR_MS)
    assert learning.epoch == 2
    assert learning.since_ms == 0


def test_a_stack_not_heard_for_a_day_is_new_when_it_returns():
    learning = Learning(3 * DAY_MS)
    a, b = StackRef(name="s", digest="a"), StackRef(name="s", digest="b")
    learning.hear(a, 0)
    learning.hear(b, DAY_MS // 2)
    learning.hear(a, 2 * DAY_MS)
    assert learning.epoch == 3
    assert learning.since_ms == 2 * DAY_MS
