"""A bundle is given a cascade by rows; what it may lose is kept to, and exact mode loses nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stacknorm.assembly.assemble import assemble
from stacknorm.assembly.depth import Descent, add_cascade
from stacknorm.assembly.draft import draft_bundle
from stacknorm.bundle import Bundle, CascadeSpec, StageSpec, StageTask, load_bundle, save_manifest
from stacknorm.commands.bundle import app
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.errors import BundleError
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.pool import PowerPool, mean_pool
from stacknorm.progress import tell_nobody
from tiny_bases import entity_task, give_entity_head, member_spec, write_base, write_stack
from tiny_classifiers import write_classifier, write_rows, write_sentences

runner = CliRunner()


def run(*arguments: str | Path, fails: bool = False) -> Result:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == int(fails), done.output
    return done


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classifiers pooled by their mean, and labelled rows."""
    root = tmp_path_factory.mktemp("depth")
    for name, kind in (("small", "bert"), ("large", "roberta"), ("other", "distilbert")):
        write_classifier(root / name, kind, ["negative", "neutral", "positive"], seed=len(name))
    write_rows(root / "rows.csv", rows=200)
    assemble([root / name for name in ("small", "large", "other")], root / "stack")
    return root / "stack"


STAGES = ("--stage", "small", "--stage", "large, other")


def test_a_cascade_is_fitted_by_command_and_says_what_it_spares_and_keeps(stack: Path, tmp_path: Path) -> None:
    rows = f"sentiment={stack.parent / 'rows.csv'}"
    done = run("cascade", stack, "--out", tmp_path / "deep", *STAGES, "--fit", rows, "--max-loss", "0.01")
    assert "bounded cascade" in done.stdout
    assert "sentiment: accuracy less that of the whole stack" in done.stdout
    assert "measured by turns here" in done.stdout
    spec = load_bundle(tmp_path / "deep").manifest.cascade
    assert spec is not None
    assert spec.report is not None
    assert spec.report.texts == 200
    assert (spec.fitted_on["sentiment"].file, spec.fitted_on["sentiment"].rows) == ("rows.csv", 200)
    assert sum(spec.report.ended) == pytest.approx(1)
    assert spec.report.ended[0] > 0
    assert spec.report.kept["sentiment"].value >= -0.05
    assert [stage.members for stage in spec.stages] == [("small",), ("large", "other")]
    assert load_bundle(stack).manifest.cascade is None


def test_an_exact_cascade_needs_no_rows_and_changes_no_label(stack: Path, tmp_path: Path) -> None:
    with draft_bundle(load_bundle(stack), tmp_path / "weighted") as draft:
        task = draft.manifest.tasks["sentiment"].model_copy(update={"pool": PowerPool(weights=(0.6, 0.2, 0.2))})
        save_manifest(draft.root, draft.manifest.model_copy(update={"tasks": {"sentiment": task}}))
    rows = f"sentiment={stack.parent / 'rows.csv'}"
    told = run("cascade", tmp_path / "weighted", "--out", tmp_path / "told", *STAGES, "--mode", "exact", "--fit", rows)
    assert "what is settled" in told.stdout
    assert "measured by turns here" in told.stdout
    run("cascade", tmp_path / "weighted", "--out", tmp_path / "deep", *STAGES, "--mode", "exact")
    texts, _ = write_sentences(120, seed=7)
    width, cascade = (Engine.load(tmp_path / "deep", precision="fp32", form=form) for form in ("width", "cascade"))
    found = cascade.predict(texts)
    assert [p.tasks["sentiment"].label for p in found] == [p.tasks["sentiment"].label for p in width.predict(texts)]
    assert {p.stage for p in found} == {1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "rows are needed for sentiment too"),
        (("--fit", "sentiment"), "--fit sentiment is not of the form TASK=VALUE"),
        (("--fit", "topic=rows.csv"), "has no task 'topic', only sentiment"),
        (("--stage", "third"), "the stages of the cascade do not name each of"),
    ],
)
def test_what_is_no_cascade_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, stack: Path, tmp_path: Path
) -> None:
    done = run("cascade", stack, "--out", tmp_path / "deep", *STAGES, *arguments, fails=True)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_exact_cascade_of_a_pool_it_cannot_bound_is_refused(stack: Path) -> None:
    bundle = load_bundle(stack)
    task = bundle.manifest.tasks["sentiment"].model_copy(
        update={"pool": PowerPool(weights=(0.6, 0.2, 0.2), exponent=0)}
    )
    logs = Bundle(bundle.root, bundle.manifest.model_copy(update={"tasks": {"sentiment": task}}))
    with pytest.raises(BundleError, match="an exact cascade needs a linear pool"):
        add_cascade(logs, Descent((("small",), ("large", "other")), "exact"), (), tell_nobody)


@pytest.mark.parametrize("kind", ["multi", "spans"])
def test_tasks_without_one_label_a_row_are_refused_by_the_engine_too(kind: str, stack: Path) -> None:
    bundle = load_bundle(stack)
    task = bundle.manifest.tasks["sentiment"].model_copy(update={"kind": kind})
    odd = Bundle(bundle.root, bundle.manifest.model_copy(update={"tasks": {"sentiment": task}}))
    with pytest.raises(BundleError, match=f"a cascade answers tasks of kind single and entity.*sentiment is {kind}"):
        add_cascade(odd, Descent((("small",), ("large", "other"))), (), tell_nobody)


def test_a_text_with_an_entity_that_an_early_stage_cannot_judge_goes_on(tmp_path: Path) -> None:
    """The first member answers sentiment alone, the second also how each entity fares."""
    base = write_base(tmp_path / "base")
    first, second = (member_spec(tmp_path / "stack", name, base) for name in ("first", "second"))
    second = give_entity_head(tmp_path / "stack", second)
    members = [first, second.model_copy(update={"heads": {"sentiment": second.heads["sentiment"]}})]
    manifest = load_bundle(write_stack(tmp_path / "stack", members)).manifest
    sure = StageTask(pool=mean_pool(1), calibrator=Identity(), stop_above=0)
    stages = StageSpec(members=("first",), tasks={"sentiment": sure}), StageSpec(members=("second",))
    changes = {
        "members": (first, second),
        "tasks": dict(manifest.tasks) | {"stance": entity_task("second")},
        "cascade": CascadeSpec(mode="bounded", stages=stages),
    }
    save_manifest(tmp_path / "stack", manifest.model_copy(update=changes))
    engine = Engine.load(tmp_path / "stack", precision="fp32")
    named, bare = engine.predict(["oil falls", "oil falls"], [[Mention("symbol", "OIL", 0, 3)], []])
    assert (named.stage, bare.stage) == (2, 1)
    assert named.entities[0].tasks.keys() == {"stance"}
