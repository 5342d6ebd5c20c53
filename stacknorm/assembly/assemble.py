"""Make a stack of whole classifiers without training: each keeps its own head, their labels are put on one space."""

import itertools
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from transformers import PreTrainedConfig

from stacknorm.bases.source import BASE_FILES, HUB, PACKAGE, WHEELS, digest_files, resolve_base
from stacknorm.bundle import (
    BaseSpec,
    Bundle,
    HeadSpec,
    Manifest,
    MemberSpec,
    TaskKind,
    TaskSpec,
    WindowSpec,
    describe_faults,
    save_manifest,
)
from stacknorm.encoder.trunk import read_config
from stacknorm.errors import BundleError, DataError, LabelError
from stacknorm.inference.stack import load_stack
from stacknorm.labels import LabelSpace, known_labels, label_space
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.pool import PowerPool, log_odds_weights, mean_pool
from stacknorm.progress import Report, tell_nobody

if TYPE_CHECKING:
    from stacknorm.label_order import InferredMap

_KINDS = (f"{HUB}:", f"{PACKAGE}:", f"{WHEELS}:")

MAX_TOKENS = 128
"""Of a text that are read, where the checkpoints have positions for them."""

Reference = str | os.PathLike[str]
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole classifier that someone else trained."""

    name: str
    """Its name in the stack."""
    given: str
    """The reference it was asked for by."""
    reference: str
    """Where the bundle finds it."""
    root: Path
    config: PreTrainedConfig

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of its logits.

        Raises:
            BundleError: its configuration does not name them one by one.
        """
        names = {int(position): label for position, label in (self.config.id2label or {}).items()}
        if sorted(names) != list(range(len(names))):
            raise BundleError(f"{self.given}: id2label does not number its labels 0 to {len(names) - 1}: {names}")
        return tuple(names[position] for position in range(len(names)))

    @property
    def kind(self) -> TaskKind:
        """What its head answers."""
        return "multi" if self.config.problem_type == "multi_label_classification" else "single"

    def spec(self, task: str, meanings: Mapping[str, str]) -> MemberSpec:
        """Its part of a manifest; labels that mean another word are mapped explicitly."""
        head = HeadSpec(
            labels=self.labels,
            map={own: meant for own, meant in meanings.items() if own != meant},
            pooling="native",
        )
        base = BaseSpec(references=(self.reference,), files=digest_files(self.root, BASE_FILES))
        return MemberSpec(name=self.name, base=base, heads={task: head})


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows of a user."""

    path: Path
    integers: tuple[str, ...] = ()
    """What the integers 0, 1, ... in the file mean."""


def assemble(
    members: Sequence[Reference],
    out: Reference,
    *,
    name: str | None = None,
    task: str = "sentiment",
    labels: Sequence[str] = (),
    maps: Mapping[str, Mapping[str, str]] | None = None,
    fit: Rows | None = None,
    weights: Mapping[str, float] | None = None,
    accuracies: Mapping[str, float] | None = None,
    infer: Rows | None = None,
    languages: Sequence[str] = ("en",),
    max_tokens: int | None = None,
    windows: WindowSpec | None = None,
    report: Report = tell_nobody,
    warn: Warn = warnings.warn,
) -> Bundle:
    """Stack classifiers, whatever their families, tokenizers and label orders.

    Without `fit` the stack is the mean of its members, or what `weights` or `accuracies` make of them beforehand, and
    says that it is not calibrated.

    Args:
        members: a directory each, `hub:OWNER/NAME@REVISION` or another reference of a base.
        out: the new bundle's directory. Members in directories are named relative to it.
        name: of the bundle; that of its directory unless given.
        task: what they answer.
        labels: the label space of the task; not needed where the library knows the task.
        maps: member, as given in `members`, -> its label -> label of the task, for labels that do not explain
            themselves.
        fit: rows that no member was trained on, to choose pool and calibrator on; needs the extra `train`.
        weights: member, as given or by its name in the stack, -> how much it weighs in the mean; scaled to sum to 1.
        accuracies: member -> accuracy known beforehand, as from its own card: it weighs the log-odds of being right
            (`log_odds_weights`).
        infer: rows to infer the meaning of labels on that neither explain themselves nor have a map.
        languages: ISO 639-1 codes of the languages that the members read.
        max_tokens: of a text that are read; 128, or what all members have positions for, unless given.
        windows: how longer texts are read; None: what lies beyond `max_tokens` is not.
        report: told of progress.
        warn: told what a person should check.

    Returns:
        The bundle, loaded once as a proof that it works.

    Raises:
        BundleError: a member is missing, is no classifier of texts or cannot be loaded; `out` is not empty.
        LabelError: labels of a member have no certain place in the space, or no member has all of them.
        DataError: the rows cannot be used, or the weights are not one for each member.
    """
    home = Path(out).absolute()
    if home.exists() and any(home.iterdir()):
        raise BundleError(f"{home} is not empty")
    found = find_checkpoints([os.fspath(member) for member in members], home)
    space = label_space(task, labels or known_labels(task))
    outline = Outline(name or home.name, task, space, tuple(languages), max_tokens or _common_tokens(found), windows)
    given = _check_maps(maps or {}, found)
    meanings = [_read_labels(one, given.get(one.given, {}), outline, infer, report=report, warn=warn) for one in found]
    _check_coverage(found, meanings, space)
    kind = _common_kind(found)
    pool = _start_pool(found, len(space.labels) if kind == "single" else 2, fit, weights, accuracies)
    specs = [one.spec(task, meant) for one, meant in zip(found, meanings, strict=True)]
    existed = home.exists()
    home.mkdir(parents=True, exist_ok=True)
    try:
        bundle = save_manifest(home, outline.manifest(specs, kind, pool))
        load_stack(bundle)
        return bundle if fit is None else _fit(bundle, task, fit, report, warn)
    except BaseException:
        shutil.rmtree(home)
        if existed:
            home.mkdir()
        raise


@dataclass(frozen=True, slots=True)
class Outline:
    """What a bundle is, but for its members."""

    name: str
    task: str
    space: LabelSpace
    languages: tuple[str, ...]
    max_tokens: int
    windows: WindowSpec | None

    def manifest(self, members: Sequence[MemberSpec], kind: TaskKind, pool: PowerPool) -> Manifest:
        """The manifest of `members` under a pool that no rows were needed for.

        Raises:
            BundleError: the name is not one a bundle can have, or a setting is out of range.
        """
        task = TaskSpec(
            kind=kind,
            labels=self.space.labels,
            pool=pool,
            calibrator=Identity(),
            calibrated=False,
            best_member=members[pool.weights.index(max(pool.weights))].name,
        )
        try:
            return Manifest(
                name=self.name,
                languages=self.languages,
                max_tokens=self.max_tokens,
                windows=self.windows,
                tasks={self.task: task},
                members=tuple(members),
            )
        except ValidationError as exc:
            raise BundleError(f"no such bundle can be made: {describe_faults(exc)}") from exc


def find_checkpoints(references: Sequence[str], home: Path) -> list[Checkpoint]:
    """Find classifiers by their references, directories seen from here.

    Args:
        references: at least one.
        home: the directory of the bundle, which names the directories relative to itself.

    Raises:
        BundleError: one is missing or is not allowed.
    """
    if not references:
        raise BundleError("a stack needs at least one member")
    found: list[Checkpoint] = []
    for given in references:
        root = resolve_base(given, Path.cwd())
        kept = given if given.startswith(_KINDS) else os.path.relpath(root, home)
        name = _unused_name(_short_name(given), [checkpoint.name for checkpoint in found])
        digest_files(root, BASE_FILES)
        found.append(Checkpoint(name, given, kept, root, read_config(root)))
    return found


def _short_name(reference: str) -> str:
    """The last word of a path or repository, as a name."""
    kind, _, rest = reference.partition(":")
    place = rest.partition("@")[0].partition("==")[0] if f"{kind}:" in _KINDS else str(Path(reference).absolute())
    return re.sub(r"[^a-z0-9]+", "-", Path(place).name.lower()).strip("-") or "member"


def _unused_name(name: str, taken: Sequence[str]) -> str:
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def _common_tokens(checkpoints: Sequence[Checkpoint]) -> int:
    """Tokens that all have positions for; some families skip those up to the padding token, so all are taken to."""
    positions = [one.config.max_position_embeddings - one.config.pad_token_id - 1 for one in checkpoints]
    return int(min(MAX_TOKENS, *positions))


def _common_kind(checkpoints: Sequence[Checkpoint]) -> TaskKind:
    kinds = {checkpoint.kind for checkpoint in checkpoints}
    if len(kinds) > 1:
        each = ", ".join(f"{checkpoint.given} {checkpoint.kind}" for checkpoint in checkpoints)
        raise BundleError(f"members that give one label a text and any number of them answer different tasks: {each}")
    return kinds.pop()


def _check_maps(
    maps: Mapping[str, Mapping[str, str]], checkpoints: Sequence[Checkpoint]
) -> Mapping[str, Mapping[str, str]]:
    given = [checkpoint.given for checkpoint in checkpoints]
    if stray := maps.keys() - set(given):
        raise LabelError(f"a map for {', '.join(sorted(stray))}, which is not one of the members: {', '.join(given)}")
    return maps


def _read_labels(
    checkpoint: Checkpoint,
    explicit: Mapping[str, str],
    outline: Outline,
    infer: Rows | None,
    *,
    report: Report,
    warn: Warn,
) -> dict[str, str]:
    """What each label of a classifier means; inferred where it does not say and rows are given."""
    try:
        meant = outline.space.read_order(checkpoint.labels, explicit)
        return dict(zip(checkpoint.labels, meant, strict=True))
    except LabelError as exc:
        if infer is None or explicit:
            raise LabelError(f"{checkpoint.given}: {exc}") from exc
    inferred = _infer(checkpoint, outline, infer, report)
    warn(f"{checkpoint.given}: its labels were {inferred.warning}")
    return dict(inferred.map)


def _infer(checkpoint: Checkpoint, outline: Outline, rows: Rows, report: Report) -> "InferredMap":
    """Ask a classifier alone about the rows, under its own labels."""
    with _needs_train():
        from stacknorm.assembly.fitting import infer_labels  # noqa: PLC0415
    alone = replace(checkpoint, reference=str(checkpoint.root.absolute()))
    probe = replace(outline, space=LabelSpace(outline.task, checkpoint.labels))
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_manifest(
            Path(folder), probe.manifest([alone.spec(outline.task, {})], checkpoint.kind, mean_pool(1))
        )
        return infer_labels(bundle, outline.task, outline.space, rows.path, rows.integers, report=report)


def _start_pool(
    checkpoints: Sequence[Checkpoint],
    labels: int,
    fit: Rows | None,
    weights: Mapping[str, float] | None,
    accuracies: Mapping[str, float] | None,
) -> PowerPool:
    """The linear pool that is known before any rows are: the mean unless something is said of the members."""
    if sum(given is not None for given in (fit, weights, accuracies)) > 1:
        raise DataError("rows to fit on, weights and accuracies are three ways to one pool: give one")
    if accuracies is not None:
        known = _of_each(checkpoints, accuracies, "an accuracy")
        if not all(0 < value < 1 for value in known):
            raise DataError(f"accuracies lie between 0 and 1, not {known}")
        return PowerPool(weights=log_odds_weights(known, labels))
    if weights is not None:
        given = _of_each(checkpoints, weights, "a weight")
        if min(given) < 0 or sum(given) <= 0:
            raise DataError(f"weights are not negative, and not all zero: {given}")
        return PowerPool(weights=tuple(value / sum(given) for value in given))
    return mean_pool(len(checkpoints))


def _of_each(checkpoints: Sequence[Checkpoint], given: Mapping[str, float], what: str) -> list[float]:
    """The value of each member, which is called by its reference or by its name."""
    called = [next((key for key in (one.given, one.name) if key in given), None) for one in checkpoints]
    names = ", ".join(one.name for one in checkpoints)
    if None in called or len(set(called)) < len(given):
        raise DataError(f"each of {names} needs {what}, and nothing else has one; given are {', '.join(given)}")
    return [given[key] for key in called if key is not None]


def _check_coverage(
    checkpoints: Sequence[Checkpoint], meanings: Sequence[Mapping[str, str]], space: LabelSpace
) -> None:
    """What a member lacks is taken from those that have all labels, so there must be one."""
    lacking = {
        checkpoint.given: [label for label in space.labels if label not in meant.values()]
        for checkpoint, meant in zip(checkpoints, meanings, strict=True)
    }
    if all(lacking.values()):
        each = "; ".join(f"{given} lacks {', '.join(labels)}" for given, labels in lacking.items())
        raise LabelError(f"no member has all labels of {space.name}: {each}")


def _fit(bundle: Bundle, task: str, rows: Rows, report: Report, warn: Warn) -> Bundle:
    with _needs_train():
        from stacknorm.assembly.fitting import fit_bundle  # noqa: PLC0415
    fitted = fit_bundle(bundle, task, rows.path, rows.integers, report=report)
    for doubt in fitted.doubts:
        warn(doubt)
    return fitted.bundle


@contextmanager
def _needs_train() -> Iterator[None]:
    """Around an import that needs the extra `train`, which a stack without fitting does not."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise DataError(f"fitting on rows needs {exc.name}: pip install 'stacknorm[train]'") from exc
