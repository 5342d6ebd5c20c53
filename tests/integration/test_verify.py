"""The verifier must see what it is there for: every kind of wrong output, and nothing wrong in right ones."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.events import Progress, StackRef
from verify import Marked, Outputs, Placed, Violation, detach, expect, find_violations
from worker.detector import run_through
from worker.deterministic import DeterministicEngine
from worker.surge.rules import Rules
from workload import make_workload

MUCH_LATER = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def expected() -> Outputs:
    return _expect("t1.raw")


@pytest.fixture(scope="module")
def elsewhere() -> Outputs:
    """Of the same headlines on another topic."""
    return _expect("another.raw")


def _expect(topic: str) -> Outputs:
    return expect(make_workload(topic).as_read(), DeterministicEngine(), Rules())


def _whats(violations: list[Violation]) -> list[str]:
    return [violation.what for violation in violations]


def test_trends_are_compared_where_they_are_read(expected: Outputs) -> None:
    told = tuple(
        trend.event
        for batch in run_through(Rules(), [placed.event for placed in expected.labelled[:20]], emitted_at=MUCH_LATER,
                                 run_out=True, trends=True)
        for trend in batch.trends
    )  # fmt: skip
    full = replace(expected, trends=told)
    altered = told[-1].model_copy(update={"n_copies": told[-1].n_copies + 1})
    assert _whats(find_violations(full, full)) == []
    assert _whats(find_violations(replace(full, trends=told[:-1]), full)) == ["lost"]
    assert _whats(find_violations(replace(full, trends=(*told[:-1], altered)), full)) == ["altered"]


def test_outputs_that_differ_in_wall_clocks_alone_are_right(expected: Outputs) -> None:
    later = {"labelled_at": MUCH_LATER, "emitted_at": MUCH_LATER, "failed_at": MUCH_LATER}
    found = Outputs(
        tuple(
            placed._replace(event=placed.event.model_copy(update=_only(later, placed.event)))
            for placed in expected.labelled
        ),
        tuple(letter.model_copy(update=_only(later, letter)) for letter in expected.dead),
        tuple(alert.model_copy(update=_only(later, alert)) for alert in expected.alerts),
    )
    assert found != expected
    assert find_violations(found, expected) == []


def _only(fields: dict[str, datetime], event: object) -> dict[str, datetime]:
    return {name: value for name, value in fields.items() if hasattr(event, name)}


def test_labelled_offsets_are_no_part_of_the_comparison(expected: Outputs) -> None:
    found = replace(expected, labelled=tuple(placed._replace(offset=placed.offset * 2) for placed in expected.labelled))
    assert find_violations(found, expected) == []


@pytest.mark.parametrize("kind", ["labelled", "dead", "alerts"])
def test_one_lost_output_among_thousands_is_named(expected: Outputs, kind: str) -> None:
    outputs = getattr(expected, kind)
    found = replace(expected, **{kind: (*outputs[:7], *outputs[8:])})
    assert _whats(find_violations(found, expected)) == ["lost"]


@pytest.mark.parametrize("kind", ["labelled", "dead", "alerts"])
def test_one_duplicated_output_is_named(expected: Outputs, kind: str) -> None:
    outputs = getattr(expected, kind)
    found = replace(expected, **{kind: (*outputs, outputs[7])})
    assert _whats(find_violations(found, expected)) == ["duplicated"]


@pytest.mark.parametrize("kind", ["labelled", "dead", "alerts"])
def test_an_output_made_of_no_input_is_named(expected: Outputs, elsewhere: Outputs, kind: str) -> None:
    found = replace(expected, **{kind: (*getattr(expected, kind), getattr(elsewhere, kind)[7])})
    assert _whats(find_violations(found, expected)) == ["foreign"]


def _alter_label(outputs: Outputs) -> Outputs:
    placed = outputs.labelled[7]
    assert placed.event.sentiment is not None
    sentiment = placed.event.sentiment.model_copy(update={"score": placed.event.sentiment.score + 1e-12})
    altered = placed._replace(event=placed.event.model_copy(update={"sentiment": sentiment}))
    return replace(outputs, labelled=(*outputs.labelled[:7], altered, *outputs.labelled[8:]))


def _alter_clock(outputs: Outputs) -> Outputs:
    first, *others = outputs.labelled
    clock = first.event.clock - timedelta(milliseconds=1)
    return replace(outputs, labelled=(first._replace(event=first.event.model_copy(update={"clock": clock})), *others))


def _alter_dead_bytes(outputs: Outputs) -> Outputs:
    first, *others = outputs.dead
    return replace(outputs, dead=(first.model_copy(update={"value": (first.value or b"") + b"\n"}), *others))


def _alter_dead_headers(outputs: Outputs) -> Outputs:
    first, *others = outputs.dead
    return replace(outputs, dead=(first.model_copy(update={"headers": (("more", b""),)}), *others))


def _alter_alert(outputs: Outputs) -> Outputs:
    *others, last = outputs.alerts
    return replace(outputs, alerts=(*others, last.model_copy(update={"n_total": last.n_total + 1})))


@pytest.mark.parametrize("alter", [_alter_label, _alter_clock, _alter_dead_bytes, _alter_dead_headers, _alter_alert])
def test_one_altered_field_is_named(expected: Outputs, alter: Callable[[Outputs], Outputs]) -> None:
    assert _whats(find_violations(alter(expected), expected)) == ["altered"]


def test_an_event_in_another_partition_is_named(expected: Outputs) -> None:
    first, *others = expected.labelled
    found = replace(expected, labelled=(first._replace(partition=first.partition + 1), *others))
    assert "misplaced" in _whats(find_violations(found, expected))


def test_dead_letters_of_different_partitions_come_in_any_order_and_those_of_one_in_theirs(expected: Outputs) -> None:
    by_partition = sorted(expected.dead, key=lambda letter: -letter.input.partition)
    assert find_violations(replace(expected, dead=tuple(by_partition)), expected) == []
    assert _whats(find_violations(replace(expected, dead=expected.dead[::-1]), expected)) == ["disordered"]


@pytest.mark.parametrize("kind", ["labelled", "alerts"])
def test_outputs_out_of_order_are_named(expected: Outputs, kind: str) -> None:
    first, second, *others = getattr(expected, kind)
    found = replace(expected, **{kind: (second, first, *others)})
    assert _whats(find_violations(found, expected)) == ["disordered"]


def test_no_outputs_at_all_are_as_many_losses_as_there_are_inputs(expected: Outputs) -> None:
    violations = find_violations(Outputs(), expected)
    assert set(_whats(violations)) == {"lost"}
    assert len(violations) == 2000 + 20 + len(expected.alerts)


def _mark(placed: Placed, clock: datetime) -> Marked:
    mark = Progress(
        partition=placed.partition,
        clock=clock,
        labelled_next_offset=placed.offset,
        raw_next_offset=placed.event.input.offset,
        lag=0,
        stack=StackRef(name="deterministic", digest=""),
    )
    return Marked(placed.partition, mark)


def test_a_mark_is_kept_up_to_the_clock_of_the_next_event_and_broken_above_it(expected: Outputs) -> None:
    placed = expected.labelled[100]
    kept = replace(expected, marks=(_mark(placed, placed.event.clock),))
    broken = replace(expected, marks=(_mark(placed, placed.event.clock + timedelta(milliseconds=1)),))
    assert find_violations(kept, expected) == []
    assert _whats(find_violations(broken, expected)) == ["broken"]


def test_runs_on_topics_of_their_own_are_equal_once_detached(expected: Outputs, elsewhere: Outputs) -> None:
    assert find_violations(elsewhere, expected) != []
    assert find_violations(detach(elsewhere), detach(expected)) == []


def test_detaching_leaves_ids_that_do_not_follow_from_the_inputs(expected: Outputs) -> None:
    first, *others = expected.labelled
    wrong = first._replace(event=first.event.model_copy(update={"event_id": "t1.raw-0-99999"}))
    found = replace(expected, labelled=(wrong, *others))
    assert _whats(find_violations(detach(found), detach(expected))) == ["altered"]
    *rest, last = expected.alerts
    found = replace(expected, alerts=(*rest, last.model_copy(update={"alert_id": "0" * 32})))
    assert _whats(find_violations(detach(found), detach(expected))) == ["foreign", "lost"]
