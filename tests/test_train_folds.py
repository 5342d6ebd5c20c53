import json
from pathlib import Path

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score
from seqeval.scheme import IOB2

from stacknorm.bundle import load_bundle
from stacknorm.errors import DataError
from stacknorm.evaluation.metrics import nll, shown_metrics
from stacknorm.evaluation.paired import Paired, PairedCounts
from stacknorm.pooling.choice import choose
from stacknorm.spans.decode import likeliest_tags
from stacknorm.spans.tags import head_tags
from stacknorm.training.evidence import Evidence, gather_evidence
from stacknorm.training.fit import fit_task
from stacknorm.training.folds import cross_validate
from stacknorm.training.plan import fold_jobs, make_plan
from stacknorm.training.recipe import TaskRecipe
from stacknorm.training.run import run_jobs
from stacknorm.training.train import train_bundle
from toy_training import FATES, HEAD, MATTER, ONE, quiet, write_toys


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folds")
    write_toys(root)
    (root / "toy.toml").write_text(HEAD.replace("epochs = 2", "epochs = 6") + FATES + ONE)
    return root


def test_cross_validation_scores_every_mention_and_goes_on_fold_by_fold(toys: Path, tmp_path: Path) -> None:
    plan = make_plan(toys / "toy.toml", toys / "data", tmp_path)
    jobs = fold_jobs(plan, 3)
    run_jobs(plan, jobs[:2], quiet())
    console = quiet()
    found = cross_validate(toys / "toy.toml", toys / "data", tmp_path, 3, console)["fates"]
    said = console.export_text()
    assert "1 of 3 trainings to do" in said
    assert "one, fold 3 of 3: epoch 1" in said
    assert "one, fold 1 of 3" not in said
    assert "100 answers in 50 texts" in said
    assert (found.units, found.texts) == (100, 50)
    assert found.scores["one"]["accuracy"].value > 0.8
    written = json.loads((tmp_path / "folds.json").read_text())
    assert written["tasks"]["fates"]["scores"]["one"]["accuracy"]["value"] == found.scores["one"]["accuracy"].value
    assert written["tasks"]["fates"]["best_member"] == "one"
    assert isinstance(found.against_best, Paired)
    assert written["tasks"]["fates"]["against_best"]["mcnemar_p"] == found.against_best.mcnemar_p
    assert "its best member one" in said


def test_answers_are_gathered_in_the_order_of_the_corpus_each_from_the_fold_that_had_not_seen_it(
    toys: Path, tmp_path: Path
) -> None:
    plan = make_plan(toys / "toy.toml", toys / "data", tmp_path)
    jobs = fold_jobs(plan, 3)
    run_jobs(plan, jobs, quiet())
    evidence = gather_evidence(plan, jobs)["fates"]
    labels = [mark.label for example in plan.corpus.examples for mark in example.marks]
    assert evidence.truth.tolist() == labels
    assert evidence.prints.tolist() == np.repeat(plan.corpus.prints, 2).tolist()
    for fold, prints in enumerate(evidence.trained_on):
        assert not np.isin(evidence.prints[evidence.folds == fold], prints).any()
    assert evidence.held_out().members.shape == (1, 100, 2)


def test_spans_are_scored_strictly_as_seqeval_does_it() -> None:
    labels, names = ("negative", "positive"), head_tags(("negative", "positive"))
    random = np.random.default_rng(0)
    true = [["O", *random.choice(names[1::2], 1), "O", "O", *random.choice(names[1::2], 1)] for _ in range(60)]
    said = [[str(random.choice(names[::2])) if random.random() < 0.1 else tag for tag in text] for text in true]
    tags = np.array([names.index(tag) for text in said for tag in text])
    probabilities = np.full((len(tags), len(names)), 0.01)
    probabilities[np.arange(len(tags)), tags] = 0.96
    decoded = [[names[tag] for tag in likeliest_tags(part)] for part in np.split(probabilities, 60)]
    evidence = Evidence(
        kind="spans",
        members={"one": probabilities},
        truth=np.array([names.index(tag) for text in true for tag in text]),
        prints=np.repeat(np.arange(60), 5),
        folds=np.zeros(300, dtype=np.int64),
        examples=np.repeat(np.arange(60), 5),
        trained_on=(np.array([1000]),),
    )
    found = evidence.score(probabilities, labels)
    assert 0.5 < found["span_f1"].value < 1
    strict = {"mode": "strict", "scheme": IOB2}
    assert found["span_f1"].value == pytest.approx(f1_score(true, decoded, **strict), abs=1e-5)
    assert found["span_precision"].value == pytest.approx(precision_score(true, decoded, **strict), abs=1e-5)
    assert shown_metrics({"one": found})["span_f1"] == "span F1"


def test_the_best_member_for_spans_is_the_one_with_the_best_spans_not_the_likeliest_tags() -> None:
    truth = np.tile([0, 1, 2, 0, 0, 3, 0], 12)
    timid, bold = (np.full((len(truth), 5), rest) for rest in (0.15, 0.001))
    timid[np.arange(len(truth)), truth] += 0.3  # likely everywhere, but for the ends of its spans
    timid[np.flatnonzero(truth == 2), 0] = 0.5
    bold[np.arange(len(truth)), truth] = 0.996
    bold[:14] = np.roll(bold[:14], 1, axis=1)  # right everywhere, but for two texts of which it is sure
    shares = {name: given / given.sum(axis=1, keepdims=True) for name, given in (("timid", timid), ("bold", bold))}
    texts = np.repeat(np.arange(12), 7)
    evidence = Evidence("spans", shares, truth, texts, texts % 2, texts, (np.array([99]), np.array([98])))
    likelihoods = {name: nll(given, truth) for name, given in shares.items()}
    fitted = fit_task(TaskRecipe(kind="spans", labels=("negative", "positive")), evidence, choose)
    assert fitted.scores["bold"]["span_f1"].value > fitted.scores["timid"]["span_f1"].value
    assert likelihoods["timid"] < likelihoods["bold"]
    assert fitted.spec.best_member == "bold"
    assert isinstance(fitted.against_best, PairedCounts)


def test_a_bundle_with_folds_is_fitted_on_all_rows_out_of_fold(toys: Path, tmp_path: Path) -> None:
    (toys / "fitted.toml").write_text(HEAD + "folds = 2\n" + MATTER + ONE)
    console = quiet()
    train_bundle(toys / "fitted.toml", toys / "data", tmp_path, console)
    assert "3 of 3 trainings to do" in console.export_text()
    training = load_bundle(tmp_path).manifest.training
    assert training is not None
    assert sum(training.rows.values()) == 60


def test_more_folds_than_texts_are_refused(toys: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task fates has too few rows"):
        fold_jobs(make_plan(toys / "toy.toml", toys / "data", tmp_path), 60)
