"""The engine: a bundle on a device, and `predict(list of texts) -> list of predictions`, in order, nothing lost."""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.deadline import Deadline, wait_forever
from stacknorm.decision import Decision, Stages, decide
from stacknorm.encoder.precision import DTYPES, Precision, native_precision
from stacknorm.encoder.tokens import Batch, cut_batches, pad, round_rows, tokenise
from stacknorm.errors import BundleError, PredictionError
from stacknorm.labels import LabelSpace
from stacknorm.language import LanguageGuard
from stacknorm.pooling.pool import Probabilities
from stacknorm.prediction import Prediction, StackIdentity
from stacknorm.readings import Readings
from stacknorm.stack import Outcome, Reader, Waiting, load_stack, to_device
from stacknorm.text import clean_text, truncate_text

Device = Literal["cpu", "cuda"]
Form = Literal["width", "cascade"]

_BATCH_TOKENS: Mapping[Device, int] = {"cpu": 960, "cuda": 30_720}
"""Padded tokens in a batch. Small batches stay in a processor's cache; a GPU wants work."""


class Engine:
    """A loaded stack.

    Holds weights that are never changed after `load`, and no state between calls but the deadlines of late members;
    `predict` may be called from any one thread at a time, and from several where the caller accepts that they share
    the cores.
    """

    def __init__(
        self,
        bundle: Bundle,
        readers: Sequence[Reader],
        *,
        device: Device,
        precision: Precision,
        form: Form = "width",
        guard: LanguageGuard | None = None,
        wait: Waiting = wait_forever,
    ) -> None:
        self._readers = tuple(readers)
        self._guard = guard
        self._wait = wait
        self._max_tokens = bundle.manifest.max_tokens
        self._decisions = {task: decide(bundle.manifest, task, form) for task in bundle.manifest.tasks}
        self._stages = _stages(bundle, form)
        self.identity = _identity(bundle, form)
        self.languages = bundle.manifest.languages
        self.device: Device = device
        self.precision: Precision = precision
        self.form: Form = form

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] = "finance",
        device: Literal["auto", "cuda", "cpu"] = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        form: Literal["auto", "width", "cascade"] = "auto",
        *,
        language_guard: bool = True,
        member_timeout_seconds: float | None = None,
    ) -> "Engine":
        """Verify and load a bundle.

        Args:
            bundle: a packaged bundle's name or a directory.
            device: `auto` takes a GPU where there is one.
            precision: `auto` takes bf16 where the hardware computes in it.
            form: `width` runs all members on every text, `cascade` stops early; `auto` is what the bundle has.
            language_guard: whether to abstain from texts that are certainly in a language the bundle does not know.
            member_timeout_seconds: a member that takes longer for a batch is left out of it; None waits forever.

        Raises:
            BundleError: the bundle or a base is missing, altered or malformed, or has no cascade.
        """
        found = load_bundle(Path(bundle))
        place: Device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        chosen_form: Form = ("cascade" if found.manifest.cascade else "width") if form == "auto" else form
        readers = load_stack(found)
        chosen = native_precision(place) if precision == "auto" else precision
        to_device(readers, torch.device(place), DTYPES[chosen])
        wait: Waiting = wait_forever if member_timeout_seconds is None else Deadline(member_timeout_seconds)
        guard = LanguageGuard(found.manifest.languages) if language_guard else None
        return cls(found, readers, device=place, precision=chosen, form=chosen_form, guard=guard, wait=wait)

    @property
    def tasks(self) -> Mapping[str, LabelSpace]:
        """Task -> its label space."""
        return {task: decision.space for task, decision in self._decisions.items()}

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Label texts.

        Args:
            texts: any length each, empty ones too; at most the bundle's `max_tokens` tokens of a text are read.

        Returns:
            One prediction for each text, in order. A member that raised, was late or gave no number is left out of
            the texts of its batch, and their predictions say so; a text that is certainly in a language the stack
            does not know gets no label, and the reason.

        Raises:
            PredictionError: no member could answer some text.
        """
        withheld = self._withheld(texts)
        answered = iter(self._answer([text for text, why in zip(texts, withheld, strict=True) if why is None]))
        return [next(answered) if why is None else Prediction({}, abstained_because=why) for why in withheld]

    def _withheld(self, texts: Sequence[str]) -> list[str | None]:
        """For each text, why the stack should not label it."""
        if self._guard is None:
            return [None] * len(texts)
        known = ", ".join(self.languages)
        return [
            f"the text is in language {verdict.language!r}, the stack knows {known}" if verdict.foreign else None
            for verdict in self._guard.judge(texts)
        ]

    def _answer(self, texts: Sequence[str]) -> list[Prediction]:
        if not texts:
            return []
        readings = self.read(texts)
        answers = {
            task: decision.describe(decision.place(readings.of(task), len(texts)), readings.stages)
            for task, decision in self._decisions.items()
        }
        predictions = [
            Prediction(dict(zip(answers, row, strict=True)), dropped=dropped, stage=stage)
            for *row, dropped, stage in zip(
                *answers.values(), readings.dropped(), (readings.stages + 1).tolist(), strict=True
            )
        ]
        if len(predictions) != len(texts):
            raise PredictionError(f"batch of {len(texts)} texts gave {len(predictions)} predictions")
        return predictions

    def read(self, texts: Sequence[str]) -> Readings:
        """Run the members over texts, stage by stage; each stage reads what the ones before left open."""
        cleaned = [truncate_text(clean_text(text), self._max_tokens) for text in texts]
        readings = Readings(len(texts))
        left = np.arange(len(texts))
        for stage, names in enumerate(self._stages):
            readings.stages[left] = stage
            self._run(names, left, cleaned, readings)
            if stage + 1 < len(self._stages):
                left = left[~self._finished(readings, left, stage)]
        return readings

    def _finished(self, readings: Readings, rows: Stages, stage: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of `rows` need no further stage, because no task does."""
        done = np.ones(len(rows), dtype=bool)
        for task, decision in self._decisions.items():
            members = decision.place(readings.of(task), readings.rows)[:, rows]
            done &= decision.finished(members, stage)
        return done

    def member_probabilities(self, texts: Sequence[str]) -> dict[str, Probabilities]:
        """What each member says before pooling, all of them on every text.

        Returns:
            Task -> probabilities on the task's label space [members with a head for it, texts, labels], in
            manifest order.

        Raises:
            PredictionError: a member failed; names it and says why.
        """
        readings = Readings(len(texts))
        cleaned = [truncate_text(clean_text(text), self._max_tokens) for text in texts]
        self._run(frozenset().union(*self._stages), np.arange(len(texts)), cleaned, readings)
        if readings.reasons:
            raise PredictionError("; ".join(f"member {name}: {why}" for name, why in readings.reasons.items()))
        return {task: decision.place(readings.of(task), len(texts)) for task, decision in self._decisions.items()}

    def pooled(self, task: str, members: Probabilities) -> Probabilities:
        """Pool and calibrate what all members say, [members, n, labels] -> [n, labels]."""
        decision = self._decisions[task]
        return decision.answer(members, np.full(members.shape[1], len(decision.rules) - 1))[0]

    def _run(self, names: Collection[str], rows: Stages, texts: Sequence[str], readings: Readings) -> None:
        """Ask the members in `names` about the texts at `rows`."""
        for reader in self._readers:
            if reader.names.isdisjoint(names) or not len(rows):
                continue
            readings.ask(reader.names.intersection(names), rows)
            tokens = tokenise(reader.tokenizer, [texts[row] for row in rows])
            budget = max(_BATCH_TOKENS[self.device], self._max_tokens)
            for places, width in cut_batches([len(row) for row in tokens], budget):
                # Only bf16 kernels are compiled for each shape; elsewhere empty rows would be work for nothing.
                height = round_rows(len(places), width, budget) if self.precision == "bf16" else 0
                for batch, outcome in self._outcomes(reader, pad(places, tokens, reader.pad_id, width, height), names):
                    self._record(readings, rows[list(batch.rows)], outcome)

    def _outcomes(self, reader: Reader, batch: Batch, names: Collection[str]) -> Iterator[tuple[Batch, Outcome]]:
        """Read a batch, in halves where it does not fit into memory."""
        try:
            yield batch, reader.read(_move(batch, self.device), names, self._wait)
        except torch.OutOfMemoryError as exc:
            if len(batch.rows) < 2:
                raise PredictionError(f"one text of {batch.ids.shape[1]} tokens does not fit into memory") from exc
            half = len(batch.rows) // 2
            for part in (slice(0, half), slice(half, len(batch.rows))):
                yield from self._outcomes(reader, Batch(batch.rows[part], batch.ids[part], batch.mask[part]), names)

    def _record(self, readings: Readings, rows: Stages, outcome: Outcome) -> None:
        readings.fail(outcome.failed)
        for member, tasks in outcome.logits.items():
            for task, logits in tasks.items():
                decision = self._decisions[task]
                shares = _shares(logits[: len(rows)], decision)
                if np.isfinite(shares).all():
                    readings.record(member, task, rows, shares)
                else:
                    readings.fail({member: f"gave {task} values that are not finite"})


