import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stacknorm.pooling.head_fitting import fit_head
from stacknorm.pooling.held_out import nll
from stacknorm.pooling.pool import Probabilities, softmax


def draw(rows: int = 400, labels: int = 3, seed: int = 0) -> tuple[Probabilities, np.ndarray]:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 8))
    truth = softmax(3 * features @ random.normal(size=(8, labels)))
    return features, (truth.cumsum(axis=1) > random.uniform(size=(rows, 1))).argmax(axis=1)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_head_says_what_scikit_learns_regression_says(labels: int) -> None:
    features, truth = draw(labels=labels)
    head = fit_head(features, truth, np.arange(len(truth)), labels)
    said = softmax(features @ head.weights.T + head.biases)
    theirs = [
        LogisticRegression(C=c, max_iter=2000).fit(features, truth).predict_proba(features) for c in (0.3, 3, 30, 300)
    ]
    assert min(np.abs(said - their).max() for their in theirs) < 0.03


def test_what_a_head_says_of_rows_it_has_not_seen_is_no_better_than_what_it_says_of_those_it_has() -> None:
    features, truth = draw()
    noise = np.random.default_rng(1).normal(size=(len(truth), 150))
    head = fit_head(np.hstack([features, noise]), truth, np.arange(len(truth)), 3)
    assert nll(head.probabilities, truth) > nll(
        softmax(np.hstack([features, noise]) @ head.weights.T + head.biases), truth
    )


def test_copies_of_a_text_stay_together() -> None:
    _, truth = draw(rows=60)
    copies = np.tile(np.arange(60), 2)
    scrambled = np.random.default_rng(2).normal(size=(60, 300))
    head = fit_head(scrambled[copies], truth[copies], copies, 3)
    assert nll(head.probabilities, truth[copies]) > 0.9  # to have seen the copy would make it nearly 0


def test_a_label_that_no_row_bears_is_unlikely_not_impossible() -> None:
    features, truth = draw(labels=3)
    head = fit_head(features, truth, np.arange(len(truth)), 4)
    unseen = softmax(features @ head.weights.T + head.biases)[:, 3]
    assert 0 < unseen.mean() < 0.05
