"""What a stack costs: texts a second, measured by turns with each of its members alone."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from stacknorm.bundle import Bundle, Manifest
from stacknorm.encoder.precision import DTYPES
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.inference.stack import load_stack, to_device

SAMPLE_TEXTS = 500  # what a worker labels at once when it has much to do: batches of few texts cost more
_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Costs:
    """Texts a second, each system measured on the same texts, by turns."""

    texts: int
    texts_per_second: Mapping[str, float]
    load: float
    """Processes that wanted to run on the machine, on average over the minute before; above its cores, rates are too
    low, and only their ratios mean something."""

    def ratio(self, ours: str, theirs: str) -> float:
        """Time a text takes `ours`, as a share of what it takes `theirs`."""
        return self.texts_per_second[theirs] / self.texts_per_second[ours]


def measure_costs(engines: Mapping[str, Engine], texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> Costs:
    """Measure engines on at most 500 of the texts, evenly spread over them, with the mentions in each."""
    step = max(1, -(-len(texts) // SAMPLE_TEXTS))
    texts, mentions = texts[::step], mentions[::step]
    runs = {name: partial(engine.predict, texts, mentions) for name, engine in engines.items()}
    load = os.getloadavg()[0]
    seconds = time_alternately(runs)
    return Costs(len(texts), {name: len(texts) / taken for name, taken in seconds.items()}, load)


def time_alternately(runs: Mapping[str, Callable[[], object]], rounds: int = _ROUNDS) -> dict[str, float]:
    """Seconds of each run.

    Runs take turns, so that a machine that slows down slows all of them; the first round only warms up, and the
    fastest of the others counts, for other load can only lengthen it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def load_members(bundle: Bundle, members: Sequence[str], like: Engine) -> dict[str, Engine]:
    """Each member by itself, on the device and in the precision of another engine."""
    names = [spec.name for spec in bundle.manifest.members if spec.name in members]
    return {name: _load_alone(alone(bundle, name), like) for name in names}


def _load_alone(bundle: Bundle, like: Engine) -> Engine:
    readers = load_stack(bundle)
    to_device(readers, torch.device(like.device), DTYPES[like.precision])
    return Engine(bundle, readers, device=like.device, precision=like.precision)


def alone(bundle: Bundle, member: str) -> Bundle:
    """The same bundle with one member only, for the tasks it has a head for."""
    manifest = bundle.manifest
    spec = next(one for one in manifest.members if one.name == member)
    tasks = {task: manifest.tasks[task].model_copy(update=_share_of(manifest, task, member)) for task in spec.heads}
    part = manifest.model_copy(update={"members": (spec,), "channels": (), "tasks": tasks, "cascade": None})
    return Bundle(bundle.root, part)


def _share_of(manifest: Manifest, task: str, member: str) -> Mapping[str, object]:
    spec = manifest.tasks[task]
    place = manifest.members_of(task).index(member)
    return {
        "pool": spec.pool.only([place]),
        "member_temperatures": spec.member_temperatures[place : place + 1],
        "best_member": member,
    }