def _shares(logits: Tensor, decision: Decision) -> Probabilities:
    """Probabilities of logits [n, head labels]; of a `multi` task each by itself."""
    shares = logits.sigmoid() if decision.kind == "multi" else logits.softmax(dim=-1)
    return np.asarray(shares.double().cpu().numpy())


def _stages(bundle: Bundle, form: Form) -> tuple[frozenset[str], ...]:
    """Names of the members that run together, stage by stage."""
    manifest = bundle.manifest
    if form == "width":
        return (frozenset(member.name for member in manifest.members),)
    if manifest.cascade is None:
        raise BundleError(f"bundle {manifest.name} has no cascade")
    return tuple(frozenset(stage.members) for stage in manifest.cascade.stages)


def _identity(bundle: Bundle, form: Form) -> StackIdentity:
    """A cascade answers otherwise than the stack it is made of, so it is another stack."""
    if form == "width":
        return StackIdentity(bundle.manifest.name, bundle.digest)
    digest = hashlib.sha256(bundle.manifest.canonical() + b"\ncascade").hexdigest()
    return StackIdentity(f"{bundle.manifest.name}/cascade", digest)


def _move(batch: Batch, device: Device) -> Batch:
    if device == "cpu":
        return batch
    return Batch(batch.rows, batch.ids.to(device), batch.mask.to(device))
