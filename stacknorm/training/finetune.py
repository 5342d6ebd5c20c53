"""Fine-tune one member: LoRA on the top layers, heads for every task, from cached lower states.

Nothing here reads a validation file: early stopping, pools and temperatures use a held-out part of the training
data. Source of the adapters: Hu et al. 2021, LoRA.
"""

import copy
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stacknorm.bundle import HEADS_FILE
from stacknorm.encoder.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from stacknorm.encoder.member import Member
from stacknorm.encoder.precision import Precision, faster_precision
from stacknorm.encoder.tokens import cut_batches
from stacknorm.encoder.trunk import architecture_of, depth_of, take_upper
from stacknorm.evaluation.metrics import nll
from stacknorm.pooling.calibrate import apply_temperature, fit_temperature
from stacknorm.pooling.pool import Probabilities
from stacknorm.source import BASE_FILES, digest_files
from stacknorm.training.corpus import Corpus, Indices, class_weights
from stacknorm.training.recipe import MemberRecipe, Recipe
from stacknorm.training.states import States

_HELD_OUT_FILE = "held_out.safetensors"
_COST_FILE = "cost.json"
_WARM_UP = 0.1
_MAX_NORM = 1.0

Shaped = tuple[list[int], int]
"""Rows of the corpus and the width in tokens to pad them to."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all members are trained from."""

    recipe: Recipe
    corpus: Corpus
    states: States
    encoder: PreTrainedModel
    precision: Precision


@dataclass(frozen=True, slots=True)
class _Session:
    """One member in training; owned by one `train_member` call."""

    ground: Ground
    model: Member
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    losses: list[nn.CrossEntropyLoss]


