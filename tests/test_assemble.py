import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from stacknorm.assembly.assemble import Rows, assemble
from stacknorm.bundle import CascadeSpec, StageSpec, load_bundle
from stacknorm.engine import Engine
from stacknorm.errors import BundleError, DataError, LabelError
from stacknorm.inference.decision import decide
from stacknorm.labels import SENTIMENT
from stacknorm.pooling.pool import PowerPool, mean_pool
from tiny_bases import write_base
from tiny_classifiers import write_classifier, write_rows, write_sentences

TEXTS, LABELS = write_sentences(200, seed=9)
TRUTH = np.array([SENTIMENT.index(label) for label in LABELS])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classifiers of four families and label orders, and labelled rows."""
    root = tmp_path_factory.mktemp("models")
    write_classifier(root / "bert", "bert", ["positive", "negative", "neutral"], seed=3)
    write_classifier(root / "Distil BERT", "distilbert", ["Neutral", "Bullish", "Bearish"], seed=3)
    write_classifier(root / "polar", "roberta", ["POSITIVE", "NEGATIVE"], seed=3)
    write_classifier(root / "silent", "roberta", ["LABEL_0", "LABEL_1", "LABEL_2"], ["neu", "pos", "neg"], seed=3)
    stars = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    write_base(root / "stars", "electra", labels=5, id2label=dict(enumerate(stars)), label2id={})
    write_rows(root / "rows.csv")
    return root


def say(bundle: Path) -> np.ndarray:
    return Engine.load(bundle, precision="fp32").member_probabilities(TEXTS)["sentiment"]


def test_members_of_any_label_order_answer_on_one_space_and_their_mean_is_said_to_be_uncalibrated(
    models: Path, tmp_path: Path
) -> None:
    bundle = assemble([models / "bert", models / "Distil BERT"], tmp_path / "both")
    task = bundle.manifest.tasks["sentiment"]
    assert (task.pool, task.calibrator.kind, task.calibrated) == (mean_pool(2), "identity", False)
    assert [member.name for member in bundle.manifest.members] == ["bert", "distil-bert"]
    accuracies = (say(bundle.root).argmax(axis=2) == TRUTH).mean(axis=1)
    assert (accuracies > 0.6).all(), "a wrong order of three labels would be right on a third"
    assert load_bundle(bundle.root) == bundle


def test_a_bundle_moves_together_with_the_directories_it_names(models: Path, tmp_path: Path) -> None:
    write_classifier(tmp_path / "one" / "bert", "bert", ["positive", "negative", "neutral"])
    assemble([tmp_path / "one" / "bert"], tmp_path / "one" / "stack")
    (tmp_path / "one").rename(tmp_path / "two")
    bundle = load_bundle(tmp_path / "two" / "stack")
    assert bundle.manifest.members[0].base.references == (str(Path("..") / "bert"),)
    assert bundle.base_directory(bundle.manifest.members[0]) == tmp_path / "two" / "bert"


def test_labels_that_say_nothing_are_refused_until_a_map_explains_them(models: Path, tmp_path: Path) -> None:
    silent = str(models / "silent")
    with pytest.raises(LabelError, match=r"silent: label 'LABEL_0' says nothing about sentiment"):
        assemble([silent], tmp_path / "stack")
    assert not (tmp_path / "stack").exists()
    meant = {"LABEL_0": "neutral", "LABEL_1": "pos", "LABEL_2": "neg"}
    bundle = assemble([silent], tmp_path / "stack", maps={silent: meant})
    assert bundle.manifest.members[0].heads["sentiment"].map["LABEL_2"] == "negative"
    assert (say(bundle.root)[0].argmax(axis=1) == TRUTH).mean() > 0.6


def test_labels_that_say_nothing_are_inferred_from_rows_with_a_warning_that_says_what_they_were_taken_for(
    models: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    rows = Rows(models / "rows.csv")
    bundle = assemble([models / "bert", models / "silent"], tmp_path / "stack", infer=rows, warn=told.append)
    head = bundle.manifest.members[1].heads["sentiment"]
    assert head.map == {"LABEL_0": "neutral", "LABEL_1": "positive", "LABEL_2": "negative"}
    assert len(told) == 1
    assert "silent: its labels were inferred from 300 labelled rows, not declared by the model" in told[0]


def test_five_stars_are_mapped_in_the_manifest_so_that_it_explains_itself(models: Path, tmp_path: Path) -> None:
    bundle = assemble([models / "stars"], tmp_path / "stack")
    assert bundle.manifest.members[0].heads["sentiment"].map["2 stars"] == "negative"
    assert bundle.manifest.members[0].heads["sentiment"].map["3 stars"] == "neutral"


def test_a_member_without_a_label_leaves_it_to_the_others_and_is_refused_alone(models: Path, tmp_path: Path) -> None:
    bundle = assemble([models / "bert", models / "polar"], tmp_path / "stack")
    whole, polar = say(bundle.root)
    assert polar[:, 1] == pytest.approx(whole[:, 1])
    assert polar.sum(axis=1) == pytest.approx(1)
    with pytest.raises(LabelError, match=r"no member has all labels of sentiment: .*polar lacks neutral"):
        assemble([models / "polar"], tmp_path / "alone")


def test_a_cascade_is_not_exact_where_a_later_member_says_what_an_earlier_one_lacks(
    models: Path, tmp_path: Path
) -> None:
    bundle = assemble([models / "bert", models / "polar"], tmp_path / "stack")
    stages = (StageSpec(members=("polar",)), StageSpec(members=("bert",)))
    manifest = bundle.manifest.model_copy(update={"cascade": CascadeSpec(mode="exact", stages=stages)})
    with pytest.raises(BundleError, match="an exact cascade needs members that have all labels of task sentiment"):
        decide(manifest, "sentiment", "cascade")


def test_pool_and_calibrator_are_chosen_on_rows_and_the_manifest_says_which(models: Path, tmp_path: Path) -> None:
    rows = models / "rows.csv"
    bundle = assemble([models / "bert", models / "Distil BERT", models / "polar"], tmp_path / "stack", fit=Rows(rows))
    task = bundle.manifest.tasks["sentiment"]
    assert task.calibrated
    assert task.fitted_on is not None
    assert task.fitted_on.model_dump() == {
        "file": "rows.csv",
        "rows": 300,
        "sha256": hashlib.sha256(rows.read_bytes()).hexdigest(),
    }
    scores = bundle.manifest.scores["sentiment"]
    assert list(scores) == ["stack", "bert", "distil-bert", "polar"]
    assert scores["stack"]["nll"].value <= scores[task.best_member]["nll"].value
    assert load_bundle(bundle.root) == bundle


def test_a_member_that_declares_a_wrong_order_is_doubted_where_rows_tell(models: Path, tmp_path: Path) -> None:
    write_classifier(tmp_path / "liar", "bert", ["positive", "negative", "neutral"], ["neg", "pos", "neu"], seed=3)
    told: list[str] = []
    assemble([models / "bert", tmp_path / "liar"], tmp_path / "stack", fit=Rows(models / "rows.csv"), warn=told.append)
    (doubt,) = told
    assert "the rows read the labels of liar otherwise than they are declared" in doubt
    assert "negative = positive, neutral = neutral, positive = negative" in doubt


def test_integers_in_rows_mean_what_the_caller_says(models: Path, tmp_path: Path) -> None:
    lines = (models / "rows.csv").read_text().splitlines()
    numbers = {"positive": "0", "negative": "1", "neutral": "2"}
    coded = [lines[0]] + [f"{text},{numbers[label]}" for text, label in (line.split(",") for line in lines[1:])]
    (tmp_path / "coded.csv").write_text("\n".join(coded))
    rows = Rows(tmp_path / "coded.csv", ("positive", "negative", "neutral"))
    bundle = assemble([models / "bert"], tmp_path / "stack", fit=rows, warn=pytest.fail)
    assert bundle.manifest.scores["sentiment"]["stack"]["accuracy"].value > 0.6


def test_what_goes_wrong_leaves_nothing_behind(models: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("text,label\nacme,angry\n")
    with pytest.raises(DataError, match=r"bad\.csv, line 2: label 'angry'"):
        assemble([models / "bert"], tmp_path / "deep" / "stack", fit=Rows(tmp_path / "bad.csv"))
    assert not (tmp_path / "deep" / "stack").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(BundleError, match="full is not empty"):
        assemble([models / "bert"], tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    root = write_base(tmp_path / "old", labels=3)
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model\.bin is a pickle .* stacknorm convert"):
        assemble([root], tmp_path / "stack")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "describes a BertForMaskedLM"),
        ({"id2label": {"0": "neg", "2": "pos"}}, "id2label does not number its labels"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "asks for code of its own"),
    ],
)
def test_what_is_no_plain_classifier_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    root = write_base(tmp_path / "odd", labels=3, id2label={0: "neg", 1: "neu", 2: "pos"}, label2id={})
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(BundleError, match=message):
        assemble([root], tmp_path / "stack")


def test_members_that_answer_different_kinds_of_task_do_not_mix(models: Path, tmp_path: Path) -> None:
    names = {0: "neg", 1: "neu", 2: "pos"}
    many = write_base(tmp_path / "many", labels=3, task="multi", id2label=names, label2id={})
    with pytest.raises(BundleError, match=r"answer different tasks: .*bert single, .*many multi"):
        assemble([models / "bert", many], tmp_path / "stack")
    bundle = assemble([many], tmp_path / "many-alone")
    assert bundle.manifest.tasks["sentiment"].kind == "multi"
    with pytest.raises(BundleError, match="only tasks of kind single"):
        assemble([many], tmp_path / "many-fitted", fit=Rows(models / "rows.csv"))


def test_one_directory_twice_gets_two_names_and_an_unknown_map_is_refused(models: Path, tmp_path: Path) -> None:
    bundle = assemble([models / "bert", models / "bert"], tmp_path / "stack")
    assert [member.name for member in bundle.manifest.members] == ["bert", "bert-2"]
    with pytest.raises(LabelError, match="a map for elsewhere, which is not one of the members"):
        assemble([models / "bert"], tmp_path / "other", maps={"elsewhere": {}})


def test_a_bundle_needs_a_name_it_can_have_and_a_member(models: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such bundle can be made: name: String should match"):
        assemble([models / "bert"], tmp_path / "stack", name="My Stack")
    with pytest.raises(BundleError, match="at least one member"):
        assemble([], tmp_path / "stack")


def test_an_unpinned_revision_of_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="pin the revision"):
        assemble(["hub:ProsusAI/finbert@main"], tmp_path / "stack")


def test_a_task_of_a_users_own_needs_its_labels(tmp_path: Path) -> None:
    mood = write_base(tmp_path / "mood", labels=2, id2label={0: "calm", 1: "angry"}, label2id={})
    with pytest.raises(LabelError, match="the labels of task 'mood' must be named"):
        assemble([mood], tmp_path / "stack", task="mood")
    bundle = assemble([mood], tmp_path / "stack", task="mood", labels=["angry", "calm"], languages=["en", "de"])
    assert bundle.manifest.tasks["mood"].labels == ("angry", "calm")
    assert bundle.manifest.languages == ("en", "de")


def test_what_is_known_of_members_beforehand_weighs_them_and_calibrates_nothing(models: Path, tmp_path: Path) -> None:
    both = [models / "bert", models / "Distil BERT"]
    weighted = assemble(both, tmp_path / "weighted", weights={"bert": 1, "distil-bert": 3}).manifest.tasks["sentiment"]
    assert weighted.pool == PowerPool(weights=(0.25, 0.75))
    assert (weighted.calibrated, weighted.best_member) == (False, "distil-bert")
    known = {str(models / "bert"): 0.8, "distil-bert": 0.5}
    prior = assemble(both, tmp_path / "prior", accuracies=known).manifest.tasks["sentiment"]
    odds = np.log([0.8 / 0.2 * 2, 0.5 / 0.5 * 2])
    assert prior.pool.weights == pytest.approx(odds / odds.sum())
    assert prior.best_member == "bert"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {"weights": {"bert": 1}},
            "each of bert, distil-bert needs a weight, and nothing else has one; given are bert",
        ),
        ({"weights": {"bert": 1, "distil-bert": 1, "other": 1}}, "nothing else has one"),
        ({"weights": {"bert": 0, "distil-bert": 0}}, "not all zero"),
        ({"accuracies": {"bert": 87, "distil-bert": 91}}, "accuracies lie between 0 and 1"),
        ({"accuracies": {}, "weights": {}}, "are three ways to one pool: give one"),
    ],
)
def test_what_cannot_weigh_members_is_refused(
    known: dict[str, dict[str, float]], message: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        assemble([models / "bert", models / "Distil BERT"], tmp_path / "stack", **known)
