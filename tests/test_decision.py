"""What members say becomes one answer: placed on the label space, pooled over those that spoke, calibrated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.bases.source import BASE_FILES
from stacknorm.bundle import BaseSpec, HeadSpec, Manifest, MemberSpec, TaskSpec
from stacknorm.inference.decision import Decision, decide
from stacknorm.pooling.calibrate import Identity, Temperature, apply_temperature
from stacknorm.pooling.conformal import ClassConditional
from stacknorm.pooling.pool import PowerPool

BASE = BaseSpec(references=("nowhere",), files=dict.fromkeys(BASE_FILES, "0" * 64))
MINE = ("negative", "neutral", "positive")
THEIRS = ("bullish", "bearish", "mixed")


def stack(kind: str = "single", labels: tuple[str, ...] = MINE, **task: object) -> Decision:
    orders = (MINE, THEIRS) if labels == MINE else (labels, labels)
    members = tuple(
        MemberSpec(name=name, base=BASE, heads={"sentiment": HeadSpec(labels=order, pooling="native")})
        for name, order in zip(("mine", "theirs"), orders, strict=True)
    )
    given_ = {"pool": PowerPool(weights=(0.75, 0.25)), "calibrator": Identity(), "best_member": "mine"} | task
    spec = TaskSpec(kind=kind, labels=labels, **given_)
    manifest = Manifest(name="two", languages=("en",), max_tokens=16, tasks={"sentiment": spec}, members=members)
    return decide(manifest, "sentiment", "width")


NOW = np.zeros(1, dtype=np.int64)


def test_members_of_different_label_orders_are_placed_on_one_space() -> None:
    members = stack().place({"mine": np.array([[0.7, 0.2, 0.1]]), "theirs": np.array([[0.1, 0.7, 0.2]])}, 1)
    assert members[0].tolist() == members[1].tolist() == [[0.7, 0.2, 0.1]]


def test_a_member_that_did_not_speak_leaves_its_weight_to_the_others() -> None:
    decision = stack()
    shares = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    theirs = np.array([[np.nan] * 3, [0.2, 0.5, 0.3]])
    answers, _ = decision.answer(decision.place({"mine": shares, "theirs": theirs}, 2), np.zeros(2, dtype=np.int64))
    assert answers[0].tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert answers[1].tolist() == pytest.approx([0.75 * 0.5 + 0.25 * 0.5, 0.75 * 0.3 + 0.25 * 0.3, 0.2])


def test_where_nobody_spoke_there_is_no_answer() -> None:
    decision = stack()
    assert decision.describe(decision.place({}, 1), NOW) == [None]


def test_each_member_has_its_own_temperature_before_pooling_and_the_pool_one_after() -> None:
    decision = stack(member_temperatures=(2.0, 0.5), calibrator=Temperature(temperature=3.0))
    mine, theirs = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.7, 0.2]])
    placed = apply_temperature(mine, 2.0), apply_temperature(theirs[:, [1, 2, 0]], 0.5)
    by_hand = apply_temperature(0.75 * placed[0] + 0.25 * placed[1], 3.0)
    answers, _ = decision.answer(decision.place({"mine": mine, "theirs": theirs}, 1), NOW)
    assert answers == pytest.approx(by_hand)


def test_the_labels_of_a_multi_task_are_pooled_each_for_itself() -> None:
    decision = stack("multi", ("oil", "gold", "bank"), calibrator=Temperature(temperature=2.0))
    mine, theirs = np.array([[0.9, 0.8, 0.1]]), np.array([[0.5, 0.4, 0.3]])
    (found,) = decision.describe(decision.place({"mine": mine, "theirs": theirs}, 1), NOW)
    mixed = 0.75 * mine[0] + 0.25 * theirs[0]
    odds = np.sqrt(mixed / (1 - mixed))
    assert list(found.probabilities.values()) == pytest.approx((odds / (1 + odds)).tolist())
    assert found.label == "oil"
    assert found.entropy > 0
    assert found.disagreement > 0


def test_a_conformal_set_holds_the_labels_that_cannot_be_ruled_out() -> None:
    decision = stack(conformal=ClassConditional(alpha=0.1, thresholds=(0.5, 0.9, 1.0)))
    shares = np.array([[0.7, 0.2, 0.1]])
    (found,) = decision.describe(decision.place({"mine": shares, "theirs": shares[:, [2, 0, 1]]}, 1), NOW)
    assert found.conformal_set == MINE
    assert stack().describe(decision.place({"mine": shares}, 1), NOW)[0].conformal_set == ()


@given(st.integers(0, 2**32 - 1))
def test_an_answer_does_not_depend_on_the_rows_beside_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    decision = stack()
    members = random.dirichlet(np.ones(3), size=(2, 12))
    members[0, random.random(12) < 0.3] = np.nan
    members[1, np.isnan(members[0]).any(axis=1) ^ (random.random(12) < 0.3)] = random.dirichlet(np.ones(3))
    together, split = decision.answer(members, np.zeros(12, dtype=np.int64))
    for row in range(12):
        alone, apart = decision.answer(members[:, [row]], NOW)
        assert together[row] == pytest.approx(alone[0])
        assert split[row] == pytest.approx(apart[0])
