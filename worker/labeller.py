"""Items -> labelled events and dead letters, one unit at a time. Pure, given an engine; runs off the event loop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from pydantic import ValidationError

from schemas.events import DeadLetter, Entity, InputRef, LabelledEvent, NewsItem, Sentiment, StackRef, Topic
from stacknorm.errors import StacknormError
from stacknorm.prediction import EntityPrediction, Prediction, StackIdentity, TaskPrediction
from worker import codec
from worker.codec import InputRules
from worker.errors import Fatal, Misconfigured, Rejected
from worker.records import Record
from worker.units import Unit

CANARY = "Shares rose after the company raised its outlook."
BEST_TOPICS = 5
MAX_REASON_CHARS = 500
ENTITY_TASK = "entity-sentiment"
"""The task whose answers are the sentiment of an event's entities, where a stack has it."""
MODEL_ERRORS = (ArithmeticError, LookupError, RuntimeError, StacknormError, TypeError, ValueError)


class Engine(Protocol):
    """What labels texts: ``stacknorm.engine.Engine``, or a fake."""

    @property
    def identity(self) -> StackIdentity:
        """Name and digest of the stack."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Primary language tags the stack knows."""

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        """One prediction for each text, in order; a name means what it did on the text's day."""


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """What a run of one partition became. ``clock_ms`` is the partition's clock after it."""

    next_offset: int
    clock_ms: int | None
    events: tuple[LabelledEvent, ...]
    dead: tuple[DeadLetter, ...]

    @property
    def outcomes(self) -> list[DeadLetter | None]:
        """In the order of the records, what became of each that held an item: a dead letter, or None for an event."""
        made: list[LabelledEvent | DeadLetter] = [*self.events, *self.dead]
        made.sort(key=lambda each: each.input.offset)
        return [each if isinstance(each, DeadLetter) else None for each in made]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record that holds an item, and what is known of it before the stack speaks."""

    record: Record
    item: NewsItem
    received_ms: int
    clock_ms: int
    abstain_because: str | None

    @property
    def text(self) -> str:
        return f"{self.item.title} {self.item.body}" if self.item.body else self.item.title

    @property
    def day(self) -> date:
        return (self.item.published_at or codec.to_instant(self.received_ms)).date()


def check_engine(engine: Engine) -> None:
    """Let the engine label a plain sentence, so that a stack that does not fit stops the start.

    Raises:
        Misconfigured: the stack lacks a task or a label that events have, or one of its members fails.
    """
    (prediction,) = engine.predict([CANARY])
    try:
        _sentiment(prediction.tasks["sentiment"])
        _topic(prediction.tasks["topic"])
    except (KeyError, ValidationError) as error:
        raise Misconfigured(
            f"stack {engine.identity.name!r} does not fit: events have a task `sentiment` with the labels negative, "
            f"neutral and positive, and a task `topic`; {error}"
        ) from error
    if prediction.degraded:
        raise Misconfigured(
            f"member {', '.join(prediction.dropped)} of stack {engine.identity.name!r} fails on a plain sentence"
        )


def label_unit(
    unit: Unit, clocks_ms: Mapping[int, int | None], engine: Engine, rules: InputRules, now: datetime
) -> dict[int, LabelledRun]:
    """Label the records of a unit.

    Args:
        unit: a run of each partition.
        clocks_ms: each partition's clock before its run.
        engine: called once with all texts of the unit; item by item if that fails.
        rules: how raw records are read.
        now: wall time; no record is received later.

    Returns:
        By partition, events and dead letters in the order of the records.

    Raises:
        Fatal: the engine fails on a plain sentence too, so it is not the data.
    """
    read = {
        partition: _read_run(run.records, clocks_ms.get(partition), engine, rules, now)
        for partition, run in unit.runs.items()
    }
    asked = [entry for entries, _, _ in read.values() for entry in entries if entry.abstain_because is None]
    answers, attempts = _predict(engine, asked)
    verdicts = iter(answers)
    keys = iter(codec.similarity_keys([entry.item for entries, _, _ in read.values() for entry in entries]))
    stack = StackRef(name=engine.identity.name, digest=engine.identity.digest)
    labelled = {}
    for partition, (entries, dead, clock_ms) in read.items():
        events = []
        for entry in entries:
            verdict = None if entry.abstain_because else next(verdicts)
            try:
                events.append(_make_event(entry, verdict, next(keys), stack, now))
            except Rejected as rejected:
                dead.append(codec.make_dead_letter(entry.record, rejected, now, attempts))
        dead.sort(key=lambda letter: letter.input.offset)
        labelled[partition] = LabelledRun(unit.runs[partition].next_offset, clock_ms, tuple(events), tuple(dead))
    return labelled


def advance_clock(clock_ms: int | None, timestamp_ms: int, now_ms: int) -> int | None:
    """The partition's clock after a record: never falls, never ahead of now; a record without timestamp leaves it."""
    if timestamp_ms < 0:
        return clock_ms
    received_ms = min(timestamp_ms, now_ms)
    return received_ms if clock_ms is None else max(clock_ms, received_ms)


def _read_run(
    records: Sequence[Record], clock_ms: int | None, engine: Engine, rules: InputRules, now: datetime
) -> tuple[list[_Entry], list[DeadLetter], int | None]:
    now_ms = codec.to_ms(now)
    entries: list[_Entry] = []
    dead: list[DeadLetter] = []
    for record in records:
        clock_ms = advance_clock(clock_ms, record.timestamp_ms, now_ms)
        if codec.is_heartbeat(record):
            continue
        try:
            item = codec.decode_item(record, rules)
        except Rejected as rejected:
            dead.append(codec.make_dead_letter(record, rejected, now))
            continue
        clock_ms = now_ms if clock_ms is None else clock_ms
        received_ms = clock_ms if record.timestamp_ms < 0 else min(record.timestamp_ms, now_ms)
        entries.append(_Entry(record, item, received_ms, clock_ms, _why_abstain(item, engine.languages)))
    return entries, dead, clock_ms


