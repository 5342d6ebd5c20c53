import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import gmean, pmean, trim_mean
from sklearn.linear_model import LogisticRegression

from drawn_members import draw_distributions, draw_members
from stacknorm.pooling.pool import (
    LogisticPool,
    Pool,
    PowerPool,
    TrimmedPool,
    VotePool,
    from_pairs,
    mean_pool,
    most_cut,
    to_pairs,
)

seeds = st.integers(0, 2**32 - 1)
MEMBERS, LABELS = 5, 4


def draw_weights(seed: int) -> tuple[float, ...]:
    return tuple(np.random.default_rng(seed).dirichlet(np.ones(MEMBERS)).tolist())


def draw_logistic(seed: int) -> LogisticPool:
    random = np.random.default_rng(seed)
    return LogisticPool(
        coefficients=random.normal(size=(MEMBERS, LABELS, LABELS)).tolist(),
        intercepts=random.normal(size=LABELS).tolist(),
        fallback=PowerPool(weights=draw_weights(seed), exponent=0),
    )


DRAWN: dict[str, Callable[[int], Pool]] = {
    "mean": lambda seed: mean_pool(MEMBERS),
    "weighted": lambda seed: PowerPool(weights=draw_weights(seed)),
    "power": lambda seed: PowerPool(weights=draw_weights(seed), exponent=0.3),
    "nearly log": lambda seed: PowerPool(weights=draw_weights(seed), exponent=1e-9),
    "log": lambda seed: PowerPool(weights=draw_weights(seed), exponent=0),
    "vote": lambda seed: VotePool(weights=draw_weights(seed)),
    "median": lambda seed: TrimmedPool(members=MEMBERS, cut=most_cut(MEMBERS)),
    "trimmed": lambda seed: TrimmedPool(members=MEMBERS, cut=1),
    "logistic": draw_logistic,
}
AGREEING = [name for name in DRAWN if name not in {"vote", "logistic"}]


def permute(pool: Pool, order: list[int]) -> Pool:
    """The same pool for members in another order."""
    if isinstance(pool, TrimmedPool):
        return pool
    if isinstance(pool, LogisticPool):
        moved = tuple(pool.coefficients[i] for i in order)
        return pool.model_copy(update={"coefficients": moved, "fallback": permute(pool.fallback, order)})
    return pool.model_copy(update={"weights": tuple(pool.weights[i] for i in order)})


@pytest.mark.parametrize("name", DRAWN)
@given(seed=seeds)
def test_a_pool_gives_distributions_whatever_members_say(name: str, seed: int) -> None:
    members, _ = draw_members(seed, MEMBERS, 30, LABELS)
    members[:, :LABELS] = np.eye(LABELS)[np.random.default_rng(seed).integers(LABELS, size=(MEMBERS, LABELS))]
    pooled = DRAWN[name](seed)(members)
    assert pooled.shape == members.shape[1:]
    assert (pooled >= 0).all()
    assert pooled.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("name", DRAWN)
@given(seed=seeds, order=st.permutations(range(MEMBERS)))
def test_the_order_of_members_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    members, _ = draw_members(seed, MEMBERS, 30, LABELS)
    pool = DRAWN[name](seed)
    assert np.allclose(permute(pool, order)(members[order]), pool(members))


@pytest.mark.parametrize("name", AGREEING)
@given(seed=seeds)
def test_members_that_agree_are_left_as_they_are(name: str, seed: int) -> None:
    said = draw_distributions(seed, 1, 30, LABELS)
    assert np.allclose(DRAWN[name](seed)(said.repeat(MEMBERS, axis=0)), said[0], atol=1e-6)


@given(seeds)
def test_members_that_agree_win_the_vote_with_all_shares(seed: int) -> None:
    said = draw_distributions(seed, 1, 30, LABELS)
    votes = DRAWN["vote"](seed)(said.repeat(MEMBERS, axis=0))
    assert votes == pytest.approx(np.eye(LABELS)[said[0].argmax(axis=1)], abs=2e-6)


