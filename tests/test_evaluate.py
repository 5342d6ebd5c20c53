from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from stacknorm.bundle import load_bundle, save_manifest
from stacknorm.errors import DataError
from stacknorm.evaluation.evaluate import Evaluation, evaluate_bundle
from stacknorm.evaluation.trial import Question
from stacknorm.source import digest_files
from stacknorm.text import fingerprints
from tiny_bases import WORDS, write_tiny_bundle

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
METRICS = ["accuracy", "macro_f1", "nll", "brier", "ece", "classwise_ece", "aurc"]


def evaluate(bundle: Path, data: Path, order: Sequence[str] = (), task: str = "sentiment") -> Evaluation:
    return evaluate_bundle(str(bundle), Question(data, task, tuple(order)), NOW, with_costs=False)


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
    assert found.leaks.leaked_accuracy is not None
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
