"""What a stack costs: texts a second, measured side by side with each of its members alone."""

import time
from collections.abc import Callable, Mapping, Sequence

from stacknorm.bundle import Bundle, Manifest

Run = Callable[[list[str]], object]
SAMPLE_TEXTS = 256
_ROUNDS = 2


def spread(texts: Sequence[str], most: int = SAMPLE_TEXTS) -> list[str]:
    """At most `most` of the texts, evenly spaced over their order."""
    step = max(1, -(-len(texts) // most))
    return list(texts[::step])


def time_alternately(runs: Mapping[str, Run], texts: list[str], rounds: int = _ROUNDS) -> dict[str, float]:
    """Texts a second of each run on the same texts.

    Runs take turns, so that a machine that slows down slows all of them; the first round only warms up, and the
    fastest of the others counts, for other load can only lengthen it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run(texts)
            seconds[name].append(time.perf_counter() - started)
    return {name: len(texts) / min(taken[1:]) for name, taken in seconds.items()}


def alone(bundle: Bundle, member: str) -> Bundle:
    """The same bundle with one member only, for the tasks it has a head for."""
    manifest = bundle.manifest
    spec = next(one for one in manifest.members if one.name == member)
    tasks = {task: manifest.tasks[task].model_copy(update=_part_of(manifest, task, member)) for task in spec.heads}
    part = manifest.model_copy(update={"members": (spec,), "channels": (), "tasks": tasks, "cascade": None})
    return Bundle(bundle.root, part)


def _part_of(manifest: Manifest, task: str, member: str) -> Mapping[str, object]:
    spec = manifest.tasks[task]
    place = manifest.members_of(task).index(member)
    return {
        "pool": spec.pool.only([place]),
        "member_temperatures": spec.member_temperatures[place : place + 1],
        "best_member": member,
    }
