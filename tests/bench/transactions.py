"""What exactly once costs: units of labelled events delivered back to back, no model in between."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.events import NewsItem, StackRef
from worker.codec import to_ms
from worker.deterministic import DeterministicEngine
from worker.kafka.admin import create_topics
from worker.labeller import LabelledRun, label_unit
from worker.records import Record
from worker.runner.labeller import Labeller
from worker.runner.vitals import Vitals
from worker.settings import Settings, load_settings
from worker.tenure import Shipment, Tenure, encode_runs
from worker.units import Run, Unit

from .contest import Sample, Say, Spread

UNIT_RECORDS = (64, 256, 500, 2000)
GUARANTEES = ("exactly_once", "at_least_once")
BURST = 10
JOIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a unit of so many records under a guarantee: milliseconds from one to the next, the rate, processor time."""

    guarantee: str
    unit_records: int
    unit_ms: Spread
    records_per_second: float
    cpu_us_per_record: float


async def measure_transactions(bootstrap_servers: str, texts: Sequence[str], rounds: int, say: Say) -> list[Cost]:
    """Deliver bursts of units of each size under each guarantee in turn; a first round is not counted."""
    async with AsyncExitStack() as stack:
        settings = {guarantee: delivery_settings(bootstrap_servers, guarantee) for guarantee in GUARANTEES}
        parts = {
            guarantee: await stack.enter_async_context(open_delivering(settings[guarantee])) for guarantee in settings
        }
        cases = [
            (guarantee, label(texts, size, settings[guarantee])) for size in UNIT_RECORDS for guarantee in GUARANTEES
        ]
        samples: list[list[Sample]] = [[] for _ in cases]
        for number in range(rounds + 1):
            for (guarantee, runs), found in zip(cases, samples, strict=True):
                found.append(await parts[guarantee].deliver(runs, BURST))
            say(f"  round {number} of {rounds}" if number else "  warmed up")
    return [summarise(guarantee, found[1:]) for (guarantee, _), found in zip(cases, samples, strict=True)]


def summarise(guarantee: str, bursts: Sequence[Sample]) -> Cost:
    """What bursts of units of one size say."""
    records = bursts[0].docs
    return Cost(
        guarantee,
        records // BURST,
        Spread.of(1000 * burst.wall_seconds / BURST for burst in bursts),
        Spread.of(burst.docs_per_second for burst in bursts).median,
        Spread.of(1e6 * burst.cpu_seconds / records for burst in bursts).median,
    )


def delivery_settings(bootstrap_servers: str, guarantee: str) -> Settings:
    """The defaults on topics and a group of its own."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    return load_settings(
        processing_guarantee=guarantee,
        kafka={"bootstrap_servers": bootstrap_servers},
        topics={"prefix": f"{run}."},
        group_prefix=run,
    )


class Delivering:
    """A labeller's own source and sink, without its loops: a member of the group that delivers labelled units.

    Owned by one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = settings.topic_names
        labeller = Labeller(settings, DeterministicEngine(), asyncio.Event(), Vitals("bench"))
        self._source, self._sink = labeller.source, labeller.sink

    async def start(self) -> None:
        """Make the topics, join the group and wait for its partitions."""
        await create_topics(self._settings.kafka, self._settings.topic_specs, self._settings.topics.replication_factor)
        await self._sink.start()
        await self._source.start()
        async with asyncio.timeout(JOIN_SECONDS):
            while self._source.ownership is None:
                await self._source.fetch(1, 0.1)
        self._tenure = Tenure.begin(self._source.ownership)

    async def stop(self) -> None:
        """Leave."""
        await self._sink.stop()
        await self._source.stop()

    async def deliver(self, runs: Mapping[int, LabelledRun], times: int) -> Sample:
        """Deliver a labelled unit so many times, each with its marks and offsets."""
        records = encode_runs(runs, self._topics)
        engine = DeterministicEngine.identity
        cpu_started, started = time.process_time(), time.perf_counter()
        for _ in range(times):
            reached = self._tenure.advance(runs)
            shipment = Shipment(
                self._tenure, self._topics, StackRef(name=engine.name, digest=engine.digest), records, reached, {}
            )
            await self._sink.deliver(shipment.delivery)
            shipment.settle()
        return Sample(times * len(records), time.perf_counter() - started, time.process_time() - cpu_started)


@asynccontextmanager
async def open_delivering(settings: Settings) -> AsyncIterator[Delivering]:
    """One that owns its partitions, stopped at the end."""
    part = Delivering(settings)
    await part.start()
    try:
        yield part
    finally:
        await part.stop()


def label(texts: Sequence[str], size: int, settings: Settings) -> dict[int, LabelledRun]:
    """A unit of ``size`` records over all partitions, labelled by the deterministic engine."""
    now = datetime.now(UTC)
    partitions = settings.topics.partitions
    records = [
        Record(
            settings.topic_names.raw,
            number % partitions,
            number // partitions,
            to_ms(now),
            None,
            NewsItem(id=f"t{number}", title=texts[number % len(texts)]).to_json(),
        )
        for number in range(size)
    ]
    runs = {p: Run(tuple(record for record in records if record.partition == p)) for p in range(partitions)}
    return label_unit(Unit(runs), {}, DeterministicEngine(), settings.input_rules, now)
