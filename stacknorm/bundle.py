"""The manifest of a bundle: everything a stack is made of, with the digest of every file.

A bundle is a directory with `bundle.json`, one folder for each member (adapter and heads), the training config,
the fingerprints of the training texts and a model card. Bases are named, not contained: the digests say which.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from stacknorm.bases.source import BASE_FILES, Place, cached_base, look_for_base, verify_files
from stacknorm.errors import BundleError
from stacknorm.frozen import Frozen
from stacknorm.labels import LabelSpace, label_space
from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.conformal import ClassConditional
from stacknorm.pooling.pool import Pool

MANIFEST_FILE = "bundle.json"
FINGERPRINTS_FILE = "fingerprints.safetensors"
HEADS_FILE = "heads.safetensors"
_PACKAGED = Path(__file__).parent / "bundles"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
Files = Mapping[FileName, Digest]
Pooling = Literal["mean", "cls", "native", "tokens", "entity"]
"""How token states become what a head reads: their mean, the first, the checkpoint's own way, each by itself, or the
mean over the words of an entity beside the mean of the text."""
TaskKind = Literal["single", "multi", "spans", "entity"]
"""One label a text, any number of labels a text, labelled spans of it, or one label for each entity in it."""


class BaseSpec(Frozen):
    """A pretrained transformer: where to look, and which files it must be."""

    references: tuple[str, ...] = Field(min_length=1)
    """Places to look, in order; a mirror is as good as any other, for the digests decide."""
    files: Files

    @model_validator(mode="after")
    def _names_every_file(self) -> Self:
        if self.files.keys() != set(BASE_FILES):
            raise ValueError(f"a base needs the digests of {', '.join(BASE_FILES)}, not of {', '.join(self.files)}")
        return self


class HeadSpec(Frozen):
    """What a member says about one task."""

    labels: tuple[str, ...] = Field(min_length=2)
    """In the order of the head's logits."""
    map: Mapping[str, str] = Field(default_factory=dict)
    """Head label -> label of the task, for labels that do not explain themselves."""
    pooling: Pooling
    """How token states become one vector; `native` is the checkpoint's own classification head."""


class MemberSpec(Frozen):
    """One transformer of the stack."""

    name: Name
    base: BaseSpec
    heads: Mapping[Name, HeadSpec] = Field(min_length=1)
    files: Files = Field(default_factory=dict)
    """Under the member's folder: adapter and heads; empty for a checkpoint used as it is."""

    @model_validator(mode="after")
    def _heads_have_weights(self) -> Self:
        native = [head.pooling == "native" for head in self.heads.values()]
        if any(native) and len(native) > 1:
            raise ValueError(f"member {self.name}: a checkpoint's own head serves one task")
        if not any(native) and HEADS_FILE not in self.files:
            raise ValueError(f"member {self.name} has heads but no {HEADS_FILE}")
        return self


class ChannelSpec(Frozen):
    """Members joined before the answer: one head on what they read of a text, counted by pools as one more member.

    Akbik et al. 2019 and Wang et al. 2021 (ACE) join embeddings so.
    """

    name: Name
    members: tuple[Name, ...] = Field(min_length=2)
    combine: Literal["concat", "sum"] = "concat"
    """Features end to end, or added (a residual sum, for members of one width)."""
    heads: Mapping[Name, HeadSpec] = Field(min_length=1)
    """What they read is the mean of each member's states, so their pooling is `mean`."""
    files: Files
    """Under the channel's folder: its heads."""

    @model_validator(mode="after")
    def _reads_means(self) -> Self:
        if HEADS_FILE not in self.files or any(head.pooling != "mean" for head in self.heads.values()):
            raise ValueError(f"channel {self.name} needs {HEADS_FILE}, and heads with pooling mean")
        return self


class FittedOn(Frozen):
    """Rows of a user on which something of a task was fitted; no member was trained on them."""

    file: str
    sha256: Digest
    rows: int


class TaskSpec(Frozen):
    """One task: its label space, how members are pooled on it, and the calibrator."""

    kind: TaskKind = "single"
    labels: tuple[str, ...]
    """Of a `spans` task: the types of span, without the prefixes of a tagging scheme."""
    member_temperatures: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """One for each member of the pool, applied to its own logits before pooling; empty: all 1."""
    pool: Pool
    """Over the members and channels that have a head for the task, in manifest order."""
    calibrator: Calibrator
    """Applied after pooling."""
    conformal: ClassConditional | None = None
    """Thresholds of the conformal sets over calibrated probabilities."""
    calibrated: bool = True
    """Whether pool and calibrator were fitted on rows no member was trained on."""
    fitted_on: FittedOn | None = None
    """None: on the part that training held out, or not at all."""
    best_member: Name
    """The single member that did best on the held-out part: the one to beat."""

    def space(self, task: str) -> LabelSpace:
        """The label space, with the aliases known for the task."""
        return label_space(task, self.labels)


