"""The tally says what the verifier found, counts only faults that hit under load, and takes unknown for no success."""

from dataclasses import replace
from typing import Any

import pytest

from verify import Violation

from .plan import Fault, Kind, Step
from .tally import Hit, Report


def hit_of(kind: Kind, **others: Any) -> Hit:
    fault = Fault(kind, "labeller", True, 0.0, Step(2, 1), Step(4, 3))
    return replace(Hit(fault, "labeller-1", 40, 30, True, 7.0), **others)


@pytest.fixture
def good() -> Report:
    return Report(
        seed=7,
        planned={Kind.sigkill: 2, Kind.zombie: 1},
        hits=[hit_of(Kind.sigkill), hit_of(Kind.sigkill, recovery_seconds=9.0), hit_of(Kind.zombie)],
        inputs=2000,
        alerts=12,
        violations=(),
        unfinished={},
        exit_statuses={"labeller-2": 0},
    )


def test_a_success_has_no_reason_against_it_and_its_tally_says_so(good: Report) -> None:
    assert list(good.find_faults()) == []
    assert good.tally == (
        "records 2000 lost 0 duplicated 0 alerts-equal yes "
        "faults {'sigkill': 2, 'rebalance': 0, 'broker': 0, 'zombie': 1}"
    )


def test_the_line_before_tells_seed_and_recovery_of_each_kind(good: Report) -> None:
    assert good.recoveries.startswith("seed 7 recovery seconds: sigkill median 8.0 max 9.0, zombie median 7.0 max 7.0;")


def test_lost_and_duplicated_events_and_dead_letters_are_counted(good: Report) -> None:
    lost = [Violation("lost", "labelled t.raw-0@1"), Violation("lost", "dead letter t.raw-0@2")]
    bad = replace(good, violations=[*lost, Violation("duplicated", "labelled t.raw-0@3, 2 times")])
    assert bad.tally.startswith("records 2000 lost 2 duplicated 1 alerts-equal yes ")
    assert list(bad.find_faults()) == [str(violation) for violation in bad.violations]


@pytest.mark.parametrize("what", ["lost", "duplicated", "altered", "foreign", "disordered"])
def test_anything_wrong_with_an_alert_makes_alerts_unequal_and_is_no_lost_record(good: Report, what: str) -> None:
    bad = replace(good, violations=[Violation(what, "alert 12ab of symbol:NORD revision 3")])
    assert bad.tally.startswith("records 2000 lost 0 duplicated 0 alerts-equal no ")
    assert list(bad.find_faults())


@pytest.mark.parametrize("left", [{"left_at_strike": 0}, {"left_at_mend": 0}])
def test_a_fault_that_met_no_work_is_neither_counted_nor_a_success(good: Report, left: dict[str, int]) -> None:
    bad = replace(good, hits=[*good.hits[:2], hit_of(Kind.zombie, **left)])
    assert bad.tally.endswith("'zombie': 0}")
    assert list(bad.find_faults()) == ["0 of 1 faults of kind zombie hit under load"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alerts": 0},
        {"inputs": 0},
        {"unfinished": {"transactions": ["t-labeller-1"]}},
        {"exit_statuses": {"labeller-2": 1}},
        {"violations": [Violation("altered", "labelled t.raw-0@1 in sentiment")]},
        {"hits": [hit_of(Kind.sigkill)] * 2 + [hit_of(Kind.zombie, recovery_seconds=121.0)]},
    ],
)
def test_whatever_else_is_wrong_is_no_success(good: Report, wrong: dict[str, Any]) -> None:
    assert len(list(replace(good, **wrong).find_faults())) == 1


def test_no_alert_to_compare_is_not_called_equal(good: Report) -> None:
    assert "alerts-equal no" in replace(good, alerts=0).tally
