import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.metrics import f1_score, precision_score, recall_score
from typer.testing import CliRunner

from stacknorm.bases.source import digest_files
from stacknorm.bundle import CascadeSpec, StageSpec, StageTask, TaskSpec, load_bundle, save_manifest
from stacknorm.commands.evaluate import evaluate as evaluate_command
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.cost import alone
from stacknorm.evaluation.counted import score_count_part, score_counts
from stacknorm.evaluation.evaluate import Evaluation, evaluate_bundle
from stacknorm.evaluation.leaks import audit
from stacknorm.evaluation.trial import Question
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.conformal import ClassConditional
from stacknorm.pooling.pool import mean_pool
from stacknorm.text import fingerprints
from test_evaluation_page import Reader
from test_reading import KINDS, LABELS, add_heads
from tiny_bases import WORDS, member_spec, write_base, write_stack, write_tiny_bundle

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
METRICS = ["accuracy", "macro_f1", "nll", "brier", "ece", "classwise_ece", "aurc"]


app = typer.Typer()
app.command()(evaluate_command)


def evaluate(bundle: Path, data: Path, order: Sequence[str] = (), task: str = "sentiment") -> Evaluation:
    return evaluate_bundle(str(bundle), Question(data, task, tuple(order)), NOW, with_costs=False)


