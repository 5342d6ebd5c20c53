"""The engine: a bundle on a device, and `predict(list of texts) -> list of predictions`, in order, nothing lost."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.encoder.precision import DTYPES, Precision, native_precision
from stacknorm.encoder.tokens import Batch, cut_batches, pad, round_rows, tokenise
from stacknorm.errors import PredictionError
from stacknorm.labels import LabelSpace
from stacknorm.pooling.calibrate import Calibrator, disagreement, entropy, margin
from stacknorm.pooling.pool import Pool, Probabilities
from stacknorm.prediction import Prediction, StackIdentity, TaskPrediction
from stacknorm.stack import Reader, load_stack, to_device
from stacknorm.text import clean_text, truncate_text

Device = Literal["cpu", "cuda"]

_BATCH_TOKENS: Mapping[Device, int] = {"cpu": 960, "cuda": 30_720}
"""Padded tokens in a batch. Small batches stay in a processor's cache; a GPU wants work."""
_PROBE_ROWS, _PROBE_TOKENS = 20, 24


@dataclass(frozen=True, slots=True)
class _Task:
    """What turns the members' logits into one task's answers."""

    space: LabelSpace
    mappings: Mapping[str, Probabilities]  # member -> [head labels, labels]
    pool: Pool
    calibrator: Calibrator


class Engine:
    """A loaded stack.

    Holds weights that are never changed after `load`, and no state between calls; `predict` may be called from
    any one thread at a time, and from several where the caller accepts that they share the cores.
    """

    def __init__(self, bundle: Bundle, readers: Sequence[Reader], device: Device, precision: Precision) -> None:
        self._readers = tuple(readers)
        self._tasks = {task: _prepare_task(bundle, task) for task in bundle.manifest.tasks}
        self._max_tokens = bundle.manifest.max_tokens
        self.identity = StackIdentity(bundle.manifest.name, bundle.digest)
        self.languages = bundle.manifest.languages
        self.device: Device = device
        self.precision: Precision = precision

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] = "finance",
        device: Literal["auto", "cuda", "cpu"] = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> "Engine":
        """Verify and load a bundle.

        Args:
            bundle: a packaged bundle's name or a directory.
            device: `auto` takes a GPU where there is one.
            precision: `auto` takes bf16 where the hardware computes in it.

        Raises:
            BundleError: the bundle or a base is missing, altered or malformed.
        """
        found = load_bundle(Path(bundle))
        place: Device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        readers = load_stack(found)
        chosen = native_precision(place) if precision == "auto" else precision
        to_device(readers, torch.device(place), DTYPES[chosen])
        return cls(found, readers, place, chosen)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Label texts.

        Args:
            texts: any length each, empty ones too; at most the bundle's `max_tokens` tokens of a text are read.

        Returns:
            One prediction for each text, in order.

        Raises:
            PredictionError: a member gave a value that is not finite.
        """
        if not texts:
            return []
        members = self.member_probabilities(texts)
        answers = {task: self._answer(task, members[task]) for task in self._tasks}
        predictions = [Prediction(dict(zip(answers, row, strict=True))) for row in zip(*answers.values(), strict=True)]
        if len(predictions) != len(texts):
            raise PredictionError(f"batch of {len(texts)} texts gave {len(predictions)} predictions")
        return predictions

    def member_probabilities(self, texts: Sequence[str]) -> dict[str, Probabilities]:
        """What each member says before pooling.

        Returns:
            Task -> probabilities on the task's label space [members with a head for it, texts, labels], in
            manifest order.

        Raises:
            PredictionError: a member gave a value that is not finite.
        """
        cleaned = [truncate_text(clean_text(text), self._max_tokens) for text in texts]
        found = {member: tasks for reader in self._readers for member, tasks in self._read(reader, cleaned).items()}
        return {
            task: np.stack([found[member][task] @ mapping for member, mapping in parts.mappings.items()])
            for task, parts in self._tasks.items()
        }

    def pooled(self, task: str, members: Probabilities) -> Probabilities:
        """Pool and calibrate what members say, [members, n, labels] -> [n, labels]."""
        parts = self._tasks[task]
        return parts.calibrator(parts.pool(members))

    @property
    def tasks(self) -> Mapping[str, LabelSpace]:
        """Task -> its label space."""
        return {task: parts.space for task, parts in self._tasks.items()}

    def _answer(self, task: str, members: Probabilities) -> list[TaskPrediction]:
        probabilities = self.pooled(task, members)
        unsure = entropy(probabilities)
        split = disagreement(members, self._tasks[task].pool.weights)
        labels = self._tasks[task].space.labels
        return [
            TaskPrediction(
                labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)), float(h), float(d), float(m)
            )
            for row, h, d, m in zip(probabilities, unsure, split, margin(probabilities), strict=True)
        ]

    @torch.inference_mode()
    def _read(self, reader: Reader, texts: Sequence[str]) -> dict[str, dict[str, Probabilities]]:
        """Member -> task -> probabilities over the head's own labels, [n, head labels], in order of `texts`."""
        tokens = tokenise(reader.tokenizer, texts)
        found: dict[str, dict[str, Probabilities]] = {}
        budget = max(_BATCH_TOKENS[self.device], self._max_tokens)
        for rows, width in cut_batches([len(row) for row in tokens], budget):
            # Only bf16 kernels are compiled for each shape; elsewhere empty rows would be work for nothing.
            height = round_rows(len(rows), width, budget) if self.precision == "bf16" else 0
            batch = pad(rows, tokens, reader.pad_id, width, height)
            for member, tasks in reader(_move(batch, self.device)).items():
                for task, values in tasks.items():
                    shares = _shares(values[: len(rows)], member, task)
                    whole = found.setdefault(member, {}).setdefault(task, np.empty((len(texts), shares.shape[1])))
                    whole[list(rows)] = shares
        return found


def _shares(logits: Tensor, member: str, task: str) -> Probabilities:
    """Softmax of logits [n, labels], which must be finite."""
    if not bool(torch.isfinite(logits).all()):
        raise PredictionError(f"member {member} gave {task} logits that are not finite")
    shares: Probabilities = logits.softmax(dim=1).double().cpu().numpy()
    return shares


def _prepare_task(bundle: Bundle, task: str) -> _Task:
    spec = bundle.manifest.tasks[task]
    space = spec.space(task)
    heads = {member.name: member.heads[task] for member in bundle.manifest.members if task in member.heads}
    mappings = {name: space.matrix(head.labels, head.map).astype(np.float64) for name, head in heads.items()}
    return _Task(space, mappings, spec.pool, spec.calibrator)


def _move(batch: Batch, device: Device) -> Batch:
    if device == "cpu":
        return batch
    return Batch(batch.rows, batch.ids.to(device), batch.mask.to(device))