@pytest.mark.parametrize("name", DRAWN)
@given(seed=seeds, present=st.lists(st.integers(0, MEMBERS - 1), min_size=1, unique=True).map(sorted))
def test_a_pool_of_those_left_is_a_pool_of_its_own(name: str, seed: int, present: list[int]) -> None:
    members, _ = draw_members(seed, MEMBERS, 10, LABELS)
    pool = DRAWN[name](seed)
    left = pool.only(present)
    assert len(left.weights) == len(present)
    assert sum(left.weights) == pytest.approx(1)
    assert left(members[present]).sum(axis=1) == pytest.approx(1)
    if len(present) == MEMBERS:
        assert np.allclose(left(members), pool(members))


@pytest.mark.parametrize("name", DRAWN)
def test_a_pool_is_read_from_a_file_as_it_was_written(name: str) -> None:
    pool = DRAWN[name](3)
    reader: TypeAdapter[Pool] = TypeAdapter(Pool)
    assert reader.validate_json(reader.dump_json(pool)) == pool


@given(seeds, st.floats(0, 1))
def test_a_power_pool_is_never_less_likely_than_its_members_are_on_average(seed: int, exponent: float) -> None:
    members, truth = draw_members(seed, MEMBERS, 30, LABELS)
    weights = draw_weights(seed)
    rows = np.arange(len(truth))
    pooled = np.log(PowerPool(weights=weights, exponent=exponent)(members)[rows, truth])
    assert (pooled >= np.tensordot(weights, np.log(members[:, rows, truth]), axes=1) - 1e-6).all()


@given(seeds, st.floats(0.02, 1))
def test_power_pools_equal_the_means_of_scipy_renormalised(seed: int, exponent: float) -> None:
    members, weights = draw_distributions(seed, MEMBERS, 20, LABELS), draw_weights(seed)
    apart = np.array(weights)[:, None, None] * np.ones_like(members)
    powers = pmean(members, exponent, axis=0, weights=apart)
    products = gmean(members, axis=0, weights=apart)
    assert np.allclose(PowerPool(weights=weights)(members), np.average(members, axis=0, weights=weights))
    for expected, r in ((powers, exponent), (products, 0)):
        ours = PowerPool(weights=weights, exponent=r)(members)
        assert np.allclose(ours, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)


@given(seeds, st.sampled_from([0, 1, 2]))
def test_trimmed_pools_equal_those_of_scipy_and_numpy(seed: int, cut: int) -> None:
    members = draw_distributions(seed, MEMBERS, 20, LABELS)
    ours = TrimmedPool(members=MEMBERS, cut=cut)(members)
    for expected in [trim_mean(members, cut / MEMBERS, axis=0)] + [np.median(members, axis=0)] * (cut == 2):
        assert np.allclose(ours, expected / expected.sum(axis=1, keepdims=True))


def test_a_median_of_an_even_number_stays_a_median_when_members_go() -> None:
    members = draw_distributions(1, 6, 20, LABELS)
    median = TrimmedPool(members=6, cut=most_cut(6))
    for present in ([0, 1, 2, 3, 4, 5], [0, 2, 3, 5], [1, 2, 4], [0, 5], [3]):
        expected = np.median(members[present], axis=0)
        assert np.allclose(median.only(present)(members[present]), expected / expected.sum(axis=1, keepdims=True))


def test_two_members_of_five_that_are_surely_wrong_mislead_the_mean_more_often_than_the_median() -> None:
    members, truth = draw_members(2, MEMBERS, 500, LABELS)
    members[:2] = np.eye(LABELS)[(truth + 1) % LABELS]

    def accuracy(pool: Pool) -> float:
        return float((pool(members).argmax(axis=1) == truth).mean())

    assert accuracy(TrimmedPool(members=MEMBERS, cut=2)) > accuracy(mean_pool(MEMBERS)) + 0.1


@given(seeds)
def test_the_vote_counts_weights_as_by_hand(seed: int) -> None:
    members, weights = draw_distributions(seed, MEMBERS, 20, LABELS), draw_weights(seed)
    shares = VotePool(weights=weights)(members)
    for row in range(20):
        by_hand = [0.0] * LABELS
        for member, weight in enumerate(weights):
            by_hand[max(range(LABELS), key=lambda label: members[member, row, label])] += weight
        assert shares[row].tolist() == pytest.approx(by_hand, abs=2e-6)


