import json
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from stacknorm.bases.source import digest_files
from stacknorm.bundle import CascadeSpec, StageSpec, StageTask, load_bundle, save_manifest
from stacknorm.commands.compare import compare
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.compare import compare_bundles, count_pairs, match, shift_rates, widest_disagreements
from stacknorm.evaluation.compare_pair import Pair
from stacknorm.evaluation.cost import time_alternately
from stacknorm.evaluation.page import render_comparison
from stacknorm.evaluation.trial import Question
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.pool import mean_pool
from stacknorm.text import fingerprints
from test_evaluation_page import Reader
from tiny_bases import WORDS, member_spec, write_base, write_stack

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LABELS = ("negative", "neutral", "positive")
app = typer.Typer()
app.command()(compare)
runner = CliRunner()


def answers(guess: list[int], truth: list[int], confidence: float = 0.8) -> Answers:
    given = np.full((len(guess), 3), (1 - confidence) / 2)
    given[np.arange(len(guess)), guess] = confidence
    return Answers(LABELS, given, np.array(truth), np.arange(len(guess)))


def test_pairs_count_who_is_right_where_labels_differ() -> None:
    truth = [0, 0, 1, 2, 2]
    first, second = answers([0, 0, 1, 1, 2], truth), answers([1, 1, 1, 2, 2], truth)
    commonest, other = count_pairs(first, second)
    assert (commonest.first, commonest.second, commonest.rows) == ("negative", "neutral", 2)
    assert (commonest.first_right, commonest.second_right) == (2, 0)
    assert (other.first, other.second, other.rows, other.first_right, other.second_right) == (
        *("neutral", "positive"),
        *(1, 0, 1),
    )
    assert match(first, second).disagreeing == 3


def test_shifts_of_rates_are_differences_of_shares_and_add_up_to_nothing() -> None:
    first, second = answers([0, 0, 1, 1], [0, 0, 1, 2]), answers([0, 2, 1, 2], [0, 0, 1, 2])
    negative, neutral, positive = shift_rates(first, second)
    assert (negative.true, negative.first, negative.second) == (0.5, 0.5, 0.25)
    assert [rate.difference.value for rate in (negative, neutral, positive)] == [-0.25, -0.25, 0.5]
    assert negative.difference.low <= -0.25 <= negative.difference.high


def test_the_widest_disagreements_come_first_and_agreements_never() -> None:
    first = answers([0, 0, 0], [0, 0, 0])
    second = first.by(np.array([[0.3, 0.4, 0.3], [0.0, 0.0, 1.0], [0.9, 0.05, 0.05]]))
    found = widest_disagreements(first, second, ["near", "far", "same"], 5)
    assert [one.text for one in found] == ["far", "near"]
    assert (found[0].first, found[0].second, found[0].second_confidence) == ("negative", "positive", 1)


