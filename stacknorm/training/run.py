"""Carry out trainings one after another, those on one base and one number of frozen layers together."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.encoder.precision import Precision, faster_precision
from stacknorm.encoder.tokens import load_tokenizer, read_rows
from stacknorm.encoder.trunk import depth_of, load_encoder, take_lower
from stacknorm.errors import DataError
from stacknorm.training.finetune import (
    Ground,
    Report,
    count_batches,
    encode_targets,
    measure_precision,
    train_member,
)
from stacknorm.training.plan import WORK, Job, Plan
from stacknorm.training.states import IN_MEMORY_BYTES, States, allocate, compute_states

_STATES_FILE = "states.bin"
_SAMPLE_BATCHES = 4


def run_jobs(plan: Plan, jobs: Sequence[Job], console: Console) -> None:
    """Do the trainings whose results are not there yet.

    Args:
        plan: where they come from.
        jobs: those on one ground are done together, at the place of their first.
        console: gets one line an epoch, and bars where it is a terminal.

    Raises:
        DataError: a member trains more layers than its base has, or the disk is full.
        BundleError: a base cannot be loaded.
    """
    grounds: dict[tuple[str, int], list[Job]] = {}
    for job in jobs:
        if not job.is_done:
            grounds.setdefault(_ground_key(plan, job), []).append(job)
    for alike in grounds.values():
        with show_progress(console) as progress:
            ground = prepare_ground(plan, alike[0], console, progress)
            for job in alike:
                _run_job(ground, job, console, progress)
        (plan.out / WORK / _STATES_FILE).unlink(missing_ok=True)


def say_plan(plan: Plan, jobs: Sequence[Job], console: Console) -> None:
    """Tell what there is to do."""
    missing = sum(not job.is_done for job in jobs)
    held_out = int(plan.corpus.held_out.sum())
    console.print(
        f"{len(plan.corpus.examples):,} rows, {held_out:,} held out; {missing} of {len(jobs)} trainings to do"
    )


def _ground_key(plan: Plan, job: Job) -> tuple[str, int]:
    return json.dumps(dict(plan.bases[job.member.name].files), sort_keys=True), job.member.top_layers


def _run_job(ground: Ground, job: Job, console: Console, progress: Progress) -> None:
    bar = progress.add_task(job.title, total=count_batches(ground, job.member, job.split))

    def report(epoch: Report) -> None:
        scores = ", ".join(f"{task} {value:.4f}" for task, value in epoch.held_out_nll.items())
        console.print(
            f"{job.title}: epoch {epoch.epoch}, {epoch.seconds:.0f} s, loss {epoch.loss:.4f}, held-out NLL {scores}"
        )

    train_member(ground, job.member, job.split, job.folder, advance=partial(progress.advance, bar), report=report)
    progress.remove_task(bar)


def show_progress(console: Console) -> Progress:
    """Bars with the time that is left, where there is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def prepare_ground(plan: Plan, first: Job, console: Console, progress: Progress) -> Ground:
    """Load a base, compute the states of its frozen layers for all texts, and choose the arithmetic.

    Args:
        plan: where the data comes from.
        first: one of the trainings that share base and frozen layers.
        console: is told what the states take.
        progress: gets a bar.
    """
    base = plan.bases[first.member.name].root
    encoder = nn.Module.to(load_encoder(base), plan.device)
    if first.member.top_layers > depth_of(encoder):
        raise DataError(f"member {first.member.name}: its base has no more than {depth_of(encoder)} layers to train")
    rows = read_rows(
        load_tokenizer(base, plan.recipe.max_tokens), plan.corpus.texts, offsets=range(len(plan.corpus.texts))
    )
    frozen = _Frozen(plan, encoder, first.member.top_layers, [row.ids for row in rows], progress)
    chosen = _remembered(plan, first) or _Arithmetic(frozen.faster_precision(), None)
    states = frozen.states(chosen.states, console)
    offsets = [row.offsets or () for row in rows]
    targets = encode_targets(plan.corpus, plan.recipe, offsets)
    ground = Ground(plan.recipe, plan.corpus, base, encoder, states, offsets, targets, chosen.training or "fp32")
    if chosen.training is None:
        ground = replace(ground, precision=measure_precision(ground, first.member, first.split))
        _remember(plan, first, _Arithmetic(chosen.states, ground.precision))
    console.print(f"training on {plan.device} in {ground.precision}")
    return ground


@dataclass(frozen=True, slots=True)
class _Frozen:
    """The layers of a base that stay as they are, and the texts they read."""

    plan: Plan
    encoder: PreTrainedModel
    top_layers: int
    tokens: list[list[int]]
    progress: Progress

    def states(self, precision: Precision, console: Console) -> States:
        """States of all texts."""
        width = self.encoder.config.hidden_size
        flat = allocate(sum(map(len, self.tokens)), width, self.plan.out / WORK / _STATES_FILE)
        place = "in memory" if flat.nbytes <= IN_MEMORY_BYTES else "on disk"
        console.print(
            f"frozen layers: {len(self.tokens):,} texts, {len(flat):,} tokens, {flat.nbytes / 1e6:,.0f} MB {place}"
        )
        bar = self.progress.add_task(f"frozen layers ({precision})", total=len(self.tokens))
        return self._compute(self.tokens, flat, precision, partial(self.progress.advance, bar))

    def faster_precision(self) -> Precision:
        """The faster arithmetic on a few texts."""
        recipe = self.plan.recipe
        sample = self.tokens[: _SAMPLE_BATCHES * recipe.batch_tokens // recipe.max_tokens]
        flat = torch.empty(sum(map(len, sample)), self.encoder.config.hidden_size, dtype=torch.bfloat16)
        return faster_precision(lambda tried: self._compute(sample, flat, tried, lambda _: None), repeats=1)

    def _compute(
        self, tokens: list[list[int]], flat: Tensor, precision: Precision, advance: Callable[[int], None]
    ) -> States:
        return compute_states(
            take_lower(self.encoder, depth_of(self.encoder) - self.top_layers),
            tokens,
            flat,
            pad_id=self.encoder.config.pad_token_id,
            batch_tokens=self.plan.recipe.batch_tokens,
            advance=advance,
            precision=precision,
        )


@dataclass(frozen=True, slots=True)
class _Arithmetic:
    states: Precision
    training: Precision | None
    """None: to be measured."""


def _remembered(plan: Plan, job: Job) -> _Arithmetic | None:
    """What the config asks for, or what was measured when the trainings on this ground began.

    Measured again it could differ, and a training that goes on must go on as it began.
    """
    if plan.recipe.precision != "auto":
        return _Arithmetic(plan.recipe.precision, plan.recipe.precision)
    path = _arithmetic_file(plan, job)
    return _Arithmetic(**json.loads(path.read_bytes())) if path.is_file() else None


def _remember(plan: Plan, job: Job, chosen: _Arithmetic) -> None:
    path = _arithmetic_file(plan, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(chosen)), encoding="utf-8")


def _arithmetic_file(plan: Plan, job: Job) -> Path:
    files, layers = _ground_key(plan, job)
    return plan.out / WORK / f"arithmetic-{hashlib.sha256(files.encode()).hexdigest()[:16]}-{layers}.json"
