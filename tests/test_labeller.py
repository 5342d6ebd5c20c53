"""Every record of a unit becomes an event, a dead letter or a tick of the clock, in order, whatever the engine does."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.prediction import EntityPrediction, Prediction, TaskPrediction
from worker.codec import HEARTBEAT_HEADER, InputRules, to_ms
from worker.deterministic import DeterministicEngine
from worker.errors import Fatal, Misconfigured
from worker.labeller import CANARY, ENTITY_TASK, LabelledRun, advance_clock, check_engine, label_unit
from worker.records import Record
from worker.units import Run, Unit

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
NOW_MS = to_ms(NOW)


class Picky(DeterministicEngine):
    """Fails on every batch that holds a text with one of these words."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self._words = words

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        for text in texts:
            if any(word in text for word in self._words):
                raise RuntimeError(f"cannot read {text!r}")
        return super().predict(texts)


class Forgetful(DeterministicEngine):
    """Loses the last text."""

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        return super().predict(texts)[:-1]


def raw(offset: int, timestamp_ms: int = NOW_MS - 1000, value: bytes | None = None, headers=(), **item) -> Record:
    return Record("news.raw", 0, offset, timestamp_ms, None, orjson.dumps(item) if item else value, headers)


def label(*records: Record, engine=None, clock_ms: int | None = None) -> LabelledRun:
    unit = Unit({0: Run(records)})
    return label_unit(unit, {0: clock_ms}, engine or DeterministicEngine(), InputRules(), NOW)[0]


def test_an_event_carries_the_item_its_labels_and_its_coordinates():
    run = label(raw(7, id="a", title="$HRVL slides", body="Deposits leave.", source="Wire", symbols=["hrvl"]))
    (event,) = run.events
    assert (event.event_id, event.item_id, event.source) == ("news.raw-0-7", "a", "Wire")
    assert event.stack.name == "deterministic"
    assert event.sentiment is not None
    assert event.sentiment.score == pytest.approx(
        event.sentiment.probabilities["positive"] - event.sentiment.probabilities["negative"]
    )
    assert [entity.id for entity in event.entities] == ["HRVL"]
    assert run.next_offset == 8


def test_poison_between_good_records_is_a_dead_letter_and_the_rest_is_labelled():
    run = label(raw(1, title="a"), raw(2, value=b"{"), raw(3, title="b"))
    assert [event.input.offset for event in run.events] == [1, 3]
    assert [(letter.input.offset, letter.kind, letter.value) for letter in run.dead] == [(2, "json", b"{")]


def test_one_text_that_the_engine_cannot_take_does_not_sink_its_neighbours():
    run = label(
        raw(1, title="fine"), raw(2, title="cursed"), raw(3, value=b"{"), raw(4, title="good"), engine=Picky("cursed")
    )
    assert [event.title for event in run.events] == ["fine", "good"]
    assert [(letter.input.offset, letter.kind, letter.attempts) for letter in run.dead] == [
        (2, "model", 2),
        (3, "json", 1),
    ]


def test_a_text_is_tried_with_its_unit_and_once_more_alone_and_then_no_more():
    asked: list[str] = []

    class Listening(Picky):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            asked.extend(texts)
            return super().predict(texts)

    run = label(raw(1, title="fine"), raw(2, title="cursed"), engine=Listening("cursed"))
    assert (asked.count("cursed"), asked.count("fine"), asked.count(CANARY)) == (2, 2, 1)
    assert [letter.attempts for letter in run.dead] == [2]
    (letter,) = label(raw(1, title="cursed"), engine=Picky("cursed")).dead
    assert letter.attempts == 2


