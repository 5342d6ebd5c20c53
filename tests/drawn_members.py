"""Members drawn at random that know more and less of a drawn truth, for tests of pools and calibrators."""

import numpy as np

from stacknorm.pooling.held_out import UNLISTED, HeldOut, Truth
from stacknorm.pooling.pool import Probabilities, softmax


def draw_members(
    seed: int, members: int = 3, rows: int = 80, labels: int = 4, sharpness: float = 1.0
) -> tuple[Probabilities, Truth]:
    """Probabilities [members, rows, labels] and the truth [rows]; a sharpness above 1 makes members overconfident."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=rows)
    skill = random.uniform(0.5, 3, size=(members, 1, 1))
    logits = random.normal(size=(members, rows, labels)) + skill * np.eye(labels)[truth]
    return softmax(sharpness * logits), truth


def draw_distributions(seed: int, *shape: int) -> Probabilities:
    """Points of the simplex, evenly; the last axis is the labels."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def draw_truth(probabilities: Probabilities, seed: int) -> Truth:
    """Labels [n] drawn from their true probabilities [n, c]."""
    random = np.random.default_rng(seed)
    return (probabilities.cumsum(axis=1) > random.uniform(size=(len(probabilities), 1))).argmax(axis=1)


def hold_out_members(members: Probabilities, truth: Truth) -> HeldOut:
    """Each row a text of its own that nothing was trained on."""
    return HeldOut(members, truth, np.arange(len(truth)), (UNLISTED,))


def draw_held_out(seed: int, members: int = 3, rows: int = 80, labels: int = 4, sharpness: float = 1.0) -> HeldOut:
    """Held-out rows of drawn members."""
    return hold_out_members(*draw_members(seed, members, rows, labels, sharpness))
