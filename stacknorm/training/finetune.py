"""Fine-tune one member from cached states of the frozen layers: heads for its tasks, adapters or whole top layers.

Nothing here reads a validation file: early stopping uses a held-out part of the training data. Source of the
adapters: Hu et al. 2021, LoRA.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bundle import TaskKind
from stacknorm.encoder.member import Member, Mentions
from stacknorm.encoder.precision import Precision, faster_precision
from stacknorm.encoder.tokens import Offsets, cut_batches
from stacknorm.evaluation.metrics import nll
from stacknorm.pooling.calibrate import apply_temperature, fit_temperature
from stacknorm.pooling.pool import Probabilities, to_pairs
from stacknorm.training.checkpoint import Checkpoint, Standing, load_checkpoint, save_checkpoint
from stacknorm.training.corpus import Corpus, Indices, Split, class_shares, class_weights
from stacknorm.training.recipe import MemberRecipe, Recipe
from stacknorm.training.states import States
from stacknorm.training.targets import (
    IGNORED,
    Objective,
    Target,
    answer_units,
    encode_target,
    head_labels,
    head_pooling,
    mentions_of,
    true_units,
)
from stacknorm.training.trainee import HeadPlan, Trainee, make_trainee, write_trainee

_ANSWERS_FILE = "held_out.safetensors"
_COST_FILE = "cost.json"
_WARM_UP = 0.1
_MAX_NORM = 1.0
_EPOCH_BITS = 16

Shaped = tuple[list[int], int]
"""Examples of the corpus and the width in tokens to pad them to."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the members on one base, with one number of frozen layers, are trained from."""

    recipe: Recipe
    corpus: Corpus
    base: Path
    encoder: PreTrainedModel
    states: States
    offsets: Sequence[Offsets]
    """Of the tokens of each text."""
    targets: list[Target]
    """Of each example."""
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Where its base lies, and members are trained."""
        return self.encoder.device


@dataclass(frozen=True, slots=True)
class Report:
    """What one epoch gave."""

    epoch: int
    seconds: float
    loss: float
    held_out_nll: Mapping[str, float]

    @property
    def score(self) -> float:
        """The smaller the better: the sum over tasks."""
        return sum(self.held_out_nll.values())


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took to train a member."""

    seconds: float
    precision: Precision
    epoch: int = 0
    """The one that was kept; 0 where it was not written down."""


@dataclass(frozen=True, slots=True)
class _Session:
    """One member in training; owned by one `train_member` call."""

    ground: Ground
    member: MemberRecipe
    split: Split
    trainee: Trainee
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    objectives: Mapping[str, Objective]


def encode_targets(corpus: Corpus, recipe: Recipe, offsets: Sequence[Offsets]) -> list[Target]:
    """Targets of all examples in the tokens of a base, whose `offsets` are given for each text."""
    return [
        encode_target(example, recipe.tasks[example.task].kind, offsets[text])
        for example, text in zip(corpus.examples, corpus.text_of.tolist(), strict=True)
    ]


def train_member(
    ground: Ground,
    member: MemberRecipe,
    split: Split,
    folder: Path,
    *,
    advance: Callable[[int], None],
    report: Callable[[Report], None],
) -> None:
    """Train one member and write its weights and its answers to `folder`, which appears when complete.

    A checkpoint beside `folder` lets a later call with the same arguments go on after the last whole epoch, and end
    with the same weights on the same machine.

    Args:
        ground: data, states and base.
        member: its recipe.
        split: what it learns from, stops by and answers.
        folder: must not exist yet.
        advance: told how many batches are done since it was last told.
        report: called after each epoch.
    """
    path = folder.with_name(folder.name + ".checkpoint")
    with _own_random_numbers():
        session = _start(ground, member, split)
        standing, best = _resume(session, path)
        advance(sum(len(_epoch_batches(session, epoch)) for epoch in range(1, standing.epoch + 1)))
        while standing.epoch < member.epochs and not _has_converged(standing, member):
            standing, best = _run_epoch(session, standing, best, advance, report)
            _keep(session, standing, best, path)
        session.trainee.restore(best)
        _write(session, standing, folder)
    path.unlink(missing_ok=True)