class Interval(Frozen):
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class StageTask(Frozen):
    """How a cascade answers one task with the members it has run so far, and when that is enough."""

    pool: Pool
    calibrator: Calibrator
    stop_above: float = Field(ge=0, le=1)
    """Bounded mode: stop where the calibrated probability of the likeliest label is at least this."""


class StageSpec(Frozen):
    """Members a cascade runs together, on the texts that earlier stages left open."""

    members: tuple[Name, ...] = Field(min_length=1)
    tasks: Mapping[Name, StageTask] = Field(default_factory=dict)
    """Empty for the last stage, which answers as the whole stack does, and in exact mode. A text with an answer to give
    for a task that is missing here goes on."""


class CascadeReport(Frozen):
    """What stopping early spared and kept on texts that no member was trained on, when the cascade was made."""

    texts: int
    ended: tuple[float, ...]
    """Share of the texts that ended at each stage: there all their tasks stopped. Bounded mode: each text by
    confidences that were fitted without it."""
    kept: Mapping[Name, Interval] = Field(default_factory=dict)
    """Bounded mode: task -> accuracy of the cascade less that of the whole stack, each text in the same way."""


class CascadeSpec(Frozen):
    """The stack in depth: cheap members first, the rest where they leave doubt.

    `exact` stops where the members still to come cannot change the label; `bounded` where the stage is sure enough.
    """

    mode: Literal["exact", "bounded"]
    stages: tuple[StageSpec, ...] = Field(min_length=2)
    max_loss: float | None = None
    """Bounded mode: the accuracy that stopping was expected to cost at most, of each task."""
    fitted_on: Mapping[Name, FittedOn] = Field(default_factory=dict)
    """Task -> rows of a user; not there: on the part that training held out."""
    report: CascadeReport | None = None
    """None where no rows were given."""


