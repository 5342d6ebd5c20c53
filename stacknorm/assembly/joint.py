"""Join members of a bundle by a channel: one head, trained on labelled rows, on what several members read of a text.

The rows must be new to every member; those a bundle knows its members were trained on are refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError
from safetensors.numpy import save_file

from stacknorm.assembly.fitting import CHUNK_TEXTS, Unseen, ask_members, refit
from stacknorm.bases.source import digest_files
from stacknorm.bundle import (
    HEADS_FILE,
    Bundle,
    ChannelSpec,
    HeadSpec,
    Manifest,
    Name,
    describe_faults,
    save_manifest,
)
from stacknorm.engine import Engine
from stacknorm.errors import BundleError
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.paired import Paired, compare_answers
from stacknorm.frozen import Frozen
from stacknorm.inference.channel import join
from stacknorm.pooling.choice import Choice, choose
from stacknorm.pooling.head_fitting import FittedHead, fit_head
from stacknorm.pooling.held_out import HeldOut
from stacknorm.pooling.pool import Probabilities
from stacknorm.progress import Report


class Junction(Frozen):
    """The channel that is wanted."""

    name: Name
    members: Annotated[tuple[Name, ...], Field(min_length=2)]
    combine: Literal["concat", "sum"] = "concat"


def make_junction(name: str, members: Sequence[str], combine: Literal["concat", "sum"]) -> Junction:
    """The channel that a user asks for.

    Raises:
        BundleError: there is no such one.
    """
    try:
        return Junction(name=name, members=tuple(members), combine=combine)
    except ValidationError as exc:
        raise BundleError(f"no such channel can be made: {describe_faults(exc)}") from exc


@dataclass(frozen=True, slots=True)
class Joined:
    """A bundle with channels, and what they are worth."""

    bundle: Bundle
    gains: Mapping[str, Paired]
    """Task -> the stack with its channels less the stack without; both cross-validated inside the rows."""


def add_channels(
    bundle: Bundle,
    junctions: Sequence[Junction],
    rows: Sequence[Unseen],
    *,
    report: Report,
    choosing: Callable[[HeldOut], Choice] = choose,
) -> Joined:
    """Train channels and write them into a bundle, with pools and calibrators that know of them.

    Args:
        bundle: one without channels. A cascade that it has is taken away, for its stages belong to the old pools.
        junctions: what to join, at least one.
        rows: of tasks of the kind `single`; each channel gets a head for each of them.
        report: told of progress.
        choosing: how pools and calibrators are chosen.

    Raises:
        BundleError: it has no such members, or they cannot be added; a task is of another kind.
        DataError: too few rows, or some that were trained on.
    """
    _check(bundle.manifest, junctions, rows)
    engine = Engine.load(bundle.root, form="width", language_guard=False, features=True)
    trained = [_train(engine, part, junctions, report) for part in rows]
    tasks = [part.task for part in rows]
    channels = tuple(
        _write(bundle, junction, dict(zip(tasks, (heads[place] for _, heads in trained), strict=True)))
        for place, junction in enumerate(junctions)
    )
    manifest = bundle.manifest.model_copy(update={"channels": channels, "cascade": None})
    gains = {}
    for part, (held_out, heads) in zip(rows, trained, strict=True):
        voices = np.stack([*held_out.members, *(head.probabilities for head in heads)])
        manifest = _with_temperatures(manifest, part.task, len(heads))
        manifest, choice = refit(manifest, part.task, replace(held_out, members=voices), part.origin, choosing)
        gains[part.task] = _compare(manifest.tasks[part.task].labels, held_out, choice, choosing(held_out))
    return Joined(save_manifest(bundle.root, manifest), gains)


def _train(
    engine: Engine, part: Unseen, junctions: Sequence[Junction], report: Report
) -> tuple[HeldOut, list[FittedHead]]:
    """What members say of rows, and each channel's head for their task."""
    held_out = ask_members(engine, part, report)
    features = _read_features(engine, part, report)
    labels = held_out.members.shape[2]
    heads: list[FittedHead] = []
    for junction in junctions:
        report(f"training the heads for {part.task}", len(heads), len(junctions))
        heads.append(fit_head(_join(junction, features), held_out.truth, held_out.prints, labels))
    report(f"training the heads for {part.task}", len(heads), len(junctions))
    return held_out, heads


def _check(manifest: Manifest, junctions: Sequence[Junction], rows: Sequence[Unseen]) -> None:
    if manifest.channels:
        raise BundleError(
            f"bundle {manifest.name} has channels, and what they say of rows they were trained on promises too much: "
            "join the members of the bundle it was made from"
        )
    names = [member.name for member in manifest.members]
    for junction in junctions:
        if stray := [name for name in junction.members if name not in names]:
            raise BundleError(f"channel {junction.name} joins unknown members: {', '.join(stray)}; there are {names}")
        if junction.name in names:
            raise BundleError(f"channel {junction.name} has the name of a member")
    for part in rows:
        if manifest.tasks[part.task].kind != "single":
            raise BundleError(f"channels answer tasks of kind single; {part.task} is {manifest.tasks[part.task].kind}")


def _read_features(engine: Engine, part: Unseen, report: Report) -> Mapping[str, Probabilities]:
    """What each member read of the rows' texts, [rows, hidden size]."""
    texts = part.sheet.texts
    chunks = []
    for start in range(0, len(texts), CHUNK_TEXTS):
        report("reading features", start, len(texts))
        chunks.append(engine.features(texts[start : start + CHUNK_TEXTS]))
    report("reading features", len(texts), len(texts))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _join(junction: Junction, features: Mapping[str, Probabilities]) -> Probabilities:
    widths = {name: features[name].shape[1] for name in junction.members}
    if junction.combine == "sum" and len(set(widths.values())) > 1:
        raise BundleError(f"channel {junction.name} cannot add features of different widths: {widths}")
    return join([features[name] for name in junction.members], junction.combine)


def _write(bundle: Bundle, junction: Junction, heads: Mapping[str, FittedHead]) -> ChannelSpec:
    """Write the heads of a channel in fp32."""
    folder = bundle.root / junction.name
    folder.mkdir()
    tensors = {}
    for task, head in heads.items():
        # safetensors writes memory as it lies, so an array in another order than C's would come back scrambled.
        tensors[f"{task}.weight"] = head.weights.astype(np.float32, order="C")
        tensors[f"{task}.bias"] = head.biases.astype(np.float32, order="C")
    save_file(tensors, folder / HEADS_FILE)
    tasks = bundle.manifest.tasks
    return ChannelSpec(
        name=junction.name,
        members=junction.members,
        combine=junction.combine,
        heads={task: HeadSpec(labels=tasks[task].labels, pooling="mean") for task in heads},
        files=digest_files(folder, [HEADS_FILE]),
    )


def _with_temperatures(manifest: Manifest, task: str, channels: int) -> Manifest:
    """Channels have none of their own: 1, where members have some."""
    spec = manifest.tasks[task]
    given = (*spec.member_temperatures, *(1.0,) * channels) if spec.member_temperatures else ()
    changed = spec.model_copy(update={"member_temperatures": given})
    return manifest.model_copy(update={"tasks": dict(manifest.tasks) | {task: changed}})


def _compare(labels: tuple[str, ...], rows: HeldOut, ours: Choice, theirs: Choice) -> Paired:
    answers = Answers(labels, ours.probabilities, rows.truth, np.unique(rows.prints, return_inverse=True)[1])
    return compare_answers(answers, answers.by(theirs.probabilities))
