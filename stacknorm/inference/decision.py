"""From what members say to one task's answers: label map, pool, calibrator, cascade. Numbers alone, no model.

Shapes: members x rows x labels, [k, n, c]; a row is a text, or a mention of an entity. NaN: the member was not asked,
or failed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import HeadSpec, Manifest, TaskKind
from stacknorm.errors import BundleError
from stacknorm.labels import LabelSpace
from stacknorm.pooling.calibrate import Calibrator, apply_member_temperatures, disagreement, entropy, margin
from stacknorm.pooling.cascade import Rows, is_settled, is_sure
from stacknorm.pooling.conformal import ClassConditional
from stacknorm.pooling.lacking import fill_lacking
from stacknorm.pooling.pool import Pool, Probabilities, from_pairs, to_pairs
from stacknorm.prediction import TaskPrediction
from stacknorm.spans.tags import head_tags, tag_matrix

Stages = npt.NDArray[np.int64]
"""The stage at which each row was answered, counted from 0; [n]."""

CASCADED: tuple[TaskKind, ...] = ("single", "entity")
"""Kinds of task that a cascade can answer."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How rows that end at one stage are answered."""

    members: tuple[int, ...]
    """Positions of the members that have run by then."""
    pool: Pool
    """Over those members."""
    calibrator: Calibrator
    stop_above: float | None = None
    """Confidence at which a row may end here; None: only where the rest cannot change its label."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything that turns members' probabilities into one task's answers."""

    task: str
    kind: TaskKind
    space: LabelSpace
    members: tuple[str, ...]
    mappings: Mapping[str, Probabilities]
    """Member -> [head labels, labels]."""
    temperatures: tuple[float, ...]
    """One for each member, or none."""
    conformal: ClassConditional | None
    rules: tuple[Rule, ...]
    """One for each stage; the last has all members."""

    def place(self, shares: Mapping[str, Probabilities], rows: int) -> Probabilities:
        """Put what members say onto the label space: member -> [n, head labels] becomes [k, n, c].

        What a member says nothing about, because it lacks the label, is taken from those that have all labels.
        """
        nothing = np.full((rows, next(iter(self.mappings.values())).shape[1]), np.nan)
        members = np.stack([shares[name] @ self.mappings[name] if name in shares else nothing for name in self.members])
        has = np.stack([self.mappings[name].any(axis=0) for name in self.members])
        if self.kind != "multi":
            return fill_lacking(apply_member_temperatures(members, self.temperatures), has)
        # Two labels of a member that mean one of ours may both apply.
        pairs = to_pairs(members.clip(max=1))
        members = from_pairs(apply_member_temperatures(pairs, self.temperatures), members.shape[2])
        return fill_lacking(members, has, exclusive=False)

    def finished(self, members: Probabilities, stage: int) -> Rows:
        """Rows that need no stage after this one; [k, n, c] -> [n]."""
        rule = self.rules[stage]
        seen = members[list(rule.members)]
        complete = np.asarray(~np.isnan(seen).any(axis=(0, 2)))
        if rule.stop_above is None:
            return complete & is_settled(members, self.rules[-1].pool.weights)
        done = np.zeros(members.shape[1], dtype=bool)
        if rule.members and complete.any():
            done[complete] = is_sure(rule.calibrator(rule.pool(seen[:, complete])), rule.stop_above)
        return done

    def answer(self, members: Probabilities, stages: Stages) -> tuple[Probabilities, Probabilities]:
        """Pool and calibrate every row with the members that spoke on it.

        Args:
            members: [k, n, c].
            stages: [n].

        Returns:
            Probabilities [n, c], and the members' disagreement [n] in nats; NaN where no member spoke.
        """
        pooled, split = np.full(members.shape[1:], np.nan), np.full(members.shape[1], np.nan)
        spoke = ~np.isnan(members).any(axis=2)
        patterns, which = np.unique(np.vstack([spoke, stages]), axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            rows = np.flatnonzero(which == number)
            rule = self.rules[int(pattern[-1])]
            present = [place for place, member in enumerate(rule.members) if pattern[member]]
            if not present:
                continue
            pool = rule.pool if len(present) == len(rule.members) else rule.pool.only(present)
            given = members[[rule.members[place] for place in present]][:, rows]
            pooled[rows], split[rows] = self._join(rule, pool, given)
        return pooled, split

    def _join(self, rule: Rule, pool: Pool, given: Probabilities) -> tuple[Probabilities, Probabilities]:
        if self.kind != "multi":
            return rule.calibrator(pool(given)), disagreement(given, pool.weights)
        pairs, labels = to_pairs(given), given.shape[2]
        split = disagreement(pairs, pool.weights).reshape(-1, labels).sum(axis=1)
        return from_pairs(rule.calibrator(pool(pairs)), labels), split

    def describe(self, members: Probabilities, stages: Stages) -> list[TaskPrediction | None]:
        """One answer a row; none where no member spoke."""
        probabilities, split = self.answer(members, stages)
        unsure = entropy(probabilities)
        if self.kind == "multi":
            unsure = entropy(to_pairs(probabilities)).reshape(probabilities.shape).sum(axis=1)
        labels = self.space.labels
        sets = self.conformal(probabilities) if self.conformal else np.zeros(probabilities.shape, dtype=np.bool_)
        return [
            TaskPrediction(
                label=labels[int(row.argmax())],
                probabilities=dict(zip(labels, row.tolist(), strict=True)),
                entropy=float(h),
                disagreement=float(d),
                margin=float(m),
                conformal_set=tuple(label for label, kept in zip(labels, inside, strict=True) if kept),
            )
            if np.isfinite(h)
            else None
            for row, h, d, m, inside in zip(probabilities, unsure, split, margin(probabilities), sets, strict=True)
        ]


def decide(manifest: Manifest, task: str, form: Literal["width", "cascade"]) -> Decision:
    """Prepare one task of a bundle, answered by all members at once or in the stages of its cascade.

    Raises:
        LabelError: a head's labels cannot be placed.
    """
    spec = manifest.tasks[task]
    space = spec.space(task)
    names = manifest.members_of(task)
    heads = {part.name: part.heads[task] for part in manifest.voices() if task in part.heads}
    last = Rule(tuple(range(len(names))), spec.pool, spec.calibrator)
    mappings = {name: _mapping(spec.kind, space, head) for name, head in heads.items()}
    early = _early_rules(manifest, task) if form == "cascade" else ()
    if any(rule.stop_above is None for rule in early) and not all(m.any(axis=0).all() for m in mappings.values()):
        raise BundleError(f"an exact cascade needs members that have all labels of task {task}")
    return Decision(
        task=task,
        kind=spec.kind,
        space=space,
        members=names,
        mappings=mappings,
        temperatures=spec.member_temperatures,
        conformal=spec.conformal,
        rules=(*early, last),
    )


def tag_maps(manifest: Manifest, task: str) -> dict[str, Probabilities]:
    """Member -> [tags of its head, tags of the task], of a `spans` task.

    Raises:
        LabelError: a tag cannot be placed.
    """
    space = manifest.tasks[task].space(task)
    heads = {voice.name: voice.heads[task] for voice in manifest.voices() if task in voice.heads}
    return {name: tag_matrix(space, head.labels, head.map) for name, head in heads.items()}


def _mapping(kind: TaskKind, space: LabelSpace, head: HeadSpec) -> Probabilities:
    if kind == "spans":
        # Members' tags are already the task's own where words are gathered from them.
        return np.eye(len(head_tags(space.labels)))
    return space.matrix(head.labels, head.map).astype(np.float64)


def early_members(manifest: Manifest, task: str) -> Iterator[tuple[int, ...]]:
    """Positions, among those with a head for a task, of the members and channels that have run by each early stage."""
    run: set[str] = set()
    for stage in manifest.cascade.stages[:-1] if manifest.cascade else ():
        run |= set(stage.members)
        ready = run | {channel.name for channel in manifest.channels if run.issuperset(channel.members)}
        yield tuple(place for place, name in enumerate(manifest.members_of(task)) if name in ready)


def _early_rules(manifest: Manifest, task: str) -> tuple[Rule, ...]:
    if manifest.cascade is None:
        raise BundleError(f"bundle {manifest.name} has no cascade")
    spec = manifest.tasks[task]
    if spec.kind not in CASCADED:
        raise BundleError(
            f"a cascade answers tasks of kind {' and '.join(CASCADED)}, whose one label a row can be settled; "
            f"task {task} is {spec.kind}"
        )
    linear = spec.pool.kind == "power" and spec.pool.exponent == 1
    if manifest.cascade.mode == "exact" and not (linear and spec.calibrator.keeps_order):
        raise BundleError(
            f"an exact cascade needs a linear pool and a calibrator that keeps the order of labels; task {task} has "
            f"{spec.pool.kind} and {spec.calibrator.kind}"
        )
    rules: list[Rule] = []
    for stage, members in zip(manifest.cascade.stages[:-1], early_members(manifest, task), strict=True):
        if manifest.cascade.mode == "exact":
            rules.append(Rule(members, spec.pool.only(members) if members else spec.pool, spec.calibrator))
        elif part := stage.tasks.get(task):
            rules.append(Rule(members, part.pool, part.calibrator, part.stop_above))
        else:
            rules.append(Rule((), spec.pool, spec.calibrator, stop_above=1))
    return tuple(rules)
