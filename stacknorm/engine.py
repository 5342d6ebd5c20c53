"""The engine: a bundle on a device, and `predict(list of texts) -> list of predictions`, in order, nothing lost."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.encoder.device import Device, WantedDevice, choose_device
from stacknorm.encoder.member import FEATURES
from stacknorm.encoder.precision import DTYPES, Precision, native_precision
from stacknorm.encoder.tokens import Text
from stacknorm.entities import EntityFinder, Mention, load_aliases
from stacknorm.errors import BundleError, PredictionError
from stacknorm.inference.answering import answer_texts
from stacknorm.inference.channel import load_channels
from stacknorm.inference.deadline import Deadline, wait_forever
from stacknorm.inference.decision import decide, tag_maps
from stacknorm.inference.passages import Owners, Passages, first_of, prepare
from stacknorm.inference.reading import Setting, read_passages
from stacknorm.inference.readings import Readings
from stacknorm.inference.stack import Reader, Waiting, load_stack, to_device
from stacknorm.labels import LabelSpace
from stacknorm.language import LanguageGuard
from stacknorm.pooling.cascade import Rows
from stacknorm.pooling.pool import Probabilities
from stacknorm.prediction import Prediction, StackIdentity
from stacknorm.text import cut_raw_text

Form = Literal["width", "cascade"]


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
        finder: EntityFinder | None = None,
        wait: Waiting = wait_forever,
    ) -> None:
        self._readers = tuple(readers)
        self._guard = guard
        self._finder = finder
        manifest = bundle.manifest
        self._channels = load_channels(bundle)
        self._decisions = {task: decide(manifest, task, form) for task in manifest.tasks}
        kinds = {task: spec.kind for task, spec in manifest.tasks.items()}
        self._kinds = frozenset(kinds.values())
        tags = {task: tag_maps(manifest, task) for task, kind in kinds.items() if kind == "spans"}
        self._setting = Setting(device, precision, manifest.max_tokens, manifest.windows, kinds, tags, wait)
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
        device: WantedDevice = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        form: Literal["auto", "width", "cascade"] = "auto",
        *,
        language_guard: bool = True,
        aliases: Path | None = None,
        features: bool = False,
        member_timeout_seconds: float | None = None,
    ) -> "Engine":
        """Verify and load a bundle.

        Args:
            bundle: a packaged bundle's name or a directory.
            device: `auto` takes a GPU where there is one.
            precision: `auto` takes bf16 where the hardware computes in it.
            form: `width` runs all members on every text, `cascade` stops early; `auto` is what the bundle has.
            language_guard: whether to abstain from texts that are certainly in a language the bundle does not know.
            aliases: a table of aliases of your own, which goes before the packaged one (`stacknorm.entities`).
            features: whether members also give what they read, for `features`.
            member_timeout_seconds: a member that takes longer for a batch is left out of it; None waits forever.

        Raises:
            BundleError: the bundle or a base is missing, altered or malformed, or has no cascade.
            DataError: the table of aliases cannot be read.
            DeviceError: a GPU is asked for, and there is none.
        """
        found = load_bundle(Path(bundle))
        place = choose_device(device)
        chosen_form: Form = ("cascade" if found.manifest.cascade else "width") if form == "auto" else form
        readers = load_stack(found, features=features)
        chosen = native_precision(place) if precision == "auto" else precision
        to_device(readers, torch.device(place), DTYPES[chosen])
        wait: Waiting = wait_forever if member_timeout_seconds is None else Deadline(member_timeout_seconds)
        finder = _load_finder(aliases) if any(t.kind == "entity" for t in found.manifest.tasks.values()) else None
        guard = LanguageGuard(found.manifest.languages) if language_guard else None
        return cls(
            found, readers, device=place, precision=chosen, form=chosen_form, guard=guard, finder=finder, wait=wait
        )

    @property
    def tasks(self) -> Mapping[str, LabelSpace]:
        """Task -> its label space."""
        return {task: decision.space for task, decision in self._decisions.items()}

    def predict(
        self,
        texts: Sequence[Text],
        mentions: Sequence[Sequence[Mention]] | None = None,
        *,
        days: Sequence[date] | None = None,
    ) -> list[Prediction]:
        """Label texts.

        Args:
            texts: any length each, empty ones too; a pair of texts is read together. Beyond the bundle's `max_tokens`
                tokens a text is read in windows, or not at all where the bundle has none.
            mentions: the entities in each text that tasks about entities are to answer for; None: those that the
                table of aliases knows.
            days: the day of each text, on which a name or symbol may have meant another company than today; None: all
                that the table says of any day counts.

        Returns:
            One prediction for each text, in order. A member that raised, was late or gave no number is left out of
            the texts of its batch, and their predictions say so; a text that is certainly in a language the stack
            does not know gets no label, and the reason.

        Raises:
            PredictionError: no member could answer some text, or the GPU failed.
        """
        withheld = self._withheld(texts)
        kept = [place for place, why in enumerate(withheld) if why is None]
        given = self._find(texts, days) if mentions is None else mentions
        answered = iter(self._answer([texts[place] for place in kept], [given[place] for place in kept]))
        return [next(answered) if why is None else Prediction({}, abstained_because=why) for why in withheld]

    def _find(self, texts: Sequence[Text], days: Sequence[date] | None) -> list[tuple[Mention, ...]]:
        if self._finder is None:
            return [()] * len(texts)
        known = [None] * len(texts) if days is None else days
        most_tokens = self._setting.most_tokens
        return [
            self._finder.find(cut_raw_text(first_of(text), most_tokens), day)
            for text, day in zip(texts, known, strict=True)
        ]

    def _withheld(self, texts: Sequence[Text]) -> list[str | None]:
        """For each text, why the stack should not label it."""
        if self._guard is None:
            return [None] * len(texts)
        known = ", ".join(self.languages)
        return [
            f"the text is in language {verdict.language!r}, the stack knows {known}" if verdict.foreign else None
            for verdict in self._guard.judge([first_of(text) for text in texts])
        ]

    def _answer(self, texts: Sequence[Text], mentions: Sequence[Sequence[Mention]]) -> list[Prediction]:
        if not texts:
            return []
        passages = self._prepare(texts, mentions)
        return answer_texts(self._decisions.values(), passages, self._read(passages))

    def _prepare(self, texts: Sequence[Text], mentions: Sequence[Sequence[Mention]] | None = None) -> Passages:
        return prepare(texts, self._setting.most_tokens, self._kinds, mentions or [()] * len(texts))

    def _read(self, passages: Passages) -> Readings:
        """Run the members over passages, stage by stage; each stage reads what the ones before left open."""
        readings = Readings(len(passages.texts))
        left = np.arange(len(passages.texts))
        for stage, names in enumerate(self._stages):
            readings.stages[left] = stage
            self._run(names, passages, left, readings)
            if stage + 1 < len(self._stages):
                left = left[~self._finished(passages, readings, left, stage)]
        for task, decision in self._decisions.items():
            asking = np.unique(passages.owners(decision.kind))  # a text without entities asks nothing about them
            if unheard := int((~readings.heard(decision.members)[asking]).sum()):
                why = "; ".join(f"{member}: {reason}" for member, reason in readings.reasons.items())
                raise PredictionError(f"no member could answer {task} for {unheard} texts ({why})")
        return readings

    def _run(self, names: Collection[str], passages: Passages, texts: Owners, readings: Readings) -> None:
        for reader in self._readers:
            read_passages(reader, names, passages, texts, setting=self._setting, readings=readings)
        for channel in self._channels:
            channel.listen(readings, texts)

    def _finished(self, passages: Passages, readings: Readings, texts: Owners, stage: int) -> Rows:
        """Which of `texts` need no further stage, because no task does."""
        open_ = np.zeros(readings.texts, dtype=bool)
        for decision in self._decisions.values():
            owners = passages.owners(decision.kind)
            rows = np.flatnonzero(np.isin(owners, texts))
            members = decision.place(readings.of(decision.task), len(owners))[:, rows]
            open_[owners[rows[~decision.finished(members, stage)]]] = True
        return np.asarray(~open_[texts])

    def member_probabilities(
        self, texts: Sequence[Text], mentions: Sequence[Sequence[Mention]] | None = None
    ) -> dict[str, Probabilities]:
        """What each member says before pooling, all of them on every text.

        Args:
            texts: as for `predict`; none is withheld for its language.
            mentions: of each text, for tasks about entities.

        Returns:
            Task -> probabilities on the task's label space [members with a head for it, rows, labels], in manifest
            order. Rows are texts; mentions of an `entity` task; words, with tags for labels, of a `spans` task.

        Raises:
            PredictionError: a member failed; names it and says why.
        """
        passages = self._prepare(texts, mentions)
        readings = self._read_all(passages)
        return {
            task: decision.place(readings.of(task), len(passages.owners(decision.kind)))
            for task, decision in self._decisions.items()
        }

    def features(self, texts: Sequence[Text]) -> dict[str, Probabilities]:
        """What each member read of texts before it answered: the mean of its last states, [texts, hidden size].

        Raises:
            PredictionError: a member failed, or the engine was not loaded with `features`.
        """
        readings = self._read_all(self._prepare(texts))
        if not readings.of(FEATURES):
            raise PredictionError("features were not asked for: Engine.load(..., features=True)")
        return dict(readings.of(FEATURES))

    def _read_all(self, passages: Passages) -> Readings:
        """Run every member on every text; one that fails is an error."""
        readings = Readings(len(passages.texts))
        self._run(frozenset().union(*self._stages), passages, np.arange(readings.texts), readings)
        if readings.reasons:
            raise PredictionError("; ".join(f"member {name}: {why}" for name, why in readings.reasons.items()))
        return readings

    def pooled(self, task: str, members: Probabilities) -> Probabilities:
        """Pool and calibrate what all members say, [members, n, labels] -> [n, labels]."""
        decision = self._decisions[task]
        return decision.answer(members, np.full(members.shape[1], len(decision.rules) - 1))[0]


def _load_finder(aliases: Path | None) -> EntityFinder:
    packaged = load_aliases()
    return EntityFinder(packaged if aliases is None else packaged.overridden_by(load_aliases(aliases)))


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
