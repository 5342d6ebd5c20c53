"""Members of a bundle are joined by a channel that rows train, and its worth is told."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

from stacknorm.assembly.assemble import assemble
from stacknorm.assembly.draft import draft_bundle
from stacknorm.bundle import TaskSpec, load_bundle, save_manifest
from stacknorm.commands.bundle import app
from stacknorm.engine import Engine
from tiny_bases import WIDTH, member_spec, write_base, write_stack
from tiny_classifiers import write_classifier, write_rows, write_sentences

runner = CliRunner()


def run(*arguments: str | Path, fails: bool = False) -> Result:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == int(fails), done.output
    return done


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of other people, and labelled rows."""
    root = tmp_path_factory.mktemp("joint")
    for name, kind in (("one", "bert"), ("two", "distilbert")):
        write_classifier(root / name, kind, ["negative", "neutral", "positive"])
    write_rows(root / "rows.csv", rows=150)
    assemble([root / "one", root / "two"], root / "stack")
    return root / "stack"


BOTH = ("--name", "both", "--member", "one", "--member", "two")


@pytest.mark.parametrize(("options", "width"), [((), 2 * WIDTH), (("--sum",), WIDTH)])
def test_a_channel_is_trained_on_rows_and_becomes_one_more_voice(
    options: tuple[str, ...], width: int, stack: Path, tmp_path: Path
) -> None:
    rows = stack.parent / "rows.csv"
    done = run("join", stack, "--out", tmp_path / "joined", *BOTH, "--fit", rows, *options)
    assert "with the channel less without it, cross-validated: NLL" in done.stdout
    assert "fitted on 150 rows of rows.csv" in done.stdout
    bundle = load_bundle(tmp_path / "joined")
    assert bundle.manifest.members_of("sentiment") == ("one", "two", "both")
    weight = load_file(bundle.root / "both" / "heads.safetensors")["sentiment.weight"]
    assert (weight.shape, weight.dtype) == ((3, width), np.dtype("float32"))
    texts, labels = write_sentences(100, seed=5)
    said = Engine.load(bundle.root, precision="fp32").member_probabilities(texts)["sentiment"]
    truth = [bundle.manifest.tasks["sentiment"].labels.index(label) for label in labels]
    assert (said[2].argmax(axis=1) == truth).mean() > 0.6
    again = run("join", bundle.root, "--out", tmp_path / "twice", *BOTH, "--fit", rows, fails=True)
    assert "bundle stack has channels" in again.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "both", "--member", "one"), "no such channel can be made: members"),
        (("--name", "The Two", "--member", "one", "--member", "two"), "no such channel can be made: name"),
        (("--name", "both", "--member", "one", "--member", "odd"), "channel both joins unknown members: odd"),
        (("--name", "one", "--member", "one", "--member", "two"), "channel one has the name of a member"),
        ((*BOTH, "--task", "topic"), "has no task 'topic'"),
    ],
)
def test_what_is_no_channel_is_refused_and_leaves_nothing(
    options: tuple[str, ...], message: str, stack: Path, tmp_path: Path
) -> None:
    done = run("join", stack, "--out", tmp_path / "joined", "--fit", stack.parent / "rows.csv", *options, fails=True)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_task_is_asked_for_where_there_are_several(stack: Path, tmp_path: Path) -> None:
    with draft_bundle(load_bundle(stack), tmp_path / "two") as draft:
        manifest = draft.manifest
        mood = manifest.members[0].heads["sentiment"]
        spec: TaskSpec = manifest.tasks["sentiment"].model_copy(
            update={"pool": manifest.tasks["sentiment"].pool.only([0]), "best_member": "one"}
        )
        one = manifest.members[0].model_copy(update={"heads": {"mood": mood}})
        tasks = {"mood": spec, "sentiment": spec.model_copy(update={"best_member": "two"})}
        save_manifest(draft.root, manifest.model_copy(update={"members": (one, manifest.members[1]), "tasks": tasks}))
    done = run("join", tmp_path / "two", "--out", tmp_path / "out", *BOTH, "--fit", "rows.csv", fails=True)
    assert "has several tasks, name one with --task: mood, sentiment" in done.stderr


def test_a_copy_brings_its_own_files_and_bases_and_still_finds_those_elsewhere(tmp_path: Path) -> None:
    inside, beside = tmp_path / "bundle" / "inside", tmp_path / "beside"
    specs = []
    for name, base in (("near", write_base(inside)), ("far", write_base(beside, seed=3))):
        spec = member_spec(tmp_path / "bundle", name, base)
        reference = "inside" if base == inside else "../beside"
        specs.append(
            spec.model_copy(update={"base": spec.base.model_copy(update={"references": (reference, "hub:a/b@c")})})
        )
    write_stack(tmp_path / "bundle", specs)
    (tmp_path / "deep").mkdir()
    with draft_bundle(load_bundle(tmp_path / "bundle"), tmp_path / "deep" / "copy"):
        pass
    copy = load_bundle(tmp_path / "deep" / "copy")
    places = [copy.base_directory(member) for member in copy.manifest.members]
    assert places == [copy.root / "inside", beside]
    assert [m.base.references[1] for m in copy.manifest.members] == ["hub:a/b@c"] * 2