def _why_abstain(item: NewsItem, languages: Sequence[str]) -> str | None:
    if not (item.title.strip() or (item.body or "").strip()):
        return "the item has no text"
    if item.language and item.language.split("-")[0].lower() not in languages:
        return f"language {item.language!r} is not one the stack knows ({', '.join(languages)})"
    return None


def _predict(engine: Engine, entries: Sequence[_Entry]) -> tuple[list[Prediction | Rejected], int]:
    """What the engine says of each, and how often it was asked: with all others, and once more alone if that failed."""
    if not entries:
        return [], 1
    try:
        return list(_predict_all(engine, entries)), 1
    except MODEL_ERRORS as error:
        _check_canary(engine, error)
        return [_predict_alone(engine, entry) for entry in entries], 2


def _predict_all(engine: Engine, entries: Sequence[_Entry]) -> list[Prediction]:
    predictions = engine.predict([entry.text for entry in entries], days=[entry.day for entry in entries])
    if len(predictions) != len(entries):
        raise Fatal(f"batch of {len(entries)} texts gave {len(predictions)} predictions")
    return predictions


def _check_canary(engine: Engine, cause: Exception) -> None:
    try:
        engine.predict([CANARY])
    except MODEL_ERRORS as error:
        raise Fatal(f"the stack {engine.identity.name!r} fails on a plain sentence: {error}") from cause


def _predict_alone(engine: Engine, entry: _Entry) -> Prediction | Rejected:
    try:
        return _predict_all(engine, [entry])[0]
    except MODEL_ERRORS as error:
        return _model_rejection(error)


def _model_rejection(error: Exception) -> Rejected:
    return Rejected("model", f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])


def _make_event(
    entry: _Entry, verdict: Prediction | Rejected | None, similarity_key: str, stack: StackRef, labelled_at: datetime
) -> LabelledEvent:
    """The event of an item.

    Raises:
        Rejected: the engine could not read it, or has said what no event can hold.
    """
    if isinstance(verdict, Rejected):
        raise verdict
    try:
        return _fill_event(entry, verdict, similarity_key, stack, labelled_at)
    except MODEL_ERRORS as error:
        raise _model_rejection(error) from error


def _fill_event(
    entry: _Entry, prediction: Prediction | None, similarity_key: str, stack: StackRef, labelled_at: datetime
) -> LabelledEvent:
    record, item = entry.record, entry.item
    source = item.source or record.topic
    because = prediction.abstained_because if prediction else entry.abstain_because
    return LabelledEvent(
        event_id=codec.event_id(record),
        item_id=codec.identify(item, source),
        title=item.title,
        url=item.url,
        source=source,
        published_at=item.published_at,
        received_at=codec.to_instant(entry.received_ms),
        clock=codec.to_instant(entry.clock_ms),
        labelled_at=labelled_at,
        sentiment=_sentiment(prediction.tasks["sentiment"]) if prediction and not because else None,
        topic=_topic(prediction.tasks["topic"]) if prediction and not because else None,
        entities=_entities(item, prediction.entities if prediction else ()),
        status=item.status,
        revision=item.revision,
        supersedes=item.supersedes,
        similarity_key=similarity_key,
        abstained=because is not None,
        abstained_because=because,
        degraded=prediction is not None and prediction.degraded,
        stack=stack,
        input=InputRef(topic=record.topic, partition=record.partition, offset=record.offset),
    )


def _sentiment(task: TaskPrediction) -> Sentiment:
    return _sentiment_of(task.probabilities, task.entropy, task.disagreement)


def _sentiment_of(probabilities: Mapping[str, float], entropy: float, disagreement: float) -> Sentiment:
    return Sentiment.model_validate(
        {
            "label": max(probabilities, key=probabilities.__getitem__),
            "score": probabilities["positive"] - probabilities["negative"],
            "probabilities": dict(probabilities),
            "entropy": entropy,
            "disagreement": disagreement,
        }
    )


def _entities(item: NewsItem, said: Sequence[EntityPrediction]) -> tuple[Entity, ...]:
    """What the stack found in the text, each once with the mean of its mentions, then the symbols it did not find.

    A stack that says nothing of entities leaves them to the item's symbols and the cashtags in its text.
    """
    if not said:
        return codec.find_entities(item)
    mentions: dict[tuple[str, str], list[TaskPrediction]] = {}
    for mention in said:
        mentions.setdefault((mention.scheme, mention.entity), []).append(mention.tasks[ENTITY_TASK])
    found = [Entity(id=name, scheme=scheme, sentiment=_mean(tasks)) for (scheme, name), tasks in mentions.items()]
    listed = [Entity(id=symbol, scheme="symbol") for symbol in codec.listed_symbols(item)]
    return (*found, *(entity for entity in listed if (entity.scheme, entity.id) not in mentions))


def _mean(tasks: Sequence[TaskPrediction]) -> Sentiment:
    """The sentiment of several mentions of one entity."""
    shares = {label: sum(task.probabilities[label] for task in tasks) / len(tasks) for label in tasks[0].probabilities}
    unsure = -sum(share * math.log(share) for share in shares.values() if share > 0)
    return _sentiment_of(shares, unsure, sum(task.disagreement for task in tasks) / len(tasks))


def _topic(task: TaskPrediction) -> Topic:
    best = sorted(task.probabilities.items(), key=lambda pair: -pair[1])[:BEST_TOPICS]
    return Topic(label=task.label, probabilities=dict(best))
