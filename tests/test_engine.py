import json
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.bundle import load_bundle, save_manifest
from stacknorm.encoder.precision import native_precision
from stacknorm.encoder.tokens import cut_batches, pad, round_rows
from stacknorm.engine import Engine
from stacknorm.errors import PredictionError
from stacknorm.pooling.calibrate import apply_temperature
from stacknorm.prediction import Prediction
from stacknorm.text import clean_text, truncate_text
from tiny_bases import WORDS, entity_task, give_entity_head, member_spec, write_base, write_stack, write_tiny_bundle


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(write_tiny_bundle(tmp_path_factory.mktemp("engine")), device="cpu", precision="fp32")


def values(predictions: list[Prediction]) -> np.ndarray:
    return np.array([list(prediction.tasks["sentiment"].probabilities.values()) for prediction in predictions])


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=60)


@given(texts)
def test_every_text_gets_its_own_prediction_whatever_stands_beside_it(engine: Engine, given_: list[str]) -> None:
    together = engine.predict(given_)
    assert len(together) == len(given_)
    for place in {0, len(given_) // 2, len(given_) - 1}:
        assert values([together[place]]) == pytest.approx(values(engine.predict([given_[place]])), abs=1e-5)


def test_a_prediction_holds_the_whole_distribution_in_the_order_of_the_space(engine: Engine) -> None:
    (prediction,) = engine.predict(["acme profit falls"])
    answer = prediction.tasks["sentiment"]
    assert list(answer.probabilities) == ["negative", "neutral", "positive"]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
    assert 0 < answer.entropy <= np.log(3)
    assert 0 <= answer.disagreement <= np.log(2)


def test_no_texts_give_no_predictions_and_an_empty_text_gives_one(engine: Engine) -> None:
    assert engine.predict([]) == []
    assert len(engine.predict([""])) == 1


@pytest.mark.parametrize("text", ["\ud800 lone", "a" * 200_000, "https://t.co/x", "\x00\n\t", "\u202eoil", "😀" * 99])
def test_hostile_text_is_labelled_and_does_not_hurt_its_neighbour(engine: Engine, text: str) -> None:
    alone = engine.predict(["oil falls"])
    assert values(engine.predict([text, "oil falls"])[1:]) == pytest.approx(values(alone), abs=1e-5)


def test_urls_entities_and_whitespace_do_not_change_a_label(engine: Engine) -> None:
    noisy, plain = engine.predict(["acme\n  bank&nbsp;falls https://t.co/abc", "acme bank falls"])
    assert values([noisy]) == pytest.approx(values([plain]), abs=1e-6)


def broken_engine(root: Path, *broken: str) -> Engine:
    """Whose `broken` members give no numbers."""
    engine = Engine.load(write_tiny_bundle(root), device="cpu", precision="fp32")
    (group,) = engine._readers[0].groups
    with torch.no_grad():
        for name in broken:
            group.members[name].heads["sentiment"].bias.fill_(float("nan"))
    return engine


def test_a_member_that_gives_no_number_is_dropped_and_the_prediction_says_so(engine: Engine, tmp_path: Path) -> None:
    (prediction,) = broken_engine(tmp_path, "second").predict(["oil falls"])
    assert prediction.dropped == ("second",)
    assert prediction.degraded
    members = engine.member_probabilities(["oil falls"])["sentiment"]
    alone = apply_temperature(members[0], 1.5)
    assert values([prediction]) == pytest.approx(alone, abs=1e-5)
    assert not engine.predict(["oil falls"])[0].degraded


def test_no_member_left_is_an_error_and_never_a_label(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="no member could answer sentiment for 1 texts"):
        broken_engine(tmp_path, "first", "second").predict(["oil"])


def test_what_members_say_for_evaluation_is_never_incomplete(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="member second: gave sentiment values that are not finite"):
        broken_engine(tmp_path, "second").member_probabilities(["oil"])


def test_a_member_that_raises_is_dropped_for_its_batch_alone(tmp_path: Path) -> None:
    engine = Engine.load(write_tiny_bundle(tmp_path), device="cpu", precision="fp32")
    (group,) = engine._readers[0].groups
    group.members["first"].upper.register_forward_pre_hook(raise_on_long_batches, with_kwargs=True)
    predictions = engine.predict([" ".join(WORDS[:10])] + ["oil"] * 400)
    assert predictions[0].dropped == ("first",)
    assert predictions[-1].dropped == ()


def raise_on_long_batches(module: object, given_: object, named: dict[str, torch.Tensor]) -> None:
    if named["inputs_embeds"].shape[1] > 5:
        raise IndexError("index out of range in self")


def test_a_late_member_is_dropped_and_comes_back_when_it_is_done(tmp_path: Path) -> None:
    engine = Engine.load(write_tiny_bundle(tmp_path), device="cpu", precision="fp32", member_timeout_seconds=0.3)
    engine.predict(["warm"])
    gate = threading.Event()
    (group,) = engine._readers[0].groups
    hook = group.members["first"].upper.register_forward_pre_hook(lambda *_: gate.wait(30) and None)
    assert engine.predict(["oil"])[0].dropped == ("first",)
    assert engine.predict(["oil"])[0].dropped == ("first",)
    gate.set()
    hook.remove()
    assert wait_until(lambda: not engine.predict(["oil"])[0].degraded)


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_a_batch_that_runs_out_of_memory_is_split_not_dropped(engine: Engine, tmp_path: Path) -> None:
    small = Engine.load(write_tiny_bundle(tmp_path), device="cpu", precision="fp32")
    (group,) = small._readers[0].groups
    group.lower.register_forward_pre_hook(run_out_of_memory, with_kwargs=True)
    given_ = [" ".join(WORDS[n : n + 3]) for n in range(9)]
    assert values(small.predict(given_)) == pytest.approx(values(engine.predict(given_)), abs=1e-5)


def run_out_of_memory(module: object, given_: object, named: dict[str, torch.Tensor]) -> None:
    if len(named["input_ids"]) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_gpu_that_fails_is_blamed_not_a_member(tmp_path: Path) -> None:
    broken = Engine.load(write_tiny_bundle(tmp_path), device="cpu", precision="fp32")
    (group,) = broken._readers[0].groups
    group.members["second"].register_forward_pre_hook(fail_as_a_gpu)
    with pytest.raises(PredictionError, match="the GPU failed, and serves this process no more: CUDA error"):
        broken.predict(["oil falls"])


def fail_as_a_gpu(module: object, given_: object) -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_text_in_another_language_is_withheld_and_its_neighbours_keep_their_places(engine: Engine) -> None:
    german = "Der Gewinn des Unternehmens ist im dritten Quartal deutlich gesunken, teilte der Vorstand mit"
    first, second, third = engine.predict(["oil falls", german, "acme beats"])
    assert second.tasks == {}
    assert second.abstained_because == "the text is in language 'de', the stack knows en"
    assert values([first, third]) == pytest.approx(values(engine.predict(["oil falls", "acme beats"])), abs=1e-5)


def test_bf16_stays_close_to_fp32(engine: Engine, tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    half = Engine.load(root, device="cpu", precision="bf16")
    given_ = ["acme profit falls", "oil surges"]
    assert half.precision == "bf16"
    assert values(half.predict(given_)) == pytest.approx(values(engine.predict(given_)), abs=0.05)


def test_the_precision_is_the_hardwares_where_it_is_left_to_the_engine(tmp_path: Path) -> None:
    engine = Engine.load(write_tiny_bundle(tmp_path))
    assert engine.precision == native_precision(engine.device)


def test_an_engine_says_which_stack_it_is(engine: Engine) -> None:
    assert engine.identity.name == "tiny"
    assert len(engine.identity.digest) == 64
    assert engine.languages == ("en",)
    assert engine.device == "cpu"


@given(st.lists(st.integers(1, 128), max_size=300))
def test_batches_hold_every_row_once_within_the_budget_and_are_of_one_size_but_the_last(lengths: list[int]) -> None:
    batches = list(cut_batches(lengths, 960))
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    assert all(lengths[row] <= width for rows, width in batches for row in rows)
    assert all(len(rows) * width == 960 for rows, width in batches[:-1])
    sizes = {round_rows(len(rows), width, 960) * width for rows, width in batches[-1:]}
    assert all(size <= 960 for size in sizes)


def test_a_batch_is_padded_right_and_filled_with_rows_that_attend_to_one_token() -> None:
    batch = pad([1, 0], [[5], [6, 7]], pad_id=0, width=3, height=3)
    assert batch.ids.tolist() == [[6, 7, 0], [5, 0, 0], [0, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]


@given(st.text())
def test_cleaning_twice_is_cleaning_once_and_leaves_what_utf8_can_hold(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned == " ".join(cleaned.split())
    assert "http://" not in clean_text(text + " http://x.y")
    cleaned.encode()


def test_truncation_is_by_characters_and_far_beyond_the_token_limit() -> None:
    assert truncate_text("a" * 1000, 8) == "a" * 128


@pytest.mark.parametrize(
    ("text", "label", "topics"),
    [
        ("Acme shares plunge after profit warning and job cuts", "negative", {"Stock Movement", "Earnings"}),
        (
            "$AAPL price target raised to $250 at Morgan Stanley, upgraded to overweight",
            "positive",
            {"Analyst Update", "Stock Movement"},
        ),
        ("ECB to publish meeting minutes on Thursday", "neutral", {"Fed and Central Banks"}),
        ("Gold prices climb to a record high", "positive", {"Gold Metals and Materials"}),
    ],
)
def test_the_default_stack_reads_plain_headlines(finance: Engine, text: str, label: str, topics: set[str]) -> None:
    (prediction,) = finance.predict([text])
    assert prediction.tasks["sentiment"].label == label
    assert prediction.tasks["topic"].label in topics


def test_the_default_stack_agrees_with_itself_over_precisions_and_batches(finance: Engine) -> None:
    given_ = [" ".join(WORDS[n:]) for n in range(len(WORDS))] * 3
    full = Engine.load("finance", device="cpu", precision="fp32")
    assert values(finance.predict(given_)) == pytest.approx(values(full.predict(given_)), abs=0.06)
    assert values(full.predict(given_)[:5]) == pytest.approx(values(full.predict(given_[:5])), abs=1e-4)


@pytest.fixture(scope="module")
def finance() -> Engine:
    return Engine.load("finance", device="cpu")


def test_the_default_stack_shares_the_lower_half_of_its_base(finance: Engine) -> None:
    (reader,) = finance._readers
    (group,) = reader.groups
    assert len(group.lower.encoder.layer) == 3
    assert len(group.members) == 3
    assert json.dumps(list(finance.tasks)) == '["sentiment", "topic", "entity-sentiment"]'


def test_entities_are_those_that_a_users_own_table_knows_on_the_day_of_the_text(tmp_path: Path) -> None:
    only = member_spec(tmp_path / "stack", "only", write_base(tmp_path / "base"))
    manifest = load_bundle(write_stack(tmp_path / "stack", [only])).manifest
    tasks = dict(manifest.tasks) | {"stance": entity_task("only")}
    members = (give_entity_head(tmp_path / "stack", only),)
    save_manifest(tmp_path / "stack", manifest.model_copy(update={"tasks": tasks, "members": members}))
    table = [
        {"id": "Old Oil", "names": [{"text": "oil", "valid_to": "2019-12-31"}]},
        {"id": "New Oil", "names": [{"text": "oil", "valid_from": "2020-01-01"}]},
    ]
    (tmp_path / "aliases.json").write_text(json.dumps({"entities": table}))
    engine = Engine.load(tmp_path / "stack", precision="fp32", aliases=tmp_path / "aliases.json")
    before, after = engine.predict(["oil falls", "oil falls"], days=[date(2019, 7, 1), date(2020, 7, 1)])
    undated, none = engine.predict(["oil falls", "falls"])
    found = [[(e.entity, e.start, e.end) for e in given.entities] for given in (before, after, undated, none)]
    assert found == [[("Old Oil", 0, 3)], [("New Oil", 0, 3)], [("Old Oil", 0, 3)], []]
    assert before.entities[0].tasks["stance"].probabilities == pytest.approx({"negative": 0.5, "positive": 0.5})
