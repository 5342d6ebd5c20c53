import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.errors import DataError
from stacknorm.text import fingerprint
from stacknorm.training.corpus import (
    Example,
    Mark,
    assign_folds,
    class_weights,
    fold_split,
    hold_out,
    load_corpus,
    rarest_classes,
    whole_split,
)
from stacknorm.training.recipe import Recipe, load_recipe
from toy_training import FATES, FIRMS, HEAD, MATTER, MOOD, ONE, THEMES, write_toys

ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.integers(0, 2)), min_size=1)


def recipe(root: Path, *tasks: str) -> Recipe:
    (root / "toy.toml").write_text(HEAD + "".join(tasks) + ONE)
    return load_recipe(root / "toy.toml")


@given(ROWS, st.integers())
def test_copies_of_a_text_stay_on_one_side_whatever_their_task_and_order(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    prints, tasks, labels = (np.array(column) for column in zip(*rows, strict=True))
    held = hold_out(prints, tasks, labels, 0.3, seed)
    for text in set(prints.tolist()):
        assert len(set(held[prints == text].tolist())) == 1
    order = np.random.default_rng(0).permutation(len(rows))
    assert (hold_out(prints[order], tasks[order], labels[order], 0.3, seed) == held[order]).all()


def test_the_split_of_a_text_never_changes() -> None:
    # Members that were trained before would otherwise be judged by rows they have seen.
    prints = np.array([fingerprint(f"text {number}") for number in range(40)])
    held = hold_out(prints, np.zeros(40, int), np.arange(40) % 2, 0.2, 1987)
    assert np.flatnonzero(held).tolist() == [11, 12, 15, 16, 28, 29, 30, 35]


def test_every_class_of_every_task_is_held_out_in_its_share() -> None:
    prints, tasks, labels = np.arange(1000), np.arange(1000) % 2, np.arange(1000) % 5
    held = hold_out(prints, tasks, labels, 0.1, 0)
    assert {int(held[(tasks == t) & (labels == c)].sum()) for t in range(2) for c in range(5)} == {10}


@given(ROWS, st.integers(2, 5), st.integers())
def test_a_text_lies_in_one_fold_whatever_its_task_and_order(
    rows: list[tuple[int, int, int]], folds: int, seed: int
) -> None:
    prints, tasks, labels = (np.array(column) for column in zip(*rows, strict=True))
    fold_of = assign_folds(prints, tasks, labels, folds, seed)
    for text in set(prints.tolist()):
        assert len(set(fold_of[prints == text].tolist())) == 1
    order = np.random.default_rng(0).permutation(len(rows))
    assert (assign_folds(prints[order], tasks[order], labels[order], folds, seed) == fold_of[order]).all()
    sizes = np.bincount([fold_of[prints == text][0] for text in set(prints.tolist())], minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_folds_deal_every_class_out_evenly() -> None:
    prints, labels = np.arange(1000), np.arange(1000) % 4
    fold_of = assign_folds(prints, np.zeros(1000, int), labels, 5, 0)
    assert {int(((fold_of == fold) & (labels == label)).sum()) for fold in range(5) for label in range(4)} == {50}


def test_no_example_that_a_fold_answers_has_a_part_in_its_training(tmp_path: Path) -> None:
    corpus = load_corpus(recipe(tmp_path, MOOD, MATTER), write_toys(tmp_path))
    fold_of = assign_folds(corpus.prints, corpus.tasks, corpus.strata, 3, 5)
    judged = []
    for fold in range(3):
        split = fold_split(corpus, fold_of, fold)
        seen = np.concatenate([split.train, split.stop])
        assert not np.isin(corpus.prints[split.judge], corpus.prints[seen]).any()
        assert not np.isin(split.train, split.stop).any()
        judged += split.judge.tolist()
    assert sorted(judged) == list(range(len(corpus.examples)))
    whole = whole_split(corpus)
    assert not np.isin(corpus.prints[whole.judge], corpus.prints[whole.train]).any()


def test_urls_punctuation_and_case_do_not_make_another_text() -> None:
    assert fingerprint("Acme FALLS!! https://t.co/x") == fingerprint("acme falls")
    assert fingerprint("acme falls") != fingerprint("acme rises")


def test_class_weights_balance_at_one_and_do_nothing_at_zero() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert class_weights(labels, 2, 0).tolist() == [1, 1]
    assert class_weights(labels, 2, 1).tolist() == pytest.approx([1 / 1.8, 5])


def test_an_example_counts_as_the_rarest_of_its_classes() -> None:
    examples = [Example(str(n), "many", labels) for n, labels in enumerate([(0,), (0, 1), (0, 1, 2), (1,), ()])]
    marked = Example("5", "spans", marks=(Mark(0, 1, 1), Mark(2, 3, 0)))
    assert rarest_classes([*examples, marked]).tolist() == [0, 0, 2, 1, -1, 0]


def test_only_named_files_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    data = write_toys(tmp_path)
    (data / "mood_valid.csv").write_text('not,even\na"csv')
    corpus = load_corpus(recipe(tmp_path, MOOD, MATTER), data)
    assert {source.file for source in corpus.sources} == {"mood.csv", "matter.jsonl"}
    (data / "matter.jsonl").unlink()
    with pytest.raises(DataError, match=r"matter\.jsonl cannot be read"):
        load_corpus(recipe(tmp_path, MOOD, MATTER), data)


def test_every_kind_of_task_is_read_into_examples_of_its_kind(tmp_path: Path) -> None:
    corpus = load_corpus(recipe(tmp_path, THEMES, FIRMS, FATES), write_toys(tmp_path))
    first = {example.task: example for example in reversed(corpus.examples)}
    assert first["themes"].labels == ()
    assert first["firms"] == Example("oil bank falls", "firms", marks=(Mark(4, 14, 0),))
    assert first["fates"] == Example("acme falls bank", "fates", marks=(Mark(0, 4, 0), Mark(11, 15, 1)))


def test_marks_are_taken_along_when_a_text_is_cleaned_and_dropped_when_nothing_is_left(tmp_path: Path) -> None:
    data = write_toys(tmp_path)
    raw = "see https://t.co/x  A&amp;B   falls"
    spans = [
        {"start": raw.index("A"), "end": raw.index("   f"), "label": "negative"},
        {"start": 4, "end": 18, "label": "positive"},
    ]
    (data / "firms.jsonl").write_text(json.dumps({"text": raw, "spans": spans}))
    (example,) = load_corpus(recipe(tmp_path, FIRMS), data).examples
    assert example == Example("see A&B falls", "firms", marks=(Mark(4, 7, 0),))


def test_a_text_of_several_tasks_is_read_once_and_stays_on_one_side(tmp_path: Path) -> None:
    data = write_toys(tmp_path)
    both = [json.loads(line)["text"] for line in (data / "fates.jsonl").read_text().splitlines()]
    (data / "matter.jsonl").write_text("\n".join(json.dumps({"text": text, "label": "oil"}) for text in both))
    corpus = load_corpus(recipe(tmp_path, MATTER, FATES), data)
    assert len(corpus.examples) == 2 * len(both)
    assert len(corpus.texts) == len(both)
    assert (corpus.held_out[: len(both)] == corpus.held_out[len(both) :]).all()