class WindowSpec(Frozen):
    """Long texts are read in overlapping windows of the manifest's `max_tokens`, whose probabilities are averaged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    overlap_tokens: int = Field(ge=0)
    """Shared by two neighbours; at most half a window."""
    max_windows: int = Field(ge=1)
    """Of a text; what lies beyond them is not read."""

    def check_fits(self, max_tokens: int) -> None:
        """Raise ValueError where windows of so many tokens would overlap by more than half."""
        if 2 * self.overlap_tokens > max_tokens:
            raise ValueError(
                f"windows of {max_tokens} tokens cannot overlap by {self.overlap_tokens}: half of that at most"
            )


class Source(Frozen):
    """One file of training data."""

    file: str
    title: str
    licence: str
    sha256: Digest
    task: Name
    rows: int


class Training(Frozen):
    """Where the stack comes from."""

    data: tuple[Source, ...]
    rows: Mapping[str, int]
    """Rows of each task that were trained on, and those held out."""
    seconds: float
    precision: Literal["fp32", "bf16"]
    versions: Mapping[str, str]


class Manifest(Frozen):
    """All of a bundle."""

    format: Literal[2] = 2
    name: Name
    languages: tuple[str, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=8)
    windows: WindowSpec | None = None
    """None: what lies beyond `max_tokens` is not read."""
    tasks: Mapping[Name, TaskSpec] = Field(min_length=1)
    members: tuple[MemberSpec, ...] = Field(min_length=1)
    channels: tuple[ChannelSpec, ...] = ()
    cascade: CascadeSpec | None = None
    files: Files = Field(default_factory=dict)
    training: Training | None = None
    scores: Mapping[str, Mapping[str, Mapping[str, Interval]]] = Field(default_factory=dict)
    """Task -> `stack` or member -> metric, on the held-out part."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [member.name for member in self.voices()]
        if len(set(names)) != len(names):
            raise ValueError(f"two members share a name: {names}")
        if self.windows:
            self.windows.check_fits(self.max_tokens)
        if stray := {task for member in self.voices() for task in member.heads} - self.tasks.keys():
            raise ValueError(f"heads for unknown tasks: {sorted(stray)}")
        own = [member.name for member in self.members]
        if self.cascade and sorted(n for stage in self.cascade.stages for n in stage.members) != sorted(own):
            raise ValueError(f"the stages of the cascade do not name each of {own} once")
        for channel in self.channels:
            if stray := set(channel.members) - set(own):
                raise ValueError(f"channel {channel.name} joins unknown members: {sorted(stray)}")
        return self

    @model_validator(mode="after")
    def _pools_what_it_has(self) -> Self:
        for task, spec in self.tasks.items():
            serving = self.members_of(task)
            if len(spec.pool.weights) != len(serving) or not serving:
                raise ValueError(f"task {task}: {len(spec.pool.weights)} weights for {len(serving)} members")
            if spec.member_temperatures and len(spec.member_temperatures) != len(serving):
                raise ValueError(
                    f"task {task}: {len(spec.member_temperatures)} temperatures for {len(serving)} members"
                )
            if spec.best_member not in serving:
                raise ValueError(f"task {task}: best_member {spec.best_member} has no head for it")
        return self

    def voices(self) -> tuple[MemberSpec | ChannelSpec, ...]:
        """All that pools may count: the members, then the channels."""
        return (*self.members, *self.channels)

    def members_of(self, task: str) -> tuple[str, ...]:
        """Names of the members and channels with a head for `task`, in order."""
        return tuple(member.name for member in self.voices() if task in member.heads)

    def canonical(self) -> bytes:
        """What the file says, as bytes that do not depend on its layout: sorted keys, no spaces.

        Fields the file does not have are left out, so that one bundle keeps its digest when this library learns more.
        """
        stated = self.model_dump(mode="json", exclude_unset=True)
        return json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest and the directory it was read from."""

    root: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Sha256 of the canonical manifest, which in turn holds the digest of every file: the stack's identity."""
        return hashlib.sha256(self.manifest.canonical()).hexdigest()

    def bases(self) -> list[tuple[BaseSpec, tuple[str, ...]]]:
        """Each base once, with the members on it."""
        members: dict[Path, list[MemberSpec]] = {}
        for member in self.manifest.members:
            members.setdefault(cached_base(member.base.files), []).append(member)
        found = []
        for specs in members.values():
            references = dict.fromkeys(reference for spec in specs for reference in spec.base.references)
            base = BaseSpec(references=tuple(references), files=specs[0].base.files)
            found.append((base, tuple(spec.name for spec in specs)))
        return found

    def find_base(self, base: BaseSpec, *, online: bool = True) -> tuple[Place | None, tuple[str, ...]]:
        """The first place that has a base, its files verified, and why each place before it does not serve."""
        problems: list[str] = []
        for place in look_for_base(base.references, base.files, self.root, online=online):
            if place.directory is not None:
                return place, tuple(problems)
            problems.append(place.problem)
        return None, tuple(problems)

    def base_directory(self, member: MemberSpec) -> Path:
        """Where a member's base lies on this machine, its files verified.

        Raises:
            BundleError: no place has it; says why of each, and how to fetch it.
        """
        place, problems = self.find_base(member.base)
        if place is None or place.directory is None:
            raise BundleError(
                "\n  ".join([f"the base of member {member.name} is in none of its places:", *problems])
                + f"\nfetch it with: stacknorm bundle fetch {self.call_name}"
            )
        return place.directory

    @property
    def call_name(self) -> str:
        """What commands call it: the name of a packaged bundle, else its directory."""
        return self.root.name if self.root.parent == _PACKAGED else str(self.root)


def find_bundle(name_or_path: str | Path) -> Path:
    """The directory of a bundle: a path, or the name of a packaged one.

    Raises:
        BundleError: neither exists; names the packaged ones.
    """
    for root in (_PACKAGED / name_or_path, Path(name_or_path)):
        if (root / MANIFEST_FILE).is_file():
            return root
    packaged = ", ".join(packaged_bundles())
    raise BundleError(f"no bundle {str(name_or_path)!r}: no directory with {MANIFEST_FILE}, nor one of {packaged}")


def packaged_bundles() -> list[str]:
    """Names of the bundles that come with this library."""
    return sorted(path.parent.name for path in _PACKAGED.glob(f"*/{MANIFEST_FILE}"))


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read a bundle and verify its own files (bases are verified by `verify_bases`, where they are read).

    Raises:
        BundleError: not found, malformed, or a file is missing or altered; names the file and both digests.
    """
    root = find_bundle(name_or_path)
    path = root / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise BundleError(f"{path} is not a valid bundle: {describe_faults(exc)}") from exc
    verify_files(root, manifest.files)
    for member in manifest.voices():
        verify_files(root / member.name, member.files)
    return Bundle(root, manifest)


def describe_faults(error: ValidationError) -> str:
    """The first fields of a manifest that are wrong, and how."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()[:5])


def verify_bases(bundle: Bundle) -> None:
    """Find and verify the base of every member.

    Raises:
        BundleError: a base is in none of its places, or its files there are not the ones meant.
    """
    for member in bundle.manifest.members:
        bundle.base_directory(member)


def save_manifest(root: Path, manifest: Manifest) -> Bundle:
    """Write `bundle.json` under `root` for files that already lie there."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (root / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return Bundle(root, Manifest.model_validate_json(text))
