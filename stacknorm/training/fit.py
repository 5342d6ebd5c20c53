"""From trained members to a bundle: pools and temperatures on held-out rows, scores, fingerprints, manifest."""

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from stacknorm.bundle import (
    FINGERPRINTS_FILE,
    HEADS_FILE,
    BaseSpec,
    Bundle,
    HeadSpec,
    Interval,
    Manifest,
    MemberSpec,
    TaskSpec,
    Training,
    save_manifest,
)
from stacknorm.encoder.adapter import ADAPTER_FILES
from stacknorm.evaluation.card import CARD_FILE, render_card
from stacknorm.evaluation.evaluate import STACK
from stacknorm.evaluation.metrics import Truth, nll, score
from stacknorm.pooling.calibrate import Temperature, apply_temperature, fit_temperature
from stacknorm.pooling.pool import Probabilities, fit_log_pool, fit_weighted_pool, mean_pool
from stacknorm.source import BASE_FILES, digest_files
from stacknorm.training.corpus import Corpus, describe_rows
from stacknorm.training.finetune import Cost
from stacknorm.training.recipe import MemberRecipe, Recipe

RECIPE_FILE = "train.toml"
_MEMBER_FILES = (*ADAPTER_FILES, HEADS_FILE)


@dataclass(frozen=True, slots=True)
class Run:
    """What one training run starts from, and where it writes."""

    recipe: Recipe
    config: Path
    """The recipe's file, which the bundle keeps."""
    corpus: Corpus
    base: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Fitted:
    """A task's pool and calibrator, and what they score on the rows they were fitted on."""

    spec: TaskSpec
    scores: Mapping[str, Mapping[str, Interval]]


def fit_task(labels: Sequence[str], members: Mapping[str, Probabilities], truth: Truth) -> Fitted:
    """Choose the pool with the least held-out NLL after its temperature.

    Args:
        labels: of the task.
        members: member -> held-out probabilities [n, labels].
        truth: held-out labels [n].
    """
    stacked = np.stack(list(members.values()))
    pools = (mean_pool(len(members)), fit_weighted_pool(stacked, truth), fit_log_pool(stacked, truth))
    pool, temperature = min(
        ((pool, fit_temperature(pool(stacked), truth)) for pool in pools),
        key=lambda fitted: nll(apply_temperature(fitted[0](stacked), fitted[1]), truth),
    )
    best = min(members, key=lambda name: nll(members[name], truth))
    whole = apply_temperature(pool(stacked), temperature)
    return Fitted(
        TaskSpec(labels=tuple(labels), pool=pool, calibrator=Temperature(temperature=temperature), best_member=best),
        {name: score(given, truth) for name, given in ({STACK: whole} | dict(members)).items()},
    )


def write_bundle(run: Run, members: Mapping[str, Path], fitted: Mapping[str, Fitted], cost: Cost) -> Bundle:
    """Write everything a bundle holds to the run's directory.

    Args:
        run: recipe, data and base.
        members: member -> folder that `train_member` wrote.
        fitted: task -> pool, calibrator and held-out scores.
        cost: of training all members.
    """
    for name, folder in members.items():
        (run.out / name).mkdir(parents=True, exist_ok=True)
        for file in _MEMBER_FILES:
            shutil.copyfile(folder / file, run.out / name / file)
    (run.out / RECIPE_FILE).write_bytes(run.config.read_bytes())
    (run.out / FINGERPRINTS_FILE).write_bytes(save({"fingerprints": np.unique(run.corpus.prints)}))
    bundle = save_manifest(run.out, _manifest(run, fitted, cost))
    (run.out / CARD_FILE).write_text(render_card(bundle), encoding="utf-8")
    return bundle


def _manifest(run: Run, fitted: Mapping[str, Fitted], cost: Cost) -> Manifest:
    return Manifest(
        name=run.recipe.name,
        languages=run.recipe.languages,
        max_tokens=run.recipe.max_tokens,
        tasks={task: part.spec for task, part in fitted.items()},
        members=tuple(_member_spec(run, member) for member in run.recipe.members),
        files=digest_files(run.out, (RECIPE_FILE, FINGERPRINTS_FILE)),
        training=Training(
            data=run.corpus.sources,
            rows=describe_rows(run.corpus),
            seconds=round(cost.seconds),
            precision=cost.precision,
            versions={"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers", "peft")},
        ),
        scores={task: part.scores for task, part in fitted.items()},
    )


def _member_spec(run: Run, member: MemberRecipe) -> MemberSpec:
    return MemberSpec(
        name=member.name,
        base=BaseSpec(references=(run.recipe.base,), files=digest_files(run.base, BASE_FILES)),
        heads={
            task: HeadSpec(labels=recipe.labels, pooling=member.pooling) for task, recipe in run.recipe.tasks.items()
        },
        files=digest_files(run.out / member.name, _MEMBER_FILES),
    )