def count_batches(ground: Ground, member: MemberRecipe, split: Split) -> int:
    """How many batches `train_member` will do, unless it stops early."""
    rows = _seen(ground.corpus, ground.recipe, member, split)
    return sum(len(_shape_epoch(ground, member, rows, epoch)) for epoch in range(1, member.epochs + 1))


def _run_epoch(
    session: _Session,
    standing: Standing,
    best: Mapping[str, Tensor],
    advance: Callable[[int], None],
    report: Callable[[Report], None],
) -> tuple[Standing, Mapping[str, Tensor]]:
    started, epoch = time.perf_counter(), standing.epoch + 1
    torch.manual_seed((session.member.seed << _EPOCH_BITS) + epoch)  # whichever process and device gets to it
    loss = _train_epoch(session, _epoch_batches(session, epoch), advance)
    scores = _held_out_nll(session)
    seconds = time.perf_counter() - started
    found = Report(epoch, seconds, loss, scores)
    standing = replace(standing, epoch=epoch, seconds=standing.seconds + seconds)
    if found.score < standing.best_score:
        standing = replace(standing, best_epoch=epoch, best_score=found.score)
        best = _copies(session.trainee)
    report(found)
    return standing, best


def _has_converged(standing: Standing, member: MemberRecipe) -> bool:
    return member.patience is not None and standing.epoch - standing.best_epoch >= member.patience


def _copies(trainee: Trainee) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainee.weights().items()}


def _resume(session: _Session, path: Path) -> tuple[Standing, Mapping[str, Tensor]]:
    """Put the session where its checkpoint left it; where there is none it stands at the start."""
    if not path.is_file():
        return Standing(), _copies(session.trainee)
    found = load_checkpoint(path)
    session.trainee.restore(found.now)
    session.optimiser.load_state_dict(found.optimiser)
    session.schedule.load_state_dict(found.schedule)
    return found.standing, found.best


def _keep(session: _Session, standing: Standing, best: Mapping[str, Tensor], path: Path) -> None:
    checkpoint = Checkpoint(
        standing,
        session.trainee.weights(),
        best,
        session.optimiser.state_dict(),
        session.schedule.state_dict(),
    )
    save_checkpoint(path, checkpoint)


def _own_random_numbers() -> AbstractContextManager[None]:
    """Leave torch's generators, those of GPUs too, as they were."""
    return torch.random.fork_rng(range(torch.cuda.device_count()))


def _start(ground: Ground, member: MemberRecipe, split: Split) -> _Session:
    torch.manual_seed(member.seed)
    heads, objectives = {}, {}
    for task in ground.recipe.tasks_of(member):
        recipe = ground.recipe.tasks[task]
        labels, learnt = head_labels(recipe.kind, recipe.labels), _learnt_labels(ground, split, task)
        priors = _priors(ground, split, task, learnt, member) if member.head_bias == "prior" else None
        heads[task] = HeadPlan(recipe.kind, labels, head_pooling(recipe.kind, member.pooling), priors)
        weights = torch.from_numpy(class_weights(learnt, len(labels), member.class_weight_power)).to(ground.device)
        objectives[task] = Objective(recipe.kind, weights, member.label_smoothing, recipe.weight)
    trainee = make_trainee(ground.encoder, member, heads, ground.precision)
    steps = count_batches(ground, member, split)
    trained = list(trainee.weights().values())
    optimiser = torch.optim.AdamW(trained, lr=member.learning_rate, weight_decay=member.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, member.learning_rate, total_steps=steps + 1, pct_start=_WARM_UP
    )
    return _Session(ground, member, split, trainee, optimiser, schedule, objectives)


