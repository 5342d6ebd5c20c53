"""A worker stops before it has written more dead letters than it may, and says what they are."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import DeadLetter, InputRef
from worker.breaker import Breaker, BreakerRules
from worker.errors import Misconfigured

RULES = BreakerRules(window_records=20, max_share=0.5, min_letters=5)


def letter(kind: str = "json", offset: int = 7) -> DeadLetter:
    return DeadLetter(
        input=InputRef(topic="news.raw", partition=2, offset=offset),
        timestamp_ms=0,
        kind=kind,
        reason="line 1 is no JSON",
        failed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def trips_at(units: Sequence[Sequence[bool]], rules: BreakerRules) -> int | None:
    """The number of the unit that trips it; records are told by whether they died."""
    breaker = Breaker(rules)
    for number, unit in enumerate(units):
        try:
            breaker.watch([letter() if died else None for died in unit])
        except Misconfigured:
            return number
    return None


def test_it_names_the_share_the_commonest_kind_an_example_and_what_to_do():
    breaker = Breaker(RULES)
    breaker.watch([None] * 3)
    with pytest.raises(Misconfigured) as caught:
        breaker.watch([letter("schema"), *[letter("json", offset) for offset in range(10, 20)]])
    message = str(caught.value)
    assert "5 of the last 8 records became dead letters (62%, above dead_letters.max_share = 0.5)" in message
    assert "4 of them of the kind 'json', such as news.raw-2-13: line 1 is no JSON" in message
    assert "input.format" in message
    assert "stacknorm-worker dlq list" in message


def test_few_letters_and_a_share_that_is_allowed_pass():
    assert trips_at([[True] * 4], RULES) is None
    assert trips_at([[False, True] * 50], RULES) is None


def test_what_lies_further_back_than_the_window_no_longer_counts():
    rules = BreakerRules(window_records=10, max_share=0.5, min_letters=6)
    assert trips_at([[True] * 5, [False] * 10, [True] * 5], rules) is None
    assert trips_at([[True] * 5, [False] * 4, [True] * 5], rules) == 2


def test_a_share_of_nought_turns_it_off():
    assert trips_at([[True] * 1000], BreakerRules(max_share=0)) is None


def test_after_a_restart_it_trips_again_on_the_same_input():
    bad = [[True] * 10] * 3
    assert trips_at(bad, RULES) == trips_at(bad, RULES) == 0


@given(
    st.lists(st.booleans(), max_size=80),
    st.lists(st.integers(1, 30), min_size=1),
    st.integers(5, 20),
    st.sampled_from([0.2, 0.5, 0.9]),
)
def test_it_trips_at_the_first_record_where_the_rule_holds_however_units_are_cut(died, sizes, window, share):
    rules = BreakerRules(window_records=window, max_share=share, min_letters=5)
    windows = [died[max(0, end - window) : end] for end in range(1, len(died) + 1)]
    holds = [sum(each) >= rules.min_letters and sum(each) / len(each) > share for each in windows]
    units, numbers, start = [], [], 0
    while start < len(died):
        size = sizes[len(units) % len(sizes)]
        units.append(died[start : start + size])
        numbers += [len(units) - 1] * len(units[-1])
        start += size
    assert trips_at(units, rules) == (numbers[holds.index(True)] if any(holds) else None)
