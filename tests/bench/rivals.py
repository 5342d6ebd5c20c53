"""The engine, and Hugging Face pipelines with the same weights, as contenders; and proof that they answer the same."""
# mypy: allow-untyped-calls

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import AutoTokenizer, Pipeline, pipeline
from transformers.utils.logging import disable_progress_bar, set_verbosity

from stacknorm.bundle import Bundle
from stacknorm.encoder.precision import DTYPES, Precision
from stacknorm.engine import Engine
from stacknorm.pooling.pool import Probabilities

from .checkpoints import TASK, load_members
from .contest import Contender, time_work

BATCH = 32
PARITY_TOLERANCE = 1e-4
"""Largest difference of two probabilities that fp32 arithmetic in another order explains, with room."""
WARM_TEXTS = 64

REFERENCE = f"Hugging Face pipeline, batch {BATCH}"
AUTO = "engine, auto"

Told = list[list[dict[str, Any]]]
"""What a pipeline says: for each text a label and its score, for each label."""
Ask = Callable[[Pipeline, Sequence[str]], Told]
Answer = Callable[[Sequence[str]], Probabilities]
"""Texts -> probabilities [texts, labels]."""


class NotTheSame(AssertionError):  # noqa: N818 -- names what it is
    """Contenders answer differently, so their times cannot be compared."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two ways to answer lie apart: the largest difference of a probability, and labels that differ."""

    largest_difference: float
    labels_that_differ: int


def quieten_transformers() -> None:
    """No progress bars, and no complaint that a pipeline does not know the name of our class: it need not."""
    set_verbosity(logging.CRITICAL)
    disable_progress_bar()


def open_pipelines(bundle: Bundle, device: str, precision: Precision) -> list[Pipeline]:
    """A pipeline for each member, cutting texts where the engine cuts them."""
    tokenizers = [AutoTokenizer.from_pretrained(bundle.base_directory(member)) for member in bundle.manifest.members]
    return [
        pipeline(
            "text-classification",
            model=nn.Module.to(model, dtype=DTYPES[precision]),
            tokenizer=tokenizer,
            device=device,
            top_k=None,
            truncation=True,
            max_length=bundle.manifest.max_tokens,
        )
        for model, tokenizer in zip(load_members(bundle), tokenizers, strict=True)
    ]


def ask_one_by_one(pipe: Pipeline, texts: Sequence[str]) -> Told:
    """As a consumer does that calls the pipeline for each record."""
    return [answer for text in texts for answer in pipe(text)]


def ask_in_batches(pipe: Pipeline, texts: Sequence[str]) -> Told:
    """Batches of 32 in arrival order."""
    return list(pipe(list(texts), batch_size=BATCH))


def average(pipes: Sequence[Pipeline], ask: Ask, labels: Sequence[str]) -> Answer:
    """What one writes by hand around several pipelines; one alone is its own average."""
    return lambda texts: np.mean([to_probabilities(ask(pipe, texts), labels) for pipe in pipes], axis=0)


def to_probabilities(told: Told, labels: Sequence[str]) -> Probabilities:
    """Scores by label as an array [texts, labels]."""
    scores = [{each["label"]: each["score"] for each in answer} for answer in told]
    return np.array([[row[label] for label in labels] for row in scores])


def compare(ours: Probabilities, theirs: Probabilities) -> Agreement:
    """Two arrays of probabilities, labels last."""
    differing = ours.argmax(axis=-1) != theirs.argmax(axis=-1)
    return Agreement(float(np.abs(ours - theirs).max()), int(differing.sum()))


def require_parity(engine: Engine, pipes: Sequence[Pipeline], texts: Sequence[str]) -> Agreement:
    """Compare each member's probabilities for sentiment with those of its pipeline.

    Raises:
        NotTheSame: one differs by more than arithmetic explains.
    """
    labels = engine.tasks[TASK].labels
    theirs = np.stack([to_probabilities(ask_in_batches(pipe, texts), labels) for pipe in pipes])
    agreement = compare(engine.member_probabilities(texts)[TASK], theirs)
    if agreement.largest_difference > PARITY_TOLERANCE:
        raise NotTheSame(
            f"{engine.identity.name}: engine and pipelines differ by {agreement.largest_difference:.1e}, "
            f"above {PARITY_TOLERANCE:.0e}"
        )
    return agreement


@dataclass(frozen=True, slots=True)
class Contest:
    """One model in all forms that are compared in this process."""

    pipes: Sequence[Pipeline]
    half_pipes: Sequence[Pipeline]
    exact: Engine
    auto: Engine

    @classmethod
    def open(cls, bundle: Bundle) -> "Contest":
        """Load all of them."""
        exact, auto = Engine.load(bundle.root, precision="fp32"), Engine.load(bundle.root)
        pipes, half_pipes = open_pipelines(bundle, auto.device, "fp32"), open_pipelines(bundle, auto.device, "bf16")
        return cls(pipes, half_pipes, exact, auto)

    def agreement_of_auto(self, texts: Sequence[str]) -> Agreement:
        """What the precision that the engine chose costs: pooled sentiment against the engine's in fp32."""
        exact, auto = (e.pooled(TASK, e.member_probabilities(texts)[TASK]) for e in (self.exact, self.auto))
        return compare(auto, exact)

    def contenders(self, texts: Sequence[str]) -> list[Contender]:
        """The rows of the table, Hugging Face first."""
        labels = self.exact.tasks[TASK].labels
        one_by_one = average(self.pipes, ask_one_by_one, labels)
        batched = average(self.pipes, ask_in_batches, labels)
        half = average(self.half_pipes, ask_in_batches, labels)
        return [
            _contender("Hugging Face pipeline, one by one", one_by_one, texts, texts[:WARM_TEXTS]),
            _contender(REFERENCE, batched, texts, texts[:WARM_TEXTS]),
            _contender(f"{REFERENCE}, bf16", half, texts, texts),
            _contender("engine, fp32", self.exact.predict, texts, texts),
            _contender(f"{AUTO} ({self.auto.precision} here)", self.auto.predict, texts, texts),
        ]


def _contender(
    name: str, answer: Callable[[Sequence[str]], object], texts: Sequence[str], warm: Sequence[str]
) -> Contender:
    return Contender(name, lambda: time_work(len(texts), lambda: answer(texts)), lambda: answer(warm))
