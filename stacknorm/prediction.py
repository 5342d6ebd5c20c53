"""What a stack says about a text: plain frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """One task's answer, pooled and calibrated."""

    label: str
    """The likeliest label."""
    probabilities: Mapping[str, float]
    """For every label of the task, in the order of its label space; they sum to 1."""
    entropy: float
    """Of `probabilities`, in nats."""
    disagreement: float
    """Mutual information between the label and which member speaks, in nats; 0 when all members agree."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """All tasks' answers for one text."""

    tasks: Mapping[str, TaskPrediction]


@dataclass(frozen=True, slots=True)
class StackIdentity:
    """Which stack made a prediction."""

    name: str
    digest: str
    """sha256 of the canonical manifest, which holds the digest of every file."""
