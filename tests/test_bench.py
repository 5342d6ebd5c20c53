# mypy: allow-untyped-calls
import json
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from bench.contest import Contender, Row, Sample, Spread, rank, run_rounds
from bench.detection import (
    BATCH,
    BEGIN,
    Detection,
    Load,
    Restored,
    Spent,
    Writer,
    compare_slices,
    measure,
    write_state,
)
from bench.labelling import Arrival, Watched
from bench.labelling import summarise as summarise_labelling
from bench.machine import look_at_machine
from bench.report import (
    Outcome,
    Report,
    compare_costs,
    render_costs,
    render_detections,
    render_outcome,
    render_throughputs,
)
from bench.rivals import Agreement, NotTheSame, compare, open_pipelines, require_parity, to_probabilities
from bench.texts import load_texts
from bench.throughput import Passage, Throughput, compare_guarantees, read_units
from bench.transactions import BURST
from bench.transactions import summarise as summarise_transactions
from schemas.events import InputRef, LabelledEvent, StackRef
from stacknorm.bundle import load_bundle
from stacknorm.engine import Engine
from stacknorm.labels import SENTIMENT
from stacknorm.text import clean_text
from tiny_bases import WORDS, member_spec, native_spec, write_base, write_stack

TEXTS = [" ".join(WORDS[start : start + 1 + start % 7]) for start in range(len(WORDS))]


def test_contenders_run_in_turn_after_all_have_warmed_up() -> None:
    calls: list[str] = []

    def contender(name: str) -> Contender:
        def run() -> Sample:
            calls.append(name)
            return Sample(10, 1.0, 2.0)

        return Contender(name, run, lambda: calls.append(f"warm {name}"))

    samples = run_rounds([contender("a"), contender("b")], 2, lambda _: None)
    assert calls == ["warm a", "warm b", "a", "b", "a", "b"]
    assert {name: len(runs) for name, runs in samples.items()} == {"a": 2, "b": 2}


def test_a_row_holds_medians_bounds_and_the_median_of_the_ratios_within_rounds() -> None:
    slow = [Sample(100, seconds, 1.0) for seconds in (10.0, 20.0, 5.0)]  # 10, 5, 20 a second
    fast = [Sample(100, seconds, 0.5) for seconds in (2.0, 5.0, 2.5)]  # 50, 20, 40 a second
    reference, row = rank({"slow": slow, "fast": fast}, "slow")
    assert reference.ratio == 1
    assert row == Row("fast", Spread(40, 20, 50), ratio=4, cpu_ms_per_doc=5)


def test_the_labellers_first_unit_is_its_warm_up() -> None:
    began = datetime(2026, 3, 2, tzinfo=UTC)

    def arrival(seconds: float, unit: int, offset: int) -> Arrival:
        event = LabelledEvent(
            event_id=str(offset),
            item_id=str(offset),
            title="t",
            source="s",
            received_at=began,
            clock=began,
            labelled_at=began + timedelta(seconds=unit),
            similarity_key="m1:",
            abstained=True,
            abstained_because="test",
            stack=StackRef(name="n", digest="d"),
            input=InputRef(topic="raw", partition=0, offset=offset),
        )
        return Arrival(seconds, event.to_json())

    arrivals = [arrival(1.0, 0, 0), arrival(1.5, 0, 1), *(arrival(2.0 + n, 1 + n, 2 + n) for n in range(4))]
    sample = summarise_labelling(Watched(arrivals, (10.0, 16.0)))
    assert sample == Sample(docs=4, wall_seconds=3.5, cpu_seconds=6.0)


def test_the_cost_of_a_unit_is_its_share_of_a_burst() -> None:
    cost = summarise_transactions("exactly_once", [Sample(64 * BURST, seconds, 0.064) for seconds in (0.2, 0.4, 0.3)])
    assert (cost.unit_records, cost.unit_ms) == (64, Spread(30, 20, 40))
    assert cost.records_per_second == pytest.approx(64 / 0.03)
    assert cost.cpu_us_per_record == pytest.approx(1e6 * 0.064 / (64 * BURST))


