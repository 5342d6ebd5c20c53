"""Plans of faults: the same from the same seed, and every step in the midst of work."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .plan import TARGETS, Fault, Kind, Step, plan_faults

FULL = {Kind.sigkill: 20, Kind.rebalance: 20, Kind.broker: 5, Kind.zombie: 5}

counts = st.fixed_dictionaries({kind: st.integers(0, 20) for kind in Kind})


def steps_of(plan: tuple[Fault, ...]) -> list[Step]:
    return [step for fault in plan for step in (fault.strike, fault.mend)]


@given(st.integers(), counts, st.integers(0, 100_000))
def test_every_step_meets_records_that_are_fed_and_not_yet_committed_and_some_stay_for_the_end(
    seed: int, faults: dict[Kind, int], more: int
) -> None:
    records = (2 * sum(faults.values()) + 1) * 100 + more
    steps = steps_of(plan_faults(seed, faults, records))
    assert all(step.at < step.fed < records for step in steps)
    assert all(before.fed < after.at < after.fed for before, after in itertools.pairwise(steps))


@given(st.integers(), counts)
def test_faults_are_as_many_as_asked_for(seed: int, faults: dict[Kind, int]) -> None:
    plan = plan_faults(seed, faults, 100_000)
    assert {kind: sum(fault.kind is kind for fault in plan) for kind in Kind} == faults


@given(st.integers())
def test_each_possible_target_of_a_kind_is_hit_before_one_is_hit_again(seed: int) -> None:
    plan = plan_faults(seed, {kind: len(targets) for kind, targets in TARGETS.items()}, 100_000)
    for kind, targets in TARGETS.items():
        assert sorted(fault.target for fault in plan if fault.kind is kind) == sorted(targets)


@given(st.integers())
def test_a_plan_follows_from_its_seed(seed: int) -> None:
    assert plan_faults(seed, FULL, 100_000) == plan_faults(seed, FULL, 100_000)
    assert plan_faults(seed, FULL, 100_000) != plan_faults(seed + 1, FULL, 100_000)


def test_workers_are_killed_in_transactions_and_become_zombies_between_them_and_in_them_by_turns() -> None:
    plan = plan_faults(0, FULL, 100_000)
    assert all(fault.in_transaction for fault in plan if fault.kind is Kind.sigkill)
    assert sum(fault.in_transaction for fault in plan if fault.kind is Kind.zombie) == 2


def test_too_few_records_for_the_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="10099 records are too few for 50 faults: 10100 are needed"):
        plan_faults(0, FULL, 10_099)