def test_a_tied_vote_goes_to_the_label_that_is_likelier_in_the_mean() -> None:
    members = np.array([[[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]], [[0.4, 0.6, 0.0], [0.1, 0.9, 0.0]]])
    votes = VotePool(weights=(0.5, 0.5))(members)
    assert votes.argmax(axis=1).tolist() == [0, 1]
    assert votes == pytest.approx(np.array([[0.5, 0.5, 0], [0.5, 0.5, 0]]), abs=1e-6)


@pytest.mark.parametrize("labels", [3, 5])
def test_a_stacked_regression_says_what_scikit_learn_says(labels: int) -> None:
    members, truth = draw_members(4, MEMBERS, 300, labels)
    inputs = np.concatenate(list(np.log(members)), axis=1)
    model = LogisticRegression(max_iter=1000).fit(inputs, truth)
    coefficients = model.coef_.reshape(labels, MEMBERS, labels).transpose(1, 2, 0)
    pool = LogisticPool(
        coefficients=coefficients.tolist(), intercepts=model.intercept_.tolist(), fallback=mean_pool(MEMBERS)
    )
    assert np.allclose(pool(members), model.predict_proba(inputs))


@given(seeds)
def test_a_stacked_regression_that_adds_log_probabilities_is_the_log_pool(seed: int) -> None:
    members, weights = draw_distributions(seed, MEMBERS, 20, LABELS).clip(min=1e-5), draw_weights(seed)
    members /= members.sum(axis=2, keepdims=True)
    log_pool = PowerPool(weights=weights, exponent=0)
    coefficients = np.array(weights)[:, None, None] * np.eye(LABELS)
    pool = LogisticPool(coefficients=coefficients.tolist(), intercepts=(0.0,) * LABELS, fallback=log_pool)
    assert np.allclose(pool(members), log_pool(members), atol=1e-6)
    assert pool.only(range(MEMBERS)) is pool
    assert pool.only([0, 2]) == log_pool.only([0, 2])


def test_a_label_that_one_member_lacks_survives_the_linear_pool_by_the_others() -> None:
    members = np.array([[[0.0, 1.0]], [[0.6, 0.4]]])
    assert mean_pool(2)(members).tolist() == [[pytest.approx(0.3), pytest.approx(0.7)]]


def test_members_that_had_no_weight_get_equal_ones_when_only_they_are_left() -> None:
    assert PowerPool(weights=(1.0, 0.0, 0.0)).only([1, 2]).weights == (0.5, 0.5)


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_labels_that_apply_each_for_itself_become_binary_rows_and_come_back(seed: int, rows: int, labels: int) -> None:
    given_ = np.random.default_rng(seed).uniform(size=(2, rows, labels))
    pairs = to_pairs(given_)
    assert pairs.shape == (2, rows * labels, 2)
    assert pairs.sum(axis=2) == pytest.approx(1)
    assert pairs[1, (rows - 1) * labels + labels - 1, 1] == given_[1, -1, -1]
    assert (from_pairs(pairs, labels) == given_).all()
    assert (from_pairs(pairs[0], labels) == given_[0]).all()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"kind": "power", "weights": [0.9, 0.9]}, r"sum to 1\.8, not 1"),
        ({"kind": "vote", "weights": [1.5, -0.5]}, "less than or equal to 1"),
        ({"kind": "power", "weights": [1.0], "exponent": 2}, "less than or equal to 1"),
        ({"kind": "trimmed", "members": 4, "cut": 2}, "of 4 cannot lose 2"),
        ({"kind": "sum", "weights": [1.0]}, "'power', 'vote', 'trimmed', 'logistic'"),
        (
            {
                "kind": "logistic",
                "coefficients": [[[1, 0], [0, 1]]],
                "intercepts": [0, 0],
                "fallback": {"weights": [0.5, 0.5]},
            },
            "not members x 2 x 2",
        ),
    ],
)
def test_a_pool_that_is_none_is_refused(written: dict[str, object], message: str) -> None:
    reader: TypeAdapter[Pool] = TypeAdapter(Pool)
    with pytest.raises(ValidationError, match=message):
        reader.validate_python(written)


def test_what_a_worker_applies_needs_numpy_alone() -> None:
    modules = "stacknorm.pooling.pool, stacknorm.pooling.calibrate, stacknorm.pooling.conformal"
    code = f"import sys, {modules}; print({{'scipy', 'sklearn', 'torch'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"
