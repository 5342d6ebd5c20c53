from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import KeyType, StackRef
from worker.surge.baseline import DAY_MS, HOUR_MS
from worker.surge.exposure import FLAT, HOURS, WHOLE, Exposure, Exposures, Profile
from worker.surge.learning import Learning
from worker.surge.rules import Profiles

CLOCKS = st.integers(0, 4 * 10**12)
WEEK_MS = 7 * DAY_MS


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any profile: thousandths moved between pairs of hours of a flat one."""
    weights = [WHOLE] * HOURS
    hours = st.integers(0, HOURS - 1)
    for taker, giver in draw(st.lists(st.tuples(hours, hours), max_size=40)):
        moved = draw(st.integers(0, weights[giver] - 1))
        weights[giver] -= moved
        weights[taker] += moved
    return Profile(tuple(weights))


def day_and_night(low: int = 200) -> Profile:
    """Twelve quiet hours, then twelve busy ones, every day."""
    return Profile(((low,) * 12 + (2 * WHOLE - low,) * 12) * 7)


@given(CLOCKS)
def test_a_flat_profile_is_the_clock(clock_ms):
    assert FLAT.exposure_ms(clock_ms) - FLAT.exposure_ms(0) == clock_ms
    assert FLAT.clock_ms(FLAT.exposure_ms(clock_ms) + 12_345) == clock_ms + 12_345


@given(profiles(), CLOCKS)
def test_a_full_week_is_a_week_of_exposure_wherever_it_begins(profile, clock_ms):
    assert profile.exposure_ms(clock_ms + WEEK_MS) - profile.exposure_ms(clock_ms) == WEEK_MS


@given(profiles(), CLOCKS, st.integers(-DAY_MS, 3 * WEEK_MS))
def test_a_clock_is_the_first_at_which_its_exposure_is_reached(profile, clock_ms, exposure_ms):
    reached_ms = profile.clock_ms(profile.exposure_ms(clock_ms) + exposure_ms)
    target_ms = profile.exposure_ms(clock_ms) + exposure_ms
    assert profile.exposure_ms(reached_ms) >= target_ms > profile.exposure_ms(reached_ms - 1)


@given(profiles(), CLOCKS)
def test_the_clock_of_an_exposure_has_it_to_the_millisecond(profile, clock_ms):
    exposure_ms = profile.exposure_ms(clock_ms)
    assert profile.exposure_ms(profile.clock_ms(exposure_ms)) == exposure_ms


@given(profiles(), st.lists(CLOCKS, min_size=2, max_size=20).map(sorted))
def test_exposure_never_falls_and_adds_up_however_time_is_divided(profile, clocks_ms):
    exposure = Exposure(10**13, profile=profile)
    exposures_ms = [exposure.advance(clock_ms) for clock_ms in clocks_ms]
    assert all(before <= after for before, after in pairwise(exposures_ms))
    assert exposures_ms[-1] == profile.exposure_ms(clocks_ms[-1]) - profile.exposure_ms(clocks_ms[0])


def test_busy_hours_count_for_more_and_silence_for_nothing_beyond_its_limit():
    exposure = Exposure(6 * HOUR_MS, profile=day_and_night())
    monday_ms = 4 * DAY_MS
    exposure.advance(monday_ms + 10 * HOUR_MS)
    assert exposure.at(monday_ms + 12 * HOUR_MS) == 2 * HOUR_MS // 5
    assert exposure.at(monday_ms + 13 * HOUR_MS) == 11 * HOUR_MS // 5
    assert exposure.advance(monday_ms + 100 * HOUR_MS) == 38 * HOUR_MS // 5


@pytest.mark.parametrize(
    "weights", [(WHOLE,) * 167, (WHOLE,) * 167 + (WHOLE + 1,), (0,) + (WHOLE,) * 166 + (2 * WHOLE,)]
)
def test_a_profile_whose_mean_is_not_one_is_refused(weights):
    with pytest.raises(ValueError, match="168 whole thousandths of at least 1 and of 168000 in all"):
        Profile(weights)


def test_each_key_type_goes_by_its_own_profile_and_goes_on_from_where_it_was():
    shaped = Profiles(entity=day_and_night())
    exposures = Exposures(6 * HOUR_MS, shaped.of)
    for hour in range(100, 130, 3):
        exposures.advance(hour * HOUR_MS)
    entity_ms = exposures.of(KeyType.entity).total_ms
    assert exposures.flat.total_ms == exposures.of(KeyType.source).total_ms == 27 * HOUR_MS != entity_ms
    for profiles_now in (shaped, Profiles()):
        restored = Exposures(6 * HOUR_MS, profiles_now.of)
        restored.restore(exposures.flat.total_ms, exposures.flat.last_item_clock_ms, *exposures.others())
        assert restored.of(KeyType.entity).total_ms == entity_ms
        assert restored.of(KeyType.source).total_ms == exposures.flat.total_ms
        assert restored.others() == exposures.others()


def test_without_a_profile_nothing_is_kept_beside_the_flat_exposure():
    exposures = Exposures(6 * HOUR_MS, Profiles().of)
    exposures.advance(5)
    exposures.advance(50)
    assert exposures.others() == []


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
