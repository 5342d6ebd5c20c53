import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn_members import draw_held_out, draw_members
from stacknorm.errors import DataError
from stacknorm.pooling.held_out import UNLISTED, HeldOut, nll
from stacknorm.pooling.pool import mean_pool


def test_rows_that_were_trained_on_are_counted_and_refused() -> None:
    members, truth = draw_members(1, rows=10)
    prints = np.arange(10)
    HeldOut(members, truth, prints, (np.arange(10, 40),))
    with pytest.raises(DataError, match="3 of 10 rows to fit on were trained on"):
        HeldOut(members, truth, prints, (np.array([2, 5, 9, 77]),))


def test_out_of_fold_rows_may_be_known_to_the_other_folds_models_alone() -> None:
    members, truth = draw_members(1, rows=10)
    prints, folds = np.arange(10), np.arange(10) % 2
    seen = (prints[folds == 1], prints[folds == 0])
    HeldOut(members, truth, prints, seen, folds)
    with pytest.raises(DataError, match="10 of 10"):
        HeldOut(members, truth, prints, seen[::-1], folds)


def test_a_copy_of_a_text_in_another_fold_is_found() -> None:
    members, truth = draw_members(1, rows=4)
    prints, folds = np.array([7, 8, 7, 9]), np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match="2 of 4"):
        HeldOut(members, truth, prints, (prints[folds == 1], prints[folds == 0]), folds)


@given(st.lists(st.integers(0, 12), min_size=2), st.integers(0, 99), st.integers(2, 5))
def test_every_row_is_scored_once_and_copies_of_a_text_are_on_one_side(texts: list[int], seed: int, parts: int) -> None:
    members, truth = draw_members(seed, rows=len(texts))
    prints = np.array(texts)
    held_out = HeldOut(members, truth, prints, (UNLISTED,))
    if len(set(texts)) < 2:
        with pytest.raises(DataError, match="1 text"):
            list(held_out.split(parts, seed))
        return
    splits = list(held_out.split(parts, seed))
    assert sorted(np.concatenate([rows for _, rows in splits]).tolist()) == list(range(len(texts)))
    for part, rows in splits:
        assert len(part.truth) + len(rows) == len(texts)
        assert not set(part.prints.tolist()) & set(prints[rows].tolist())


def test_the_split_depends_on_texts_and_seed_and_not_on_the_order_of_rows() -> None:
    held_out = draw_held_out(1, rows=50)
    order = np.random.default_rng(0).permutation(50)
    moved = held_out.take(order)
    plain = [set(held_out.prints[rows].tolist()) for _, rows in held_out.split(5, seed=3)]
    assert plain == [set(moved.prints[rows].tolist()) for _, rows in moved.split(5, seed=3)]
    assert plain != [set(held_out.prints[rows].tolist()) for _, rows in held_out.split(5, seed=4)]


def test_labels_of_one_text_become_binary_rows_that_stay_together() -> None:
    random = np.random.default_rng(1)
    members, applies = random.uniform(size=(2, 6, 3)), random.uniform(size=(6, 3)) < 0.5
    held_out = HeldOut.of_labels(members, applies, np.arange(6), (UNLISTED, UNLISTED), np.arange(6) % 2)
    assert held_out.members.shape == (2, 18, 2)
    assert held_out.prints.tolist() == [row // 3 for row in range(18)]
    right = np.where(applies, members, 1 - members).mean(axis=0)
    assert nll(mean_pool(2)(held_out.members), held_out.truth) == pytest.approx(-np.log(right).mean())
    for _, rows in held_out.split(3, seed=0):
        assert set(np.bincount(held_out.prints[rows])) <= {0, 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": np.ones((2, 4))}, r"not \[2, 4\]"),
        ({"members": np.ones((2, 4, 3))}, "do not give probabilities"),
        ({"members": np.full((2, 4, 3), np.nan)}, "do not give probabilities"),
        ({"truth": np.array([0, 1, 2, 3])}, "labels from 0 to 3, but there are 3"),
        ({"truth": np.array([0, 1])}, "4 rows, but 2 labels"),
        ({"folds": np.array([0, 0, 1, 0])}, "1 folds were trained"),
        ({"trained_on": ()}, "0 folds were trained"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    parts = {
        "members": np.full((2, 4, 3), 1 / 3),
        "truth": np.array([0, 1, 2, 0]),
        "prints": np.arange(4),
        "trained_on": (UNLISTED,),
    }
    with pytest.raises(ValueError, match=message):
        HeldOut(**(parts | change))  # type: ignore[arg-type]  # wrong on purpose
