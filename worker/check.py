"""What `stacknorm-worker check` looks at before a worker starts; each problem comes with its mend."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from stacknorm.errors import StacknormError
from worker.detector import FRONTIER_KEY, Stamp, read_stamp
from worker.engines import load_engine
from worker.errors import Misconfigured, WorkerError
from worker.kafka.admin import describe_topics
from worker.kafka.connection import Place
from worker.settings import Settings
from worker.sinks.tail import open_reader
from worker.surge.ownership import Ownership
from worker.topics import find_differences


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``problem`` is None when all is well."""

    subject: str
    detail: str
    problem: str | None = None


async def check_topics(settings: Settings) -> AsyncIterator[Finding]:
    """Broker and topics."""
    specs = settings.topic_specs
    bootstrap = settings.kafka.bootstrap_servers
    try:
        found = await describe_topics(settings.kafka, [spec.name for spec in specs])
    except Misconfigured as error:
        yield Finding("broker", bootstrap, str(error))
        return
    except WorkerError as error:
        yield Finding("broker", bootstrap, f"{error}; is kafka.bootstrap_servers right, and the broker up?")
        return
    yield Finding("broker", bootstrap)
    for spec in specs:
        problems = find_differences(spec, found.get(spec.name))
        yield Finding("topic", f"{spec.name}, {spec.partitions} partitions", "\n".join(problems) or None)


async def check_state(settings: Settings) -> Finding:
    """The detector's state, by the newest record of each shard: that it can be gone on from, once there is one."""
    topic, shards, partitions = settings.topic_names.surge_state, settings.surge.shards, settings.topics.partitions
    async with open_reader(settings, "check") as reader:
        last = await reader.read_last([Place(topic, shard) for shard in range(shards)])
    begun = {place.partition: record.value for place, record in last.items() if record.key == FRONTIER_KEY}
    for shard, frontier in sorted(begun.items()):
        if frontier is None:
            continue
        try:
            problem = read_stamp(frontier, settings.state_versions).compare(Stamp(partitions, Ownership(shard, shards)))
        except ValueError as error:
            problem = str(error)
        if problem is not None:
            return Finding("state", topic, f"{topic} cannot be continued from: {problem}")
    several = f" and {shards} shards" if shards > 1 else ""
    return Finding("state", f"of {partitions} partitions{several}" if begun else "none yet")


def check_bundle(settings: Settings) -> Finding:
    """The bundle: that it can be loaded, and labels as events need it."""
    detail = f"{settings.engine.kind} {settings.engine.bundle if settings.engine.kind == 'stack' else ''}".strip()
    try:
        engine = load_engine(settings.engine)
    except (WorkerError, StacknormError) as error:
        return Finding("engine", detail, str(error))
    digest = engine.identity.digest
    try:
        note = _judge_primer(settings, digest)
    except Misconfigured:
        note = ""  # `check_primer` tells
    return Finding("engine", f"{engine.identity.name}, digest {digest[:12]}{note}")


def check_primer(settings: Settings) -> Finding:
    """The primer: that it can be read. A V far from the archive's is told, and no problem."""
    path = settings.surge.primer
    try:
        primer = settings.primer
    except Misconfigured as error:
        return Finding("primer", str(path), str(error))
    if primer is None:
        return Finding("primer", "none: the detector learns for three days before it may fire")
    detail = f"{path}, {len(primer.baselines):,} keys of stack {primer.stack.name}, digest {primer.stack.digest[:12]}"
    far = primer.judge_volume(settings.surge.negatives_a_day)
    return Finding("primer", detail if far is None else f"{detail}; note: {far}")


def _judge_primer(settings: Settings, digest: str) -> str:
    """What to say where the primer is not of the stack that will speak."""
    primer = settings.primer
    if primer is None or primer.stack.digest == digest:
        return ""
    return (
        f"; note: the primer is of another stack ({primer.stack.digest[:12]}), so the detector will learn for three "
        "days: `stacknorm-worker backfill ARCHIVE` makes one of this"
    )


async def require_state(settings: Settings) -> None:
    """Stop a start on a detector's state that cannot be gone on from.

    Raises:
        Misconfigured: names the difference and its mend.
    """
    if problem := (await check_state(settings)).problem:
        raise Misconfigured(problem)


async def require_topics(settings: Settings) -> None:
    """Stop a start on topics that are not as they must be.

    Raises:
        Misconfigured: names every difference and its mend.
    """
    problems = [finding.problem async for finding in check_topics(settings) if finding.problem]
    if problems:
        raise Misconfigured("\n".join(problems))
