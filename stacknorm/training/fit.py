"""From trained members to a bundle: pools and calibrators on unseen examples, scores, fingerprints, manifest."""

import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from stacknorm.bases.source import BASE_FILES, digest_files
from stacknorm.bundle import (
    FINGERPRINTS_FILE,
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
from stacknorm.evaluation.evaluate import STACK
from stacknorm.evaluation.metrics import SPAN_METRICS
from stacknorm.evaluation.paired import Paired, PairedCounts
from stacknorm.pooling.cascade_fitting import choose_settling
from stacknorm.pooling.choice import Choice, choose
from stacknorm.pooling.conformal import ClassConditional, fit_class_conditional
from stacknorm.pooling.held_out import HeldOut
from stacknorm.pooling.pool import Probabilities, from_pairs
from stacknorm.training.corpus import describe_rows
from stacknorm.training.evidence import Evidence
from stacknorm.training.finetune import Cost, task_nll
from stacknorm.training.plan import Plan
from stacknorm.training.recipe import MemberRecipe, Recipe, TaskRecipe
from stacknorm.training.targets import head_labels, head_pooling
from stacknorm.training.trainee import base_files, member_files, name_base

RECIPE_FILE = "train.toml"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A task's pool and calibrator, and what members and stack score on the units they were fitted on."""

    spec: TaskSpec
    scores: Mapping[str, Mapping[str, Interval]]
    against_best: Paired | PairedCounts
    """The stack less its best member, on the same units."""


def choosing_of(recipe: Recipe) -> Callable[[HeldOut], Choice]:
    """How pools and calibrators are chosen: among all, or among those an exact cascade can bound."""
    return choose_settling if recipe.cascade and recipe.cascade.mode == "exact" else choose


def fit_task(recipe: TaskRecipe, evidence: Evidence, choosing: Callable[[HeldOut], Choice]) -> Fitted:
    """Choose pool and calibrator by held-out NLL.

    The stack's scores are cross-validated inside the units: each is pooled and calibrated by what was fitted without
    it, so they are not flattered.
    """
    decision = choosing(evidence.held_out())
    pooled = decision.probabilities
    if evidence.kind == "multi":
        pooled = from_pairs(pooled, len(recipe.labels))
    systems = {STACK: pooled} | dict(evidence.members)
    scores = {name: evidence.score(said, recipe.labels) for name, said in systems.items()}
    best = _best_member(evidence, scores)
    spec = TaskSpec(
        kind=recipe.kind,
        labels=recipe.labels,
        pool=decision.pool,
        calibrator=decision.calibrator,
        conformal=_fit_sets(recipe, decision.probabilities, evidence),
        best_member=best,
    )
    return Fitted(spec, scores, evidence.compare(pooled, evidence.members[best], recipe.labels))


def _best_member(evidence: Evidence, scores: Mapping[str, Mapping[str, Interval]]) -> str:
    """By what is asked of the task: by the likelihood, but of spans, where most words are in none, by their F1."""
    if evidence.kind == "spans":
        return max(evidence.members, key=lambda name: scores[name][SPAN_METRICS[0]].value)
    return min(evidence.members, key=lambda name: task_nll(evidence.kind, evidence.members[name], evidence.truth))


def _fit_sets(recipe: TaskRecipe, probabilities: Probabilities, evidence: Evidence) -> ClassConditional | None:
    """Thresholds of conformal sets, for tasks that give one label to a unit that a user asks about."""
    if recipe.kind not in {"single", "entity"}:
        return None
    return fit_class_conditional(probabilities, evidence.truth, recipe.alpha)


def write_bundle(
    plan: Plan, folders: Mapping[str, Path], fitted: Mapping[str, Fitted], costs: Mapping[str, Cost]
) -> Bundle:
    """Write everything a bundle holds, but for its card, to the plan's directory.

    Args:
        plan: recipe, data and bases.
        folders: member -> folder that `train_member` wrote.
        fitted: task -> pool, calibrator and scores.
        costs: member -> what all its trainings took.
    """
    for member in plan.recipe.members:
        target = plan.out / member.name
        target.mkdir(parents=True, exist_ok=True)
        for file in (*member_files(member), *base_files(member)):
            shutil.copyfile(folders[member.name] / file, target / file)
        if member.mode == "lora":
            name_base(target, member.base[0])
    (plan.out / RECIPE_FILE).write_bytes(plan.config.read_bytes())
    (plan.out / FINGERPRINTS_FILE).write_bytes(save({"fingerprints": np.unique(plan.corpus.prints)}))
    return save_manifest(plan.out, _manifest(plan, fitted, costs))


def _manifest(plan: Plan, fitted: Mapping[str, Fitted], costs: Mapping[str, Cost]) -> Manifest:
    return Manifest(
        name=plan.recipe.name,
        languages=plan.recipe.languages,
        max_tokens=plan.recipe.max_tokens,
        windows=plan.recipe.windows,
        tasks={task: part.spec for task, part in fitted.items()},
        members=tuple(_member_spec(plan, member) for member in plan.recipe.members),
        files=digest_files(plan.out, (RECIPE_FILE, FINGERPRINTS_FILE)),
        training=Training(
            data=plan.corpus.sources,
            rows=describe_rows(plan.corpus),
            seconds=round(sum(cost.seconds for cost in costs.values())),
            precision=next(iter(costs.values())).precision,
            versions={"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers", "peft")},
        ),
        scores={task: part.scores for task, part in fitted.items()},
    )


def _member_spec(plan: Plan, member: MemberRecipe) -> MemberSpec:
    root = plan.out / member.name
    own = BaseSpec(references=(member.name,), files=digest_files(root, BASE_FILES)) if base_files(member) else None
    return MemberSpec(
        name=member.name,
        base=own or BaseSpec(references=member.base, files=plan.bases[member.name].files),
        heads={
            task: HeadSpec(
                labels=head_labels(recipe.kind, recipe.labels), pooling=head_pooling(recipe.kind, member.pooling)
            )
            for task, recipe in plan.recipe.tasks.items()
            if task in plan.recipe.tasks_of(member)
        },
        files=digest_files(root, member_files(member)),
    )
