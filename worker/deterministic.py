"""An engine that labels by a hash of the text: for fault tests, where outputs must be equal to the last bit.

It is no model, and every event it labels says so: its stack is named ``deterministic``.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from datetime import date

from stacknorm.prediction import Prediction, StackIdentity, TaskPrediction

CONFIDENCE = 0.9


def _answer(labels: Sequence[str], chosen: str) -> TaskPrediction:
    rest = (1 - CONFIDENCE) / (len(labels) - 1)
    probabilities = {label: CONFIDENCE if label == chosen else rest for label in labels}
    entropy = -sum(p * math.log(p) for p in probabilities.values())
    return TaskPrediction(
        label=chosen, probabilities=probabilities, entropy=entropy, disagreement=0.0, margin=CONFIDENCE - rest
    )


def _answers(*labels: str) -> list[TaskPrediction]:
    return [_answer(labels, label) for label in labels]


SENTIMENTS = _answers("negative", "neutral", "positive")
TOPICS = _answers("Company", "Earnings", "Macro", "Markets", "Politics")


class DeterministicEngine:
    """Labels a text the same way on every machine, taking ``seconds_per_text`` for it."""

    identity = StackIdentity("deterministic", hashlib.sha256(b"stacknorm deterministic engine 1").hexdigest())
    languages = ("en",)

    def __init__(self, seconds_per_text: float = 0.0) -> None:
        self._seconds_per_text = seconds_per_text

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:  # noqa: ARG002 - a day changes no hash
        """One prediction for each text, in order."""
        time.sleep(self._seconds_per_text * len(texts))
        return [_label(text) for text in texts]


def _label(text: str) -> Prediction:
    digest = hashlib.blake2b(text.encode(), digest_size=2).digest()
    return Prediction({"sentiment": SENTIMENTS[digest[0] % len(SENTIMENTS)], "topic": TOPICS[digest[1] % len(TOPICS)]})