@dataclass(frozen=True, slots=True)
class Report:
    """What one epoch gave."""

    epoch: int
    seconds: float
    loss: float
    held_out_nll: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took to train a member."""

    seconds: float
    precision: Precision


def member_key(recipe: Recipe, member: MemberRecipe, corpus: Corpus, base: Path) -> str:
    """Digest of everything a member depends on: a finished member with this key need not be trained again."""
    shared = recipe.model_dump(mode="json", exclude={"name", "languages", "members"})
    data = [source.sha256 for source in corpus.sources]
    parts = [shared, member.model_dump(mode="json"), data, digest_files(base, BASE_FILES)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def train_member(
    ground: Ground,
    member: MemberRecipe,
    folder: Path,
    advance: Callable[[], None],
    report: Callable[[Report], None],
) -> None:
    """Train one member and write adapter, heads and held-out probabilities to `folder`, which appears when complete.

    Args:
        ground: data, states and base.
        member: its recipe.
        folder: must not exist yet.
        advance: called after each batch.
        report: called after each epoch.
    """
    begun = time.perf_counter()
    torch.manual_seed(member.seed)
    adapted, model = _new_member(ground, member)
    plan = [_epoch_batches(ground, member, epoch) for epoch in range(1, member.epochs + 1)]
    session = _start(ground, member, model, sum(map(len, plan)))
    best_score, best, held_out = float("inf"), _trained(adapted, model), _held_out_probabilities(ground, model)
    for epoch, batches in enumerate(plan, start=1):
        started = time.perf_counter()
        loss = _train_epoch(session, batches, advance)
        probabilities = _held_out_probabilities(ground, model)
        scores = _held_out_nll(ground.corpus, probabilities)
        report(Report(epoch, time.perf_counter() - started, loss, scores))
        if sum(scores.values()) < best_score:
            best_score, held_out = sum(scores.values()), probabilities
            best = copy.deepcopy(_trained(adapted, model))
    cost = Cost(time.perf_counter() - begun, ground.precision)
    _save(folder, _adapter_config(ground, adapted), best, held_out, cost)


def _new_member(ground: Ground, member: MemberRecipe) -> tuple[peft.PeftModel, Member]:
    depth = depth_of(ground.encoder)
    kind = architecture_of(ground.encoder)
    adapted = _adapt(
        copy.deepcopy(ground.encoder),
        LoraConfig(
            r=member.rank,
            lora_alpha=2 * member.rank,
            target_modules=list(kind.linears),
            layers_to_transform=list(range(depth - ground.recipe.top_layers, depth)),
            layers_pattern=kind.layers.rpartition(".")[2],
        ),
    )
    spaces = ground.recipe.spaces()
    width = ground.encoder.config.hidden_size
    layers = nn.ModuleDict(
        {
            task: nn.Sequential(nn.Dropout(member.dropout), nn.Linear(width, len(space.labels)))
            for task, space in spaces.items()
        }
    )
    encoder = adapted.get_base_model()
    assert isinstance(encoder, PreTrainedModel)
    upper = take_upper(encoder, depth - ground.recipe.top_layers)
    return adapted, Member(upper, layers, dict.fromkeys(spaces, member.pooling))


def _adapt(encoder: PreTrainedModel, config: LoraConfig) -> peft.PeftModel:
    with warnings.catch_warnings():
        # peft asks transformers for an attribute that transformers has renamed; neither is ours to mend.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(encoder, config)
    assert isinstance(adapted, peft.PeftModel)
    return adapted


def _epoch_batches(ground: Ground, member: MemberRecipe, epoch: int) -> list[Shaped]:
    """Batches of rows of like length: which of them meet is random, and so is the order of batches."""
    rows = ground.corpus.rows(held_out=False)
    kept = np.random.default_rng([member.seed, 0]).permutation(rows)[: round(member.row_share * len(rows))]
    random = np.random.default_rng([member.seed, epoch])
    batches = _shape(ground, random.permutation(kept))
    return [batches[place] for place in random.permutation(len(batches))]


def _shape(ground: Ground, rows: Indices) -> list[Shaped]:
    lengths = [ground.states.lengths[row] for row in rows]
    return [(rows[list(places)].tolist(), width) for places, width in cut_batches(lengths, ground.recipe.batch_tokens)]


def count_batches(ground: Ground, member: MemberRecipe) -> int:
    """How often `train_member` will call `advance`."""
    return sum(len(_epoch_batches(ground, member, epoch)) for epoch in range(1, member.epochs + 1))


def _losses(ground: Ground, member: MemberRecipe) -> list[nn.CrossEntropyLoss]:
    """One loss for each task, summed over rows."""
    losses = []
    for task, space in ground.recipe.spaces().items():
        labels = ground.corpus.labels[ground.corpus.rows(held_out=False, task=task)]
        weight = torch.from_numpy(class_weights(labels, len(space.labels), member.class_weight_power))
        losses.append(nn.CrossEntropyLoss(weight, reduction="sum", label_smoothing=member.label_smoothing))
    return losses


def _start(ground: Ground, member: MemberRecipe, model: Member, steps: int) -> _Session:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=member.learning_rate, weight_decay=ground.recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, member.learning_rate, total_steps=steps + 1, pct_start=_WARM_UP
    )
    return _Session(ground, model, optimiser, schedule, _losses(ground, member))


def _train_epoch(session: _Session, batches: Sequence[Shaped], advance: Callable[[], None]) -> float:
    """One pass over `batches`; returns the mean loss of a row."""
    model = session.model.train()
    total = 0.0
    for batch in batches:
        loss = _loss(session, batch, session.ground.precision)
        torch.autograd.backward(loss / len(batch[0]))
        nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        session.optimiser.step()
        session.schedule.step()
        session.optimiser.zero_grad()
        total += float(loss.detach())
        advance()
    return total / sum(len(rows) for rows, _ in batches)


def _loss(session: _Session, batch: Shaped, precision: Precision) -> Tensor:
    """Loss of a batch, summed over its rows."""
    corpus = session.ground.corpus
    tasks, labels = torch.from_numpy(corpus.tasks[batch[0]]), torch.from_numpy(corpus.labels[batch[0]])
    logits = _forward(session.ground, session.model, batch, precision)
    parts = [
        loss(logits[name][tasks == place], labels[tasks == place])
        for place, (name, loss) in enumerate(zip(corpus.names, session.losses, strict=True))
    ]
    return torch.stack(parts).sum()


def _forward(ground: Ground, model: Member, batch: Shaped, precision: Precision) -> dict[str, Tensor]:
    hidden, mask = ground.states.batch(*batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits: dict[str, Tensor] = model(hidden, mask)
    return {task: values.float() for task, values in logits.items()}


def measure_precision(ground: Ground, member: MemberRecipe) -> Precision:
    """The faster arithmetic for training steps on this processor."""
    _, model = _new_member(ground, member)
    session = _start(ground, member, model.train(), 1)
    batch = _epoch_batches(ground, member, 1)[0]
    return faster_precision(lambda precision: torch.autograd.backward(_loss(session, batch, precision)))


@torch.no_grad()
def _held_out_probabilities(ground: Ground, model: Member) -> dict[str, Tensor]:
    """Task -> probabilities of its held-out rows in corpus order, [n, labels]."""
    model.eval()
    found = {}
    for task in ground.corpus.names:
        rows = ground.corpus.rows(held_out=True, task=task)
        shares: dict[int, Tensor] = {}
        for batch in _shape(ground, rows):
            logits = _forward(ground, model, batch, ground.precision)[task]
            shares.update(zip(batch[0], logits.softmax(dim=1), strict=True))
        found[task] = torch.stack([shares[row] for row in rows.tolist()])
    return found


def _held_out_nll(corpus: Corpus, probabilities: Mapping[str, Tensor]) -> dict[str, float]:
    """NLL at the best temperature, for a temperature is fitted after pooling anyway."""
    scores = {}
    for task, tensor in probabilities.items():
        given: Probabilities = tensor.double().numpy()
        truth = held_out_labels(corpus, task)
        scores[task] = nll(apply_temperature(given, fit_temperature(given, truth)), truth)
    return scores


def held_out_labels(corpus: Corpus, task: str) -> Indices:
    """Labels of the held-out rows of a task, in corpus order."""
    return corpus.labels[corpus.rows(held_out=True, task=task)]


def _trained(adapted: peft.PeftModel, model: Member) -> dict[str, dict[str, Tensor]]:
    """File name -> the tensors it will hold."""
    heads = {name.replace(".1.", "."): tensor for name, tensor in model.heads.state_dict().items()}
    # Embeddings are never trained here; left to itself, peft asks the hub whether they could have been.
    adapter = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {ADAPTER_WEIGHTS_FILE: adapter, HEADS_FILE: heads}


def _adapter_config(ground: Ground, adapted: peft.PeftModel) -> dict[str, Any]:
    config = adapted.peft_config["default"].to_dict()
    return config | {
        "base_model_name_or_path": ground.recipe.base,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }


def _save(
    folder: Path,
    config: Mapping[str, Any],
    trained: Mapping[str, Mapping[str, Tensor]],
    held_out: Mapping[str, Tensor],
    cost: Cost,
) -> None:
    """Write everything beside `folder`, then rename: a half-written member is never taken for a finished one."""
    draft = folder.with_name(folder.name + ".part")
    draft.mkdir(parents=True, exist_ok=True)
    for name, tensors in trained.items():
        save_file({key: tensor.half().contiguous() for key, tensor in tensors.items()}, draft / name)
    (draft / ADAPTER_CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(dict(held_out), draft / _HELD_OUT_FILE)
    (draft / _COST_FILE).write_text(json.dumps(asdict(cost)), encoding="utf-8")
    draft.rename(folder)


def read_held_out(folder: Path) -> dict[str, Probabilities]:
    """Task -> held-out probabilities that `train_member` wrote, [n, labels]."""
    return {task: tensor.double().numpy() for task, tensor in load_file(folder / _HELD_OUT_FILE).items()}


def read_cost(folder: Path) -> Cost:
    """What the member that `train_member` wrote took."""
    return Cost(**json.loads((folder / _COST_FILE).read_bytes()))