def test_texts_are_the_same_each_time_and_clean_with_the_data_set_or_without(tmp_path: Path) -> None:
    tweets = tmp_path / "tweets.csv"
    tweets.write_text('text,label\n"A &amp; B  fall https://t.co/x",0\nC rises,1\n"C  rises",1\n', encoding="utf-8")
    assert sorted(load_texts(2, 128, tweets).values) == ["A & B fall", "C rises"]
    headlines = load_texts(600, 128, tmp_path / "missing.csv")
    assert headlines == load_texts(600, 128, tmp_path / "missing.csv")
    assert len(headlines.values) == 600
    assert all(clean_text(text) == text for text in headlines.values)
    assert "headlines" in headlines.origin


def test_a_machine_that_says_nothing_is_unknown(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu avx2 avx512_bf16\n")
    assert look_at_machine(cpuinfo).flags == ("avx2", "avx512_bf16")
    assert "Example 9000" in look_at_machine(cpuinfo).sentence
    assert "unknown processor" in look_at_machine(tmp_path / "missing").sentence


def test_agreement_is_the_largest_difference_and_the_labels_that_differ() -> None:
    labels = ["x", "y"]
    ours = to_probabilities([[{"label": "y", "score": 0.4}, {"label": "x", "score": 0.6}]] * 2, labels)
    theirs = to_probabilities(
        [
            [{"label": "x", "score": 0.55}, {"label": "y", "score": 0.45}],
            [{"label": "y", "score": 0.52}, {"label": "x", "score": 0.48}],
        ],
        labels,
    )
    agreement = compare(ours, theirs)
    assert agreement.largest_difference == pytest.approx(0.12)
    assert agreement.labels_that_differ == 1


KNOWN = Restored(keys=99_995, idle_key_bytes=321.4, seconds=1.26, facts_ms=0.04, compiled=True)


def render(*tables: Table) -> list[list[str]]:
    console = Console(width=120, file=StringIO(), record=True)
    for table in tables:
        console.print(table)
    return [line.split() for line in console.export_text().splitlines()]


def test_tables_and_json_show_every_contender() -> None:
    rows = rank({"plain": [Sample(96, 1.0, 2.0)], "ours": [Sample(96, 0.25, 0.48)]}, "plain")
    outcome = Outcome("One", 96, rows, Agreement(2e-7, 0), Agreement(4.8e-3, 1))
    costs = [summarise_transactions(name, [Sample(640, 0.2, 0.064)]) for name in ("exactly_once", "at_least_once")]
    moved = [Throughput(6, 2, "exactly_once", Spread(8123.4, 7000, 9000), 0.876, 99.5, 1.012)]
    found = [Detection(KNOWN, Spread(12345.6, 12000, 13000), 0.956, 15.01, 30.02, 2.03)]
    shown = render(render_outcome(outcome), render_costs(costs), render_throughputs(moved), render_detections(found))
    assert ["ours", "384", "384", "-", "384", "4.00", "5.00"] in shown
    assert ["64", "exactly", "once", "20.0", "20.0", "-", "20.0", "3,200", "100"] in shown
    assert "1 of 96 sentiment labels" in outcome.remark
    assert "+317%" in compare_costs(rows[0], rows[1])
    assert ["6", "2", "exactly", "once", "8,123", "7,000", "-", "9,000", "0.88", "100", "1.01"] in shown
    assert ["99,995", "12,346", "12,000", "-", "13,000", "0.96", "15.0", "30.0", "2.0", "321", "1.3"] in shown
    report = Report(look_at_machine(), "texts", [outcome], costs, moved, found)
    assert json.loads(json.dumps(report.to_json()))["outcomes"][0]["rows"][1]["ratio"] == 4


def test_the_detectors_stream_is_the_same_each_time_with_its_share_of_negatives_and_copies() -> None:
    one, again = (Writer(100, 1000).stream(BEGIN, [()] * 3000) for _ in range(2))
    assert [record.value for record in one] == [record.value for record in again]
    events = [LabelledEvent.model_validate_json(record.value or b"") for record in one]
    negative = [event for event in events if event.sentiment and event.sentiment.label == "negative"]
    assert 0.25 < len(negative) / len(events) < 0.3
    assert 0.25 < 1 - len({event.similarity_key for event in events}) / len(events) < 0.35
    assert 1.2 < sum(len(event.entities) for event in events) / len(events) < 1.35


def test_the_detector_is_measured_with_every_key_of_the_state(tmp_path: Path) -> None:
    load = Load(items_a_day=BATCH, slices=2)
    write_state(1000, tmp_path / "state", load)
    restored, slices = measure(1000, tmp_path / "state", load)
    assert 1000 < restored.keys < 1300
    assert restored.seconds > 0
    started = time.process_time()
    first, second = slices
    assert 0.5 < (first.total + second.total) / (time.process_time() - started) <= 1


def test_a_detector_is_compared_with_the_first_round_by_round() -> None:
    rounds = [[Spent(0.01, 0.08, 0.01), Spent(0.02, 0.16, 0.02)], [Spent(0.02, 0.16, 0.02), Spent(0.03, 0.2, 0.02)]]
    few, many = compare_slices([KNOWN, KNOWN], rounds)
    assert (few.ratio, many.ratio) == (1, pytest.approx(0.65))
    assert (few.events_per_second.low, few.events_per_second.high) == (pytest.approx(50_000), pytest.approx(100_000))
    assert few.decode_us == pytest.approx(1.5)


def test_throughput_is_that_of_the_units_after_the_first_beside_at_least_once(tmp_path: Path) -> None:
    def run(seconds: float) -> Passage:
        lines = [
            {
                "event": "unit.committed",
                "timestamp": f"2026-03-02T00:00:{at:02}Z",
                "labelled": 500,
                "next_offsets": {"0": 1},
            }
            for at in (0, seconds, 2 * seconds)
        ]
        log = tmp_path / "log"
        log.write_text("\n".join(["not a unit", *map(json.dumps, lines)]).replace('": ', '":'))
        return Passage(read_units(log), 1, (1.0, 1.2))

    once, least = compare_guarantees(6, 1, {"exactly_once": [run(10)], "at_least_once": [run(8)]})
    assert (once.items_per_second.median, least.items_per_second.median) == (50, 62.5)
    assert (once.ratio, least.ratio) == (0.8, 1)
    assert once.cpu_us_per_item == pytest.approx(200)
    assert once.records_per_item == pytest.approx(1 + 1 / 500)


def write_readable_base(root: Path, seed: int = 0, labels: int | None = None) -> Path:
    """A tiny base whose tokenizer transformers reads too."""
    base = write_base(root, seed=seed, labels=labels)
    names = {"pad_token": "<pad>", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), **names).save_pretrained(base)
    if labels:
        config = json.loads((base / "config.json").read_text())
        config["id2label"] = dict(enumerate(SENTIMENT.labels))
        (base / "config.json").write_text(json.dumps(config))
    return base


