from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.metrics import accuracy_score, f1_score, log_loss

from stacknorm.bundle import load_bundle, save_manifest
from stacknorm.errors import DataError
from stacknorm.evaluation.evaluate import evaluate_bundle
from stacknorm.evaluation.metrics import METRICS, brier, ece, paired_nll, score
from stacknorm.source import digest_files
from stacknorm.text import fingerprints
from tiny_bases import WORDS, write_tiny_bundle

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, rows: int = 200, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(labels), size=rows)
    truth = (probabilities.cumsum(axis=1) > random.uniform(size=(rows, 1))).argmax(axis=1)
    return probabilities, truth


@given(seeds)
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, truth = draw(seed)
    once = np.ones((1, len(truth)))
    guess = probabilities.argmax(axis=1)
    labels = np.unique(truth)
    assert METRICS["accuracy"](probabilities, truth, once) == pytest.approx(accuracy_score(truth, guess))
    expected = f1_score(truth, guess, labels=labels, average="macro", zero_division=0)
    assert METRICS["macro_f1"](probabilities, truth, once) == pytest.approx(expected)
    assert METRICS["nll"](probabilities, truth, once) == pytest.approx(log_loss(truth, probabilities, labels=range(4)))


@given(seeds)
def test_a_bootstrap_sample_scores_what_its_drawn_rows_score(seed: int) -> None:
    probabilities, truth = draw(seed, rows=50)
    drawn = np.random.default_rng(seed).integers(50, size=50)
    counts = np.bincount(drawn, minlength=50).astype(float)[None]
    ones = np.ones((1, 50))
    for name in ("accuracy", "nll", "brier", "ece"):
        metric = METRICS[name]
        assert metric(probabilities, truth, counts) == pytest.approx(metric(probabilities[drawn], truth[drawn], ones))


def test_true_probabilities_are_calibrated_and_boastful_ones_are_not() -> None:
    probabilities, truth = draw(1, rows=20_000)
    once = np.ones((1, len(truth)))
    assert ece(probabilities, truth, once) < 0.015
    boastful = np.eye(4)[probabilities.argmax(axis=1)] * 0.96 + 0.01
    assert ece(boastful, truth, once) > 0.2


def test_the_brier_score_of_certainty_is_zero_when_right_and_two_when_wrong() -> None:
    certain = np.array([[1.0, 0.0]])
    assert brier(certain, np.array([0]), np.ones((1, 1))) == 0
    assert brier(certain, np.array([1]), np.ones((1, 1))) == 2


@given(seeds)
def test_an_interval_holds_its_value(seed: int) -> None:
    probabilities, truth = draw(seed)
    for name, found in score(probabilities, truth).items():
        if name != "ece":  # resampling adds noise to every bin, so its interval lies above the value
            assert found.low <= found.value <= found.high


def test_the_paired_interval_finds_a_small_steady_gain_and_no_gain_against_itself() -> None:
    probabilities, truth = draw(2)
    better = probabilities * 0.9 + 0.1 * np.eye(4)[truth]
    gain = paired_nll(better, probabilities, truth)
    assert gain.high < 0
    same = paired_nll(probabilities, probabilities, truth)
    assert (same.low, same.value, same.high) == (0, 0, 0)


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
    found = evaluate_bundle(str(bundle), data, "sentiment", ("bearish", "bullish", "neutral"))
    assert list(found.official.scores) == ["stack", "first", "second"]
    assert set(found.official.scores["stack"]) == {"accuracy", "macro_f1", "nll", "brier", "ece"}
    assert found.clean is not None
    assert (found.official.rows, found.clean.rows) == (len(WORDS) * 2 + 1, len(WORDS) * 2)
    assert found.official.best_member == "first"
    gap = found.official.scores["stack"]["nll"].value - found.official.scores["first"]["nll"].value
    assert found.official.nll_difference.value == pytest.approx(gap, abs=1e-4)


def test_a_bundle_that_does_not_know_its_texts_claims_no_clean_rows(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    found = evaluate_bundle(str(write_tiny_bundle(tmp_path)), data, "sentiment", ("bear", "bull", "neutral"))
    assert found.clean is None


def test_integers_are_not_guessed_and_a_missing_task_is_named(bundle: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv, line 2: label '0' says nothing .* explicit map"):
        evaluate_bundle(str(bundle), data, "sentiment")
    with pytest.raises(DataError, match="no task 'mood', only sentiment"):
        evaluate_bundle(str(bundle), data, "mood")


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
        evaluate_bundle(str(bundle), data, "sentiment", ("bear", "bull", "neutral"))