def _priors(ground: Ground, split: Split, task: str, learnt: Indices, member: MemberRecipe) -> tuple[float, ...]:
    """The share of each label of a head as its loss sees it; of a `multi` task the share of texts it applies to."""
    recipe = ground.recipe.tasks[task]
    shares = class_shares(learnt, len(head_labels(recipe.kind, recipe.labels)))
    if recipe.kind == "multi":
        texts = len(ground.corpus.only(split.train, [task]))
        return tuple((shares * len(learnt) / (texts + 1)).tolist())
    # Rows of a class of share s weigh s^-power.
    weighted = shares ** (1 - member.class_weight_power)
    return tuple((weighted / weighted.sum()).tolist())


def _learnt_labels(ground: Ground, split: Split, task: str) -> Indices:
    """Every label of the task's head that occurs in the training examples, once for each time it does."""
    rows = ground.corpus.only(split.train, [task])
    labels = [label for row in rows.tolist() for label in ground.targets[row].labels if label != IGNORED]
    return np.array(labels, dtype=np.int64)


def _seen(corpus: Corpus, recipe: Recipe, member: MemberRecipe, split: Split) -> Indices:
    """The examples a member learns from."""
    rows = corpus.only(split.train, recipe.tasks_of(member))
    return np.random.default_rng([member.seed, 0]).permutation(rows)[: round(member.row_share * len(rows))]


def _epoch_batches(session: _Session, epoch: int) -> list[Shaped]:
    ground, member = session.ground, session.member
    return _shape_epoch(ground, member, _seen(ground.corpus, ground.recipe, member, session.split), epoch)


def _shape_epoch(ground: Ground, member: MemberRecipe, rows: Indices, epoch: int) -> list[Shaped]:
    """Batches of texts of like length: which of them meet is random, and so is the order of batches."""
    random = np.random.default_rng([member.seed, epoch])
    batches = _shape(ground, random.permutation(rows))
    return [batches[place] for place in random.permutation(len(batches))]


def _shape(ground: Ground, rows: Indices) -> list[Shaped]:
    lengths = [ground.states.lengths[text] for text in ground.corpus.text_of[rows].tolist()]
    return [(rows[list(places)].tolist(), width) for places, width in cut_batches(lengths, ground.recipe.batch_tokens)]


def _train_epoch(session: _Session, batches: Sequence[Shaped], advance: Callable[[int], None]) -> float:
    """One pass over `batches`; returns the mean loss of an example."""
    model = session.trainee.model.train()
    # On the device: to read it after each batch would let a GPU wait for the next.
    total = torch.zeros((), dtype=torch.float64, device=session.ground.device)
    for batch in batches:
        loss = _loss(session, batch, session.ground.precision)
        torch.autograd.backward(loss / len(batch[0]))
        nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        session.optimiser.step()
        session.schedule.step()
        session.optimiser.zero_grad()
        total += loss.detach()
        advance(1)
    return float(total) / sum(len(rows) for rows, _ in batches)


def _loss(session: _Session, batch: Shaped, precision: Precision) -> Tensor:
    """Loss of a batch, summed over its examples."""
    ground, rows = session.ground, batch[0]
    mentions = _mentions(ground, batch)
    logits = _forward(ground, session.trainee.model, batch, mentions, precision)
    parts = []
    for task, objective in session.objectives.items():
        places = [place for place, row in enumerate(rows) if ground.corpus.examples[row].task == task]
        if places:
            own = _of_places(logits[task], objective.kind, places, mentions)
            parts.append(objective.loss(own, [ground.targets[rows[place]] for place in places]))
    return torch.stack(parts).sum()


def _mentions(ground: Ground, batch: Shaped) -> Mentions | None:
    return mentions_of([ground.targets[row] for row in batch[0]], batch[1])


def _forward(
    ground: Ground, model: Member, batch: Shaped, mentions: Mentions | None, precision: Precision
) -> dict[str, Tensor]:
    device = ground.device
    hidden, mask = ground.states.batch(ground.corpus.text_of[batch[0]].tolist(), batch[1])
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: dict[str, Tensor] = model(hidden.to(device), mask.to(device), mentions and mentions.to(device))
    return {task: values.float() for task, values in logits.items()}