def test_an_answer_that_no_event_can_hold_is_the_dead_letter_of_its_item_alone():
    class Odd(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            return [
                replace(prediction, tasks={}) if text == "odd" else prediction
                for text, prediction in zip(texts, super().predict(texts), strict=True)
            ]

    run = label(raw(1, title="fine"), raw(2, title="odd"), raw(3, title="good"), engine=Odd())
    assert [event.title for event in run.events] == ["fine", "good"]
    assert [(each.kind, each.attempts, each.reason) for each in run.dead] == [("model", 1, "KeyError: 'sentiment'")]


def test_a_dead_letter_of_the_stack_carries_the_record_whole():
    record = replace(raw(9, NOW_MS - 77, title="cursed"), key=b"\x01", headers=(("trace", b"\xfe"), ("none", None)))
    (letter,) = label(record, engine=Picky("cursed")).dead
    assert (letter.key, letter.value, letter.headers) == (record.key, record.value, record.headers)
    assert (letter.input.topic, letter.input.partition, letter.input.offset) == ("news.raw", 0, 9)
    assert (letter.timestamp_ms, letter.failed_at, letter.kind) == (NOW_MS - 77, NOW, "model")
    assert letter.reason == "RuntimeError: cannot read 'cursed'"


def test_outcomes_are_told_in_the_order_of_the_records_without_heartbeats():
    run = label(
        raw(1, value=b"{"), raw(2, title="a"), raw(3, headers=((HEARTBEAT_HEADER, b"1"),)), raw(4, title="cursed"),
        engine=Picky("cursed"),
    )  # fmt: skip
    assert [outcome and outcome.kind for outcome in run.outcomes] == ["json", None, "model"]


def test_an_engine_that_fails_on_a_plain_sentence_is_fatal():
    with pytest.raises(Fatal, match="fails on a plain sentence"):
        label(raw(1, title="a"), engine=Picky(""))


def test_a_prediction_too_few_is_fatal():
    with pytest.raises(Fatal, match="batch of 2 texts gave 1 predictions"):
        label(raw(1, title="a"), raw(2, title="b"), engine=Forgetful())


def test_a_language_the_stack_does_not_know_is_abstained_not_guessed():
    (german, british) = label(
        raw(1, title="Aktien fallen", language="de"), raw(2, title="Shares fall", language="en-GB")
    ).events
    assert german.abstained_because == "language 'de' is not one the stack knows (en)"
    assert german.sentiment is None
    assert not british.abstained


def test_a_withdrawn_item_without_text_is_abstained():
    (event,) = label(raw(1, id="a", status="withdrawn")).events
    assert event.abstained_because == "the item has no text"


def test_a_heartbeat_moves_the_clock_and_makes_no_event():
    run = label(raw(1, NOW_MS - 5000, title="a"), raw(2, NOW_MS - 9, headers=((HEARTBEAT_HEADER, b"1"),)))
    assert len(run.events) == 1
    assert run.clock_ms == NOW_MS - 9


def test_the_clock_never_falls_and_a_record_without_time_leaves_it():
    run = label(raw(1, NOW_MS - 10, title="a"), raw(2, NOW_MS - 99, title="b"), raw(3, -1, title="c"), clock_ms=5)
    assert [to_ms(event.clock) - NOW_MS for event in run.events] == [-10, -10, -10]
    assert [to_ms(event.received_at) - NOW_MS for event in run.events] == [-10, -99, -10]


def test_a_producer_ahead_of_time_is_clamped_to_now():
    (event,) = label(raw(1, NOW_MS + 3_600_000, title="a")).events
    assert event.received_at == event.clock == NOW


def test_a_stack_with_other_labels_stops_the_start():
    class Bullish(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            bullish = TaskPrediction(
                "bullish", {"bearish": 0.1, "bullish": 0.9}, entropy=0.3, disagreement=0.0, margin=0.8
            )
            return [Prediction({"sentiment": bullish, "topic": bullish}) for _ in texts]

    check_engine(DeterministicEngine())
    with pytest.raises(Misconfigured, match="stack 'deterministic' does not fit"):
        check_engine(Bullish())


def test_a_stack_that_starts_degraded_stops_the_start():
    class Lame(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            return [replace(prediction, dropped=("mean-r16",)) for prediction in super().predict(texts)]

    with pytest.raises(Misconfigured, match="member mean-r16 of stack 'deterministic' fails on a plain sentence"):
        check_engine(Lame())


def test_an_event_says_that_a_member_is_missing_or_that_the_stack_abstained():
    class Unsure(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            whole, other = super().predict(texts)
            return [replace(whole, dropped=("second",)), replace(other, tasks={}, abstained_because="language 'de'")]

    first, second = label(raw(1, title="Gewinn"), raw(2, title="Verlust"), engine=Unsure()).events
    assert first.degraded
    assert not first.abstained
    assert second.abstained_because == "language 'de'"
    assert second.sentiment is None


def test_entities_carry_their_own_sentiment_and_symbols_that_no_text_names_come_without():
    def stance(label: str, start: int, scheme: str = "symbol", entity: str = "ACME") -> EntityPrediction:
        shares = {"negative": 0.1, "neutral": 0.1, "positive": 0.1} | {label: 0.8}
        return EntityPrediction(
            scheme, entity, start, start + 4, {ENTITY_TASK: TaskPrediction(label, shares, 0.6, 0.1, 0.7)}
        )

    class Entities(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            said = (stance("negative", 0), stance("positive", 9), stance("negative", 20, "authority", "Central Bank"))
            return [replace(prediction, entities=said) for prediction in super().predict(texts)]

    item = raw(1, title="Acme and $ACME, says the Central Bank", symbols=["acme", "XYZ"])
    (event,) = label(item, engine=Entities()).events
    acme, bank, listed = event.entities
    assert (acme.id, acme.scheme, acme.sentiment.score) == ("ACME", "symbol", 0)
    assert (bank.id, bank.scheme, bank.sentiment.label) == ("Central Bank", "authority", "negative")
    assert (listed.id, listed.sentiment) == ("XYZ", None)


def test_names_are_read_as_of_the_day_an_item_was_published_or_else_received():
    asked: list[date] = []

    class Dated(DeterministicEngine):
        def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
            asked.extend(days or ())
            return super().predict(texts)

    old = raw(1, title="$FB falls", published_at="2019-07-01T23:00:00+00:00")
    label(old, raw(2, title="$META falls"), engine=Dated())
    assert asked == [date(2019, 7, 1), NOW.date()]


@given(st.lists(st.integers(-1, NOW_MS + 10_000)), st.none() | st.integers(0, NOW_MS))
def test_clocks_are_ordered_and_never_ahead_of_now(timestamps, clock_ms):
    clocks = []
    for timestamp_ms in timestamps:
        clock_ms = advance_clock(clock_ms, timestamp_ms, NOW_MS)
        clocks.append(clock_ms)
    known = [clock for clock in clocks if clock is not None]
    assert known == sorted(known)
    assert all(clock <= NOW_MS for clock in known)