def test_runs_take_turns_and_the_first_of_each_only_warms_up() -> None:
    calls: list[str] = []
    found = time_alternately({"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}, rounds=2)
    assert calls == ["one", "two"] * 3
    assert set(found) == {"one", "two"}
    assert min(found.values()) > 0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("compare")
    base = write_base(root / "base")
    return tuple(
        str(write_stack(root / name, [member_spec(root / name, member, base) for member in members]))
        for name, members in (("a", ("first", "second")), ("b", ("third", "fourth")))
    )


@pytest.fixture(scope="module")
def rows(bundles: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that the first bundle labels right, every one."""
    texts = [" ".join(words) for words in permutations(WORDS[:12], 2)]
    engine = Engine.load(bundles[0], language_guard=False)
    labels = [prediction.tasks["sentiment"].label for prediction in engine.predict(texts)]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("text,label\n" + "\n".join(f"{t},{label}" for t, label in zip(texts, labels, strict=True)))
    return path


def test_the_better_of_two_is_told_and_a_pipeline_stops_for_the_worse(
    bundles: tuple[str, str], rows: Path, tmp_path: Path
) -> None:
    first, second = bundles
    out, page = tmp_path / "compared.json", tmp_path / "compared.html"
    done = runner.invoke(app, [first, second, str(rows), "--fail-if-worse", "--json", str(out), "--html", str(page)])
    assert done.exit_code == 2, done.output
    told = " ".join(done.stdout.split())
    assert "B tiny is worse than A tiny in accuracy" in told
    assert "times as long" in told
    record = json.loads(out.read_text())
    assert record["official"]["paired"]["verdict"] == "worse"
    assert record["official"]["first"]["accuracy"]["value"] == 1
    assert len(record["protocol"]["stacks"]) == 2
    assert not {"script", "link", "img"} & {tag for tag, _ in Reader(page.read_text()).tags}
    assert runner.invoke(app, [first, second, str(rows)]).exit_code == 0
    assert runner.invoke(app, [second, first, str(rows), "--fail-if-worse"]).exit_code == 0
    assert runner.invoke(app, [first, first, str(rows), "--fail-if-worse"]).exit_code == 0


def test_what_cannot_be_compared_is_an_error_and_not_a_verdict(bundles: tuple[str, str], tmp_path: Path) -> None:
    done = runner.invoke(app, [*bundles, str(tmp_path / "none.csv"), "--fail-if-worse"])
    assert done.exit_code == 1
    assert "none.csv cannot be read" in done.stderr


def test_help_tells_the_exit_codes_and_how_verdicts_are_reached() -> None:
    told = " ".join(runner.invoke(app, ["--help"]).stdout.split())
    assert "McNemar's exact test" in told
    assert "if the 95 % interval of the difference in micro F1 lies below (above) zero" in told
    assert "0 B is not worse" in told
    assert "2 B is worse" in told


def test_a_bundle_that_orders_its_labels_otherwise_is_compared_by_their_names(
    bundles: tuple[str, str], rows: Path, tmp_path: Path
) -> None:
    root = tmp_path / "turned"
    root.symlink_to(bundles[0])
    turned = tmp_path / "copy"
    turned.mkdir()
    for part in root.iterdir():
        (turned / part.name).symlink_to(part)
    (turned / "bundle.json").unlink()
    manifest = load_bundle(bundles[0]).manifest
    spec = manifest.tasks["sentiment"].model_copy(update={"labels": LABELS[::-1]})
    save_manifest(turned, manifest.model_copy(update={"name": "turned", "tasks": {"sentiment": spec}}))
    found = compare_bundles(bundles[0], str(turned), Question(rows, "sentiment"), NOW)
    assert found.names == ("tiny", "turned")
    assert found.official.disagreeing == 0
    assert found.official.pairs == ()
    assert found.official.paired.verdict == "undecided"
    assert Reader(render_comparison(found)).open == []


def test_bundles_with_other_labels_are_refused(bundles: tuple[str, str], rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "stars"
    base = write_base(tmp_path / "base")
    write_stack(other, [member_spec(other, "one", base)])
    manifest = load_bundle(other).manifest
    spec = manifest.tasks["sentiment"].model_copy(update={"labels": ("negative", "neutral", "positive", "mixed up")})
    save_manifest(other, manifest.model_copy(update={"tasks": {"sentiment": spec}}))
    with pytest.raises(DataError, match=r"cannot be compared on sentiment: .*mixed up"):
        compare_bundles(bundles[0], str(other), Question(rows, "sentiment"), NOW)


def test_rows_that_either_was_trained_on_are_left_out_of_the_verdict(
    bundles: tuple[str, str], rows: Path, tmp_path: Path
) -> None:
    first, second = bundles
    half = rows.read_text().splitlines()[: len(rows.read_text().splitlines()) // 2]
    seen = tmp_path / "train.csv"
    seen.write_text("\n".join(half))
    found = compare_bundles(first, second, Question(rows, "sentiment", training_files=(seen,)), NOW)
    assert found.clean is not None
    assert found.clean.rows == found.official.rows - (len(half) - 1)
    assert found.decisive is found.clean
    assert [leaks.leaked for leaks in found.leaks] == [len(half) - 1] * 2


def test_a_bundle_that_knows_its_texts_does_not_speak_for_one_that_does_not(
    bundles: tuple[str, str], rows: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    base = write_base(tmp_path / "base")
    write_stack(known, [member_spec(known, "one", base)])
    save_file({"fingerprints": fingerprints(["acme falls"])}, known / "fingerprints.safetensors")
    files = digest_files(known, ["fingerprints.safetensors"])
    save_manifest(known, load_bundle(known).manifest.model_copy(update={"files": files}))
    found = compare_bundles(str(known), bundles[1], Question(rows, "sentiment"), NOW)
    assert found.clean is None
    assert found.leaks[1].leaked is None


def test_tasks_of_two_kinds_are_not_compared(bundles: tuple[str, str], rows: Path, tmp_path: Path) -> None:
    root = tmp_path / "many"
    write_stack(root, [member_spec(root, "one", write_base(tmp_path / "base"))])
    manifest = load_bundle(root).manifest
    spec = manifest.tasks["sentiment"].model_copy(update={"kind": "multi"})
    save_manifest(root, manifest.model_copy(update={"tasks": {"sentiment": spec}}))
    for pair in ((str(root), bundles[0]), (bundles[0], str(root))):
        done = runner.invoke(app, [*pair, str(rows)])
        assert done.exit_code == 1
        assert "cannot be compared on sentiment" in done.stderr


def test_a_bundle_is_asked_in_the_form_it_would_run_in(bundles: tuple[str, str], rows: Path, tmp_path: Path) -> None:
    root = tmp_path / "staged"
    members = [member_spec(root, name, write_base(tmp_path / "base")) for name in ("first", "second")]
    write_stack(root, members)
    early = StageTask(pool=mean_pool(1), calibrator=Identity(), stop_above=0.6)
    stages = (StageSpec(members=("first",), tasks={"sentiment": early}), StageSpec(members=("second",)))
    cascade = CascadeSpec(mode="bounded", stages=stages)
    save_manifest(root, load_bundle(root).manifest.model_copy(update={"cascade": cascade}))
    pair = Pair.start(Question(rows, "sentiment"), (load_bundle(bundles[0]), load_bundle(root)))
    assert [engine.form for engine in pair.engines] == ["width", "cascade"]
