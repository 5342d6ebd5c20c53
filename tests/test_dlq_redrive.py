"""Letters go to the raw topic once, whatever fails between and however often it is asked for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from schemas.events import DeadLetter
from worker.codec import make_dead_letter
from worker.dlq.letters import REDRIVEN_HEADER, Letter, Selection, decode_letter, parse_condition
from worker.dlq.redrive import Fate, RedriveRules, Tally, decide, redrive
from worker.dlq.sending import oldest_kept_ms
from worker.dlq.tables import render_tally
from worker.errors import Fenced, Rejected, WorkerError
from worker.records import OutRecord, Record
from worker.topics import DAY_MS, HOUR_MS, TopicState

NOW = datetime(2026, 3, 5, tzinfo=UTC)
RULES = RedriveRules("news.dead", "news.raw", partitions=3)


def letter(offset: int = 7, kind: str = "json", **fields) -> Letter:
    raw = {"topic": "news.raw", "partition": 1, "timestamp_ms": 5, "key": b"k", "value": b"{"} | fields
    record = Record(offset=offset, **raw)
    return Letter(offset, make_dead_letter(record, Rejected(kind, "broken"), NOW, attempts=2))


@dataclass
class Topics:
    """A dead-letter topic and what is written to the raw one; the deliveries that are numbered in ``failing`` fail."""

    dead: list[DeadLetter]
    failing: dict[int, str] = field(default_factory=dict)
    raw: list[OutRecord] = field(default_factory=list)
    deliveries: int = 0

    def read(self) -> list[Letter]:
        return [Letter(offset, body) for offset, body in enumerate(self.dead)]

    async def letters(self) -> AsyncIterator[Letter]:
        for each in self.read():
            if not each.is_note:
                yield each

    async def deliver(self, records: Sequence[OutRecord]) -> None:
        how = self.failing.get(self.deliveries, "never")
        self.deliveries += 1
        if how == "before":
            raise Fenced("lost")
        for record in records:
            if record.topic == "news.dead":
                self.dead.append(DeadLetter.model_validate_json(record.value))
            else:
                self.raw.append(record)
        if how == "after":
            raise Fenced("the outcome is unknown")

    def redrive(self, *conditions: str, rules: RedriveRules = RULES, max_letters: int | None = None) -> Tally:
        tally = Tally()
        selection = Selection(tuple(map(parse_condition, conditions)))
        redriven = {each.identity for each in self.read() if each.is_note}
        asyncio.run(
            redrive(
                self.letters(),
                redriven,
                selection,
                rules,
                deliver=self.deliver,
                tally=tally,
                now=NOW,
                max_letters=max_letters,
            )
        )
        return tally


def test_the_raw_record_is_the_original_one_and_counts_the_redrives():
    headers = (("trace", b"\x01"), (REDRIVEN_HEADER, b"1"), ("none", None))
    topics = Topics([letter(headers=headers).body])
    topics.redrive(rules=RedriveRules("news.dead", "news.raw", 3, max_times=2))
    (record,) = topics.raw
    assert (record.topic, record.partition, record.key, record.value) == ("news.raw", 1, b"k", b"{")
    assert record.timestamp_ms == 5
    assert record.headers == (("trace", b"\x01"), ("none", None), (REDRIVEN_HEADER, b"2"))


def test_the_note_says_of_the_raw_record_that_it_was_sent_again():
    topics = Topics([letter(offset=41).body])
    topics.redrive()
    _, note = topics.read()
    assert note.is_note
    assert note.coordinates == "news.raw-1-41"
    assert note.body.reason == "the letter at offset 0, 'json', was sent to its partition again"
    assert decode_letter(Record("news.dead", 0, 1, 0, None, note.body.to_json())) == note


def test_a_letter_goes_once_however_often_it_is_asked_for():
    topics = Topics([letter(1).body, letter(2).body, letter(2).body])  # at least once: a letter may lie there twice
    assert topics.redrive().fates == {Fate.redriven: 2, Fate.already: 1}
    assert topics.redrive().fates == {Fate.already: 3}
    assert len(topics.raw) == 2


def test_a_topic_made_anew_has_other_records_at_the_same_offsets():
    topics = Topics([letter(1, timestamp_ms=5).body])
    topics.redrive()
    topics.dead.append(letter(1, timestamp_ms=6).body)
    assert topics.redrive().fates == {Fate.already: 1, Fate.redriven: 1}


def test_conditions_leave_holes_that_a_later_redrive_fills():
    topics = Topics([letter(n, kind).body for n, kind in enumerate(["json", "schema", "json", "schema"])])
    assert topics.redrive("kind=schema").fates == {Fate.redriven: 2}
    assert topics.redrive().fates == {Fate.redriven: 2, Fate.already: 2}


def test_max_bounds_what_is_sent_and_the_rest_goes_next_time():
    topics = Topics([letter(n).body for n in range(5)])
    assert [topics.redrive(max_letters=2).fates[Fate.redriven] for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("refused", "fate"),
    [
        (letter(headers=((REDRIVEN_HEADER, b"1"),)), Fate.exhausted),
        (letter(headers=((REDRIVEN_HEADER, b"many"),)), Fate.exhausted),
        (letter(value=None, key=None), Fate.lacking),
        (letter(topic="payments"), Fate.foreign),
        (letter(partition=3), Fate.foreign),
        (letter(timestamp_ms=99), Fate.expired),
    ],
)
def test_what_cannot_be_sent_is_refused_and_counted(refused, fate):
    rules = RedriveRules("news.dead", "news.raw", 3, oldest_ms=100)
    topics = Topics([refused.body, letter(8, timestamp_ms=100).body, letter(9, timestamp_ms=-1).body])
    tally = topics.redrive(rules=rules)
    assert tally.fates == {fate: 1, Fate.redriven: 2}
    assert tally.refused == 1
    assert [record.timestamp_ms for record in topics.raw] == [100, -1]


def test_the_summary_names_every_refusal_an_example_and_a_mend():
    tally = Tally()
    for fate in Fate:
        tally.add(fate, letter(headers=()))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_tally(tally, RULES, dry_run=True))
    text = capture.get()
    assert "would redrive 1 to news.raw; 1 redriven before; 4 refused" in text
    for mend in ("--max-times", "too large to keep", "not of news.raw with its 3 partitions", "retention.ms"):
        assert mend in text
    assert text.count("news.raw-1-7") == 4


def test_retention_decides_which_letters_would_be_deleted_again():
    def raw(**config: str) -> TopicState:
        return TopicState("news.raw", 3, 1, {name.replace("_", "."): value for name, value in config.items()})

    now_ms = 100 * DAY_MS
    assert oldest_kept_ms(raw(retention_ms=str(7 * DAY_MS)), now_ms) == 93 * DAY_MS + HOUR_MS
    assert oldest_kept_ms(raw(retention_ms="-1"), now_ms) is None
    appended = raw(retention_ms=str(DAY_MS), message_timestamp_type="LogAppendTime")
    assert oldest_kept_ms(appended, now_ms) is None


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from([1, 300_000, 900_000]), st.booleans()), max_size=12),
    st.dictionaries(st.integers(0, 12), st.sampled_from(["before", "after"])),
    st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=4),
)
def test_whatever_fails_between_every_letter_that_may_go_goes_once(drawn, failing, limits):
    values = {size: b"x" * size for _, size, _ in drawn}
    headers = {True: ((REDRIVEN_HEADER, b"1"),), False: ()}
    letters = [letter(offset, value=values[size], headers=headers[spent]).body for offset, size, spent in drawn]
    topics = Topics(list(letters), failing)
    certain: Counter[Fate] = Counter()
    for number in range(40):
        try:
            certain += topics.redrive(max_letters=limits[number % len(limits)]).fates
        except WorkerError:
            continue
    may_go = {(body.input.offset, body.value) for body in letters if not body.headers}
    sent = [record.key for record in topics.raw]
    assert len(sent) == len({offset for offset, _ in may_go})
    assert certain[Fate.redriven] <= len(sent)
    assert topics.redrive().fates[Fate.redriven] == 0


def test_deciding_asks_nothing_but_the_letter_the_notes_and_the_rules():
    assert decide(letter(), set(), RULES) is Fate.redriven
    assert decide(letter(), {letter().identity}, RULES) is Fate.already