def _of_places(logits: Tensor, kind: TaskKind, places: Sequence[int], mentions: Mentions | None) -> Tensor:
    """What a head says of the examples at `places` of a batch; of an `entity` task, of their mentions."""
    if kind != "entity":
        return logits[list(places)]
    assert mentions is not None
    return logits[torch.isin(mentions.rows, torch.tensor(places))]


def measure_precision(ground: Ground, member: MemberRecipe, split: Split) -> Precision:
    """The faster arithmetic for training steps on this processor."""
    with _own_random_numbers():
        session = _start(ground, member, split)
        session.trainee.model.train()
        batch = _epoch_batches(session, 1)[0]
        return faster_precision(lambda precision: torch.autograd.backward(_loss(session, batch, precision)))


@torch.no_grad()
def _answers(session: _Session, rows: Indices) -> dict[str, Tensor]:
    """Task -> probabilities of the units of those of `rows` that belong to it, in order; [units, labels]."""
    ground, model = session.ground, session.trainee.model.eval()
    found: dict[int, Tensor] = {}
    own = ground.corpus.only(rows, tuple(session.objectives))
    for batch in _shape(ground, own):
        mentions = _mentions(ground, batch)
        logits = {task: v.cpu() for task, v in _forward(ground, model, batch, mentions, ground.precision).items()}
        for place, row in enumerate(batch[0]):
            example = ground.corpus.examples[row]
            kind = session.objectives[example.task].kind
            said = _of_places(logits[example.task], kind, [place], mentions)
            found[row] = answer_units(kind, said, example, ground.offsets[ground.corpus.text_of[row]])
    return {
        task: torch.cat([found[row] for row in ground.corpus.only(rows, [task]).tolist()])
        for task in session.objectives
    }


def _held_out_nll(session: _Session) -> dict[str, float]:
    """NLL of the examples that decide when to stop, at the best temperature, for one is fitted after pooling anyway."""
    corpus, stop = session.ground.corpus, session.split.stop
    scores = {}
    for task, tensor in _answers(session, stop).items():
        given: Probabilities = tensor.double().numpy()
        kind = session.objectives[task].kind
        truth = true_units(corpus, kind, corpus.only(stop, [task]), given.shape[1])
        scores[task] = task_nll(kind, given, truth)
    return scores


def task_nll(kind: TaskKind, given: Probabilities, truth: Indices) -> float:
    """Mean negative log-likelihood of a unit at the best temperature; of a `multi` task of each label, as it is."""
    if kind == "multi":
        return nll(to_pairs(given), truth.reshape(-1))
    return nll(apply_temperature(given, fit_temperature(given, truth)), truth)


def _write(session: _Session, standing: Standing, folder: Path) -> None:
    """Write everything beside `folder`, then rename: a half-written member is never taken for a finished one."""
    draft = folder.with_name(folder.name + ".part")
    draft.mkdir(parents=True, exist_ok=True)
    write_trainee(session.trainee, session.ground.base, draft)
    save_file(_answers(session, session.split.judge), draft / _ANSWERS_FILE)
    cost = Cost(standing.seconds, session.ground.precision, standing.best_epoch)
    (draft / _COST_FILE).write_text(json.dumps(asdict(cost)), encoding="utf-8")
    draft.rename(folder)


def read_answers(folder: Path) -> dict[str, Probabilities]:
    """Task -> probabilities that `train_member` wrote for what its split let it judge, [units, labels]."""
    return {task: tensor.double().numpy() for task, tensor in load_file(folder / _ANSWERS_FILE).items()}


def read_cost(folder: Path) -> Cost:
    """What the member that `train_member` wrote took."""
    return Cost(**json.loads((folder / _COST_FILE).read_bytes()))