def every_kind(root: Path) -> Path:
    """A bundle of two members that each answer a task of every kind."""
    base = write_base(root / "base")
    write_stack(root / "kinds", [member_spec(root / "kinds", name, base) for name in ("first", "second")])
    before = load_bundle(root / "kinds").manifest
    specs = [add_heads(root / "kinds", spec) for spec in before.members]
    tasks = {
        task: TaskSpec(kind=KINDS[task], labels=labels, pool=mean_pool(2), calibrator=Identity(), best_member="first")
        for task, labels in LABELS.items()
    }
    changed = {"tasks": {**before.tasks, **tasks}, "members": tuple(specs)}
    save_manifest(root / "kinds", before.model_copy(update=changed))
    return root / "kinds"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A tiny bundle that was, it says, trained on `acme falls`."""
    root = write_tiny_bundle(tmp_path)
    save_file({"fingerprints": fingerprints(["acme falls"])}, root / "fingerprints.safetensors")
    manifest = load_bundle(root).manifest
    files = digest_files(root, ["fingerprints.safetensors"])
    save_manifest(root, manifest.model_copy(update={"files": files}))
    return root


def write_rows(path: Path, extra: str = "") -> Path:
    lines = [f"{word} {other},{n % 3}" for n, word in enumerate(WORDS) for other in ("bank", "oil")]
    path.write_text("text,label\n" + "\n".join(lines) + "\nACME falls!! https://t.co/x,0\n" + extra)
    return path


def test_stack_and_members_stand_side_by_side_on_all_rows_and_on_clean_ones(bundle: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    found = evaluate(bundle, data, ("bearish", "bullish", "neutral"))
    assert list(found.official.members) == ["first", "second"]
    assert list(found.official.stack) == METRICS
    assert found.clean is not None
    assert (found.official.rows, found.clean.rows) == (len(WORDS) * 2 + 1, len(WORDS) * 2)
    assert found.official.best_member == "first"
    for name, paired in found.official.paired.items():
        gap = found.official.stack["nll"].value - found.official.members[name]["nll"].value
        assert paired.nll.value == pytest.approx(gap, abs=1e-4)
    assert (found.leaks.leaked, found.leaks.repeated) == (1, 0)
    assert found.leaks.leaked_score is not None
    assert found.protocol.made_at == "2026-01-02T03:04:05+00:00"


def test_a_bundle_that_does_not_know_its_texts_claims_no_clean_rows(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    found = evaluate(write_tiny_bundle(tmp_path), data, ("bear", "bull", "neutral"))
    assert found.clean is None
    assert found.leaks.leaked is None


def test_integers_are_not_guessed_and_a_missing_task_is_named(bundle: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv, line 2: label '0' says nothing .* explicit map"):
        evaluate(bundle, data)
    with pytest.raises(DataError, match="no task 'mood', only sentiment"):
        evaluate(bundle, data, task="mood")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("one,two,three\n", "line 39: more fields than the header names"),
        ("angry words,angry\n", "line 39: label 'angry' is not one of sentiment"),
        ("too high,7\n", "line 39: label 7, but only 3 labels were named"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_problem(extra: str, message: str, bundle: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", extra)
    with pytest.raises(DataError, match=rf"rows\.csv, {message}"):
        evaluate(bundle, data, ("bear", "bull", "neutral"))


def test_each_mention_of_an_entity_is_a_row_and_those_of_one_text_are_drawn_together(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"text": f"oil falls {w} acme rises", "entities": {"oil": "negative", "acme": "positive"}} for w in WORDS]
    rows += [{"text": "gold https://t.co/bank up", "entities": {"bank": "positive", "gold": "negative"}}]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    found = evaluate(every_kind(tmp_path), data, task="stance")
    assert found.official.rows == 2 * len(WORDS) + 1  # nobody reads a name that stands in a URL
    assert found.protocol.drawn == "texts, each with all its mentions"
    assert found.leaks.repeated == 0
    assert all(one.text.startswith("[") for one in found.mistakes)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("themes", [{"text": f"{word} up", "labels": ["oil"] if n % 2 else []} for n, word in enumerate(WORDS)]),
        (
            "names",
            [{"text": f"{word} up", "spans": [{"start": 0, "end": len(word), "label": "company"}]} for word in WORDS],
        ),
    ],
)
def test_many_labels_and_spans_are_counted_for_stack_and_members(
    task: str, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    data, root = tmp_path / "rows.jsonl", every_kind(tmp_path)
    data.write_text("\n".join(map(json.dumps, rows)))
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = CliRunner().invoke(
        app, [str(root), str(data), "--task", task, "--no-cost", "--json", str(out), "--html", str(page)]
    )
    assert done.exit_code == 0, done.output
    assert "micro F1" in done.stdout
    record = json.loads(out.read_text())
    assert list(record["official"]["systems"]) == ["stack", "first", "second"]
    stack = Engine.load(root, language_guard=False).predict([str(row["text"]) for row in rows])
    if task == "names":
        given_spans = sum(len(one.spans["names"]) for one in stack)
    else:
        given_spans = sum(share >= 0.5 for one in stack for share in one.tasks[task].probabilities.values())
    assert sum(one["given"] for one in record["official"]["systems"]["stack"]["labels"]) == given_spans
    assert Reader(page.read_text()).open == []


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_counted_scores_are_those_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, said = random.random((40, 3)) < 0.4, random.random((40, 3)) < 0.4
    counts = np.stack([truth & said, said & ~truth, truth & ~said], axis=2).astype(np.int64)
    found = score_counts(counts, ("a", "b", "c"))
    for mine, theirs in ((found.micro_f1, f1_score), (found.precision, precision_score), (found.recall, recall_score)):
        assert mine.value == pytest.approx(theirs(truth, said, average="micro", zero_division=0), abs=1e-5)
        assert mine.low <= mine.value <= mine.high
    assert found.macro_f1.value == pytest.approx(f1_score(truth, said, average="macro", zero_division=0), abs=1e-5)
    each = f1_score(truth, said, average=None, zero_division=0)
    assert [one.f1.value for one in found.labels] == pytest.approx(each, abs=1e-5)
    part = score_count_part({"stack": counts, "first": counts}, ("a", "b", "c"), "first")
    assert part.systems["stack"] == found
    assert part.difference is not None
    assert (part.difference.low, part.difference.high) == (0, 0)
    assert score_count_part({"stack": counts}, ("a", "b", "c"), "channel").difference is None


def test_a_cascade_is_weighed_against_the_whole_stack_and_costs_are_measured(bundle: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    manifest = load_bundle(bundle).manifest
    early = StageTask(pool=mean_pool(1), calibrator=Identity(), stop_above=0.6)
    stages = (StageSpec(members=("first",), tasks={"sentiment": early}), StageSpec(members=("second",)))
    sets = ClassConditional(alpha=0.1, thresholds=(0.7, 0.7, 0.7))
    task = manifest.tasks["sentiment"].model_copy(update={"conformal": sets})
    changed = {"cascade": CascadeSpec(mode="bounded", stages=stages), "tasks": {"sentiment": task}}
    save_manifest(bundle, manifest.model_copy(update=changed))
    found = evaluate_bundle(str(bundle), Question(data, "sentiment", ("bear", "bull", "neutral")), NOW)
    assert found.costs is not None
    assert set(found.costs.texts_per_second) == {"stack", "cascade", "first", "second"}
    assert found.cascade is not None
    assert sum(stage.rows for stage in found.cascade.stages) == found.official.rows
    assert found.cascade.cost == pytest.approx(found.costs.ratio("cascade", "stack"))
    assert found.cascade.changed >= found.cascade.against_width.only_ours_right
    assert found.official.sets is not None
    assert found.official.sets.all_labels.rows == found.official.rows


def test_a_member_alone_says_what_it_says_within_the_stack(bundle: Path) -> None:
    texts = ["oil falls", "bank up", "gold"]
    whole = load_bundle(bundle)
    part = alone(whole, "second")
    assert (len(part.manifest.members), part.manifest.tasks["sentiment"].pool.weights) == (1, (1.0,))
    both = Engine.load(bundle, precision="fp32").member_probabilities(texts)["sentiment"]
    save_manifest(bundle, part.manifest)
    (single,) = Engine.load(bundle, precision="fp32").member_probabilities(texts)["sentiment"]
    assert single == pytest.approx(both[1], abs=1e-5)


def test_texts_with_two_labels_and_repeated_ones_are_counted_once_for_each_text() -> None:
    prints = np.array([1, 1, 2, 2, 3, 3, 3])
    documents = np.array([0, 1, 2, 3, 4, 4, 5])
    found = audit(prints, documents, ["a", "b", "a", "a", "a", "b", "a"], None, None)
    assert (found.rows, found.repeated, found.contradictory, found.leaked) == (7, 3, 2, None)


def test_a_training_file_named_by_hand_makes_rows_leak(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    seen = tmp_path / "train.csv"
    seen.write_text("text,label\nProfit BANK!,0\nacme falls,1\n")
    question = Question(data, "sentiment", ("bear", "bull", "neutral"), (seen,))
    found = evaluate_bundle(str(write_tiny_bundle(tmp_path)), question, NOW, with_costs=False)
    assert found.leaks.leaked == 2
    assert found.clean is not None
    assert found.clean.rows == found.official.rows - 2


def test_the_macro_averages_of_compared_systems_are_over_the_same_labels() -> None:
    quiet = np.array([[[1, 0, 0], [0, 0, 0]]])  # finds the only label there is
    loud = np.array([[[1, 0, 0], [0, 1, 0]]])  # and one that is not there
    assert score_counts(quiet, ("a", "b")).macro_f1.value == 1
    part = score_count_part({"stack": quiet, "first": loud}, ("a", "b"), "first")
    assert [scores.macro_f1.value for scores in part.systems.values()] == [0.5, 0.5]
