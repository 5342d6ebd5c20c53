from random import Random

from hypothesis import given
from hypothesis import strategies as st

from worker.surge.places import NOWHERE, SMALLEST, Places

NUMBERS = st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.tuples(st.booleans(), NUMBERS)))
def test_it_is_a_dictionary(steps):
    places, expected = Places(), {}
    for place, (put, number) in enumerate(steps, 1):
        if put:
            places.put(number, place)
            expected[number] = place
        else:
            places.remove(number)
            expected.pop(number, None)
        assert len(places) == len(expected)
    for _, number in steps:
        assert places.find(number) == expected.get(number, NOWHERE)


def test_it_is_one_while_it_grows_and_wraps_and_numbers_stand_close():
    random, places, expected = Random(4), Places(), {}
    for place in range(1, 40 * SMALLEST):
        number = random.randrange(-(2**63), 2**63) if place % 2 else random.randrange(8 * SMALLEST)
        if number in expected:
            places.remove(number)
            del expected[number]
        else:
            places.put(number, place)
            expected[number] = place
        if place % 3 == 0:
            number = next(iter(expected))
            places.remove(number)
            del expected[number]
    assert len(places) == len(expected) > 4 * SMALLEST
    assert all(places.find(number) == place for number, place in expected.items())
