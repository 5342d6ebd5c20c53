"""Carrying a replay out: the loops of a live worker, on clients that see the stretch alone, until all of it is done."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from rich.table import Table

from schemas.events import AlertEvent, AlertStatus, Progress
from worker.codec import decode_event, to_ms
from worker.errors import Misconfigured
from worker.kafka.admin import create_topics, describe_topics
from worker.kafka.connection import Place
from worker.kafka.stretch import StretchClients, find_stretch
from worker.kafka.watermarks import read_high_watermarks
from worker.labeller import Engine
from worker.records import Record
from worker.replay.plan import Plan, check_times, derive_settings, make_plan
from worker.runner.detector import run_detector
from worker.runner.labeller import run_labeller
from worker.runner.surroundings import Surroundings
from worker.runner.tasks import run_until_all
from worker.runner.vitals import Vitals
from worker.settings import Settings
from worker.sinks.tail import open_reader
from worker.topics import find_differences

FETCH_RECORDS = 2000
FETCH_SECONDS = 0.2


@dataclass(slots=True)
class Tally:
    """What a replay has committed so far. ``reached`` is by partition the next raw offset, ``alerts`` by their id."""

    labelled: int = 0
    dead: int = 0
    reached: dict[int, int] = field(default_factory=dict)
    alerts: dict[str, AlertStatus] = field(default_factory=dict)

    def add(self, settings: Settings, record: Record) -> None:
        """Count a record of an output topic."""
        topics = settings.topic_names
        if record.topic == topics.labelled:
            self.labelled += 1
        elif record.topic == topics.dead:
            self.dead += 1
        elif record.topic == topics.progress:
            mark = decode_event(Progress, record)
            self.reached[mark.partition] = mark.raw_next_offset
        else:
            alert = decode_event(AlertEvent, record)
            self.alerts[alert.alert_id] = alert.status

    def done(self, plan: Plan) -> int:
        """Records of the stretch that are behind."""
        return sum(
            max(0, self.reached.get(partition, 0) - bounds.start) for partition, bounds in enumerate(plan.stretch)
        )


async def prepare(
    live: Settings, since: datetime, until: datetime, *, output_prefix: str, bundle: str | None, now: datetime
) -> Plan:
    """Look at the broker, and plan; nothing is made or changed.

    Raises:
        Misconfigured: says what speaks against it, and the mend.
    """
    check_times(since, until, now)
    settings = derive_settings(live, output_prefix, bundle, now)
    found = await find_stretch(
        settings.kafka, settings.topic_names.raw, settings.topics.partitions, to_ms(since), to_ms(until)
    )
    plan = make_plan(settings, since, until, found)
    await _require_unused(plan)
    return plan


async def _require_unused(plan: Plan) -> None:
    """Output topics may have been made already, as they must be, but hold nothing."""
    kafka, prefix = plan.settings.kafka, plan.settings.topics.prefix
    found = await describe_topics(kafka, [spec.name for spec in plan.outputs])
    specs = [spec for spec in plan.outputs if spec.name in found]
    places = [Place(spec.name, partition) for spec in specs for partition in range(found[spec.name].partitions)]
    ends = await read_high_watermarks(kafka, places)
    used = sorted({place.topic for place, end in ends.items() if end})
    if used:
        raise Misconfigured(
            f"{', '.join(used)} hold records already: give another --output-prefix, or, if nobody needs them, "
            f"kafka-topics.sh --bootstrap-server {kafka.bootstrap_servers} --delete --topic "
            f"'{prefix.replace('.', '[.]')}({'|'.join(spec.name.removeprefix(prefix) for spec in plan.outputs)})'"
        )
    if problems := [problem for spec in specs for problem in find_differences(spec, found[spec.name])]:
        raise Misconfigured("\n".join(problems))


async def carry_out(plan: Plan, engine: Engine, stop: asyncio.Event, watch: Callable[[Tally], None]) -> Tally:
    """Label and detect the stretch; returns when all that follows from it is committed, or when ``stop`` is set.

    Args:
        plan: what to do.
        engine: labels the texts.
        stop: ends it before, in good order.
        watch: told from time to time how far it is.

    Raises:
        WorkerError: as the loops of a live worker.
    """
    settings = plan.settings
    await create_topics(settings.kafka, plan.outputs, settings.topics.replication_factor)
    around = Surroundings(
        make_clients=lambda kafka: StretchClients(kafka, plan.bounds),
        idle_now=lambda: plan.until,  # no record of the stretch is later: drained partitions hold nothing back
    )
    detector, tally = Vitals("detector"), Tally()

    def is_settled() -> bool:
        return detector.settled_ms >= to_ms(plan.until)

    await run_until_all(
        stop,
        run_labeller(settings, engine, stop, Vitals("labeller"), around),
        run_detector(settings, settings.rules, stop, detector),
        _count(plan, tally, is_settled, stop, watch),
    )
    return tally


async def _count(
    plan: Plan, tally: Tally, is_settled: Callable[[], bool], stop: asyncio.Event, watch: Callable[[Tally], None]
) -> None:
    """Follow the outputs to their end; they have one once the detector is settled."""
    topics, partitions = plan.settings.topic_names, range(plan.settings.topics.partitions)
    places = [Place(topic, partition) for topic in (topics.labelled, topics.progress) for partition in partitions]
    places += [Place(topics.dead, 0), Place(topics.alerts, 0)]
    async with open_reader(plan.settings, "replay") as reader:
        reader.assign(dict.fromkeys(places, 0))
        while not stop.is_set():
            ends = await reader.stable_ends(places) if is_settled() else None
            for record in await reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
                tally.add(plan.settings, record)
            watch(tally)
            if ends is not None and all([await reader.position(place) >= ends[place] for place in places]):
                return


def render_tally(plan: Plan, tally: Tally) -> Table:
    """The summary, for the terminal."""
    done, firing = tally.done(plan), sum(status is not AlertStatus.resolved for status in tally.alerts.values())
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    table.add_row("replayed", f"{done:,} of {plan.records:,} records of {plan.raw}")
    table.add_row("labelled", f"{tally.labelled:,}")
    table.add_row("dead", f"{tally.dead:,}")
    table.add_row("others", f"{done - tally.labelled - tally.dead:,}, heartbeats and transaction markers")
    table.add_row("alerts", f"{len(tally.alerts):,}, {firing:,} of them not resolved at the end")
    return table