def test_adapted_members_and_plain_checkpoints_answer_as_their_pipelines_do(tmp_path: Path) -> None:
    base = write_readable_base(tmp_path / "base")
    adapted = [member_spec(tmp_path / "adapted", name, base) for name in ("first", "second")]
    native = native_spec("native", write_readable_base(tmp_path / "native", seed=5, labels=3), SENTIMENT.labels)
    for bundle in (write_stack(tmp_path / "adapted", adapted), write_stack(tmp_path / "plain", [native])):
        engine = Engine.load(bundle, device="cpu", precision="fp32")
        pipes = open_pipelines(load_bundle(bundle), "cpu", "fp32")
        assert require_parity(engine, pipes, TEXTS).largest_difference < 1e-5


def test_a_model_that_answers_otherwise_is_not_timed(tmp_path: Path) -> None:
    one, other = (
        write_stack(
            tmp_path / f"bundle-{seed}",
            [native_spec("n", write_readable_base(tmp_path / f"base-{seed}", seed, 3), SENTIMENT.labels)],
        )
        for seed in (1, 2)
    )
    engine = Engine.load(one, device="cpu", precision="fp32")
    with pytest.raises(NotTheSame, match="differ by"):
        require_parity(engine, open_pipelines(load_bundle(other), "cpu", "fp32"), TEXTS)
