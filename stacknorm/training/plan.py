"""What a training config comes to: which trainings there are, and where each one's result waits.

A result lies in a folder whose name ends in a digest of all it depends on, so a finished one is never made twice
and one of another recipe, other data or another base is never taken for it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stacknorm.bases.source import BASE_FILES, WEIGHTS_FILE, digest_files, resolve_base, verify_files
from stacknorm.encoder.device import Device, WantedDevice, choose_device
from stacknorm.errors import BundleError, DataError
from stacknorm.training.corpus import Corpus, Indices, Split, assign_folds, fold_split, load_corpus, whole_split
from stacknorm.training.recipe import MemberRecipe, Recipe, load_recipe

WORK = ".training"
"""Folder under the directory of a bundle where results wait until it is written."""
_KEY_CHARS = 16


@dataclass(frozen=True, slots=True)
class Base:
    """A base as it was found: its directory, and what its files are."""

    root: Path
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A training config together with what it refers to."""

    recipe: Recipe
    config: Path
    """The recipe's file, which the bundle keeps."""
    corpus: Corpus
    bases: Mapping[str, Base]
    """Member -> its base."""
    out: Path
    device: Device = "cpu"
    """Where members are trained."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training of one member."""

    member: MemberRecipe
    title: str
    split: Split
    folder: Path
    """Where its result waits."""
    fold: int = 0
    """The fold it answers, counted from 0."""

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self.folder.is_dir()


def make_plan(config: Path, data: Path, out: Path, device: WantedDevice = "auto") -> Plan:
    """Read a config and its data, and find its bases and the device.

    Raises:
        DataError: config or data cannot be used.
        BundleError: a base cannot be found.
        DeviceError: a GPU is asked for, and there is none.
    """
    recipe = load_recipe(config)
    wanted = dict.fromkeys((member.base, member.weights_sha256) for member in recipe.members)
    found = {(base, sha256): _find_base(base, sha256, config.parent) for base, sha256 in wanted}
    bases = {member.name: found[member.base, member.weights_sha256] for member in recipe.members}
    return Plan(recipe, config, load_corpus(recipe, data), bases, out, choose_device(device))


def _find_base(references: Sequence[str], weights_sha256: str | None, beside: Path) -> Base:
    """The first place of `references` that exists and holds the weights meant."""
    problems = []
    for reference in references:
        try:
            root = resolve_base(reference, beside)
            if weights_sha256 is not None:
                verify_files(root, {WEIGHTS_FILE: weights_sha256})
            return Base(root, digest_files(root, BASE_FILES))
        except BundleError as exc:
            problems.append(str(exc))
    raise BundleError("; ".join(problems))


def whole_jobs(plan: Plan) -> list[Job]:
    """One training for each member, on all that is not held out."""
    split = whole_split(plan.corpus)
    _check_split(plan, split, "held out")
    return [
        Job(member, member.name, split, plan.out / WORK / f"{member.name}-{member_key(plan, member)}")
        for member in plan.recipe.members
    ]


def fold_jobs(plan: Plan, folds: int) -> list[Job]:
    """A training for each member and fold, which answers the examples of the fold; fold by fold.

    Raises:
        DataError: there are fewer different texts than folds.
    """
    fold_of = folds_of(plan, folds)
    splits = [fold_split(plan.corpus, fold_of, fold) for fold in range(folds)]
    for split in splits:
        _check_split(plan, split, f"of {folds} folds")
    return [
        Job(
            member,
            f"{member.name}, fold {fold + 1} of {folds}",
            split,
            plan.out / WORK / f"{member.name}-fold{fold + 1}of{folds}-{member_key(plan, member)}",
            fold,
        )
        for fold, split in enumerate(splits)
        for member in plan.recipe.members
    ]


def _check_split(plan: Plan, split: Split, what: str) -> None:
    for task in plan.recipe.tasks:
        if not all(len(plan.corpus.only(rows, [task])) for rows in (split.train, split.stop, split.judge)):
            raise DataError(f"task {task} has too few rows: a part {what} is empty")


def folds_of(plan: Plan, folds: int) -> Indices:
    """The fold of each example, [examples]."""
    corpus = plan.corpus
    return assign_folds(corpus.prints, corpus.tasks, corpus.strata, folds, plan.recipe.seed)


def member_key(plan: Plan, member: MemberRecipe) -> str:
    """Digest of everything a member depends on: its recipe, tasks, data, split and base.

    What only names things (of the bundle, titles, where the base was found) and what the other members are does not
    count.
    """
    recipe = plan.recipe
    shared = recipe.model_dump(mode="json", include={"max_tokens", "batch_tokens", "held_out", "seed", "precision"})
    tasks = {name: task.model_dump(mode="json", exclude={"alpha"}) for name, task in recipe.tasks.items()}
    own = member.model_dump(mode="json", exclude={"name", "base", "weights_sha256"})
    data = [
        (source.task, source.sha256, part.labels) for source, part in zip(plan.corpus.sources, recipe.data, strict=True)
    ]
    parts = [shared, tasks, own, data, dict(plan.bases[member.name].files)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_KEY_CHARS]


def waiting_folders(config: Path, data: Path, out: Path) -> dict[str, Path]:
    """Where `stacknorm train CONFIG --data DATA --out OUT` looks for finished members, by name.

    A member trained elsewhere is taken over by putting its files into this folder: the adapter's two files and
    `heads.safetensors` (in `full` mode a base's three files and the heads), `held_out.safetensors` (task ->
    probabilities of the held-out examples, [units, labels]) and `cost.json` (seconds and precision).
    """
    return {job.member.name: job.folder for job in whole_jobs(make_plan(config, data, out))}
