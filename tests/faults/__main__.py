"""`python -m tests.faults`: a campaign, its progress on standard error, its tally as the last line of the output."""

import asyncio
import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker.broker import LocalBroker
from worker.log import configure_logging

from .campaign import NODES, Size, run_campaign
from .plan import Kind
from .tally import Report

SCAN_EVERY_SECOND = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}

err = Console(stderr=True)


def say(line: str) -> None:
    """Tell what is being done."""
    err.print(f"==> {line}", highlight=False, soft_wrap=True)


def main(
    records: Annotated[int, typer.Option(min=1, help="Headlines and poison that are fed.")] = 100_000,
    kills: Annotated[int, typer.Option(min=0, help="Workers killed.")] = 20,
    rebalances: Annotated[int, typer.Option(min=0, help="Labellers that join and leave.")] = 20,
    broker_kills: Annotated[int, typer.Option(min=0, help="Nodes killed and started again.")] = 5,
    zombies: Annotated[int, typer.Option(min=0, help="Workers frozen beyond their session time-out.")] = 5,
    seed: Annotated[
        int | None, typer.Option(envvar="STACKNORM_SEED", help="Of the plan; by chance without it.", show_default=False)
    ] = None,
) -> None:
    """Real workers on three nodes of Apache Kafka, hit again and again; then what is lost, duplicated or altered."""
    configure_logging("error", "console")
    size = Size(
        records, {Kind.sigkill: kills, Kind.rebalance: rebalances, Kind.broker: broker_kills, Kind.zombie: zombies}
    )
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    say(f"seed {chosen}")
    report = carry_out(chosen, size)
    for problem in report.find_faults():
        err.print(f"FAILED {problem}", style="red", highlight=False, soft_wrap=True)
    print(report.recoveries)
    print(report.tally)
    raise typer.Exit(any(report.find_faults()))


def carry_out(seed: int, size: Size) -> Report:
    """On a cluster of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="stacknorm-faults-") as name,
        LocalBroker(NODES, properties=SCAN_EVERY_SECOND, report=say) as broker,
    ):
        return asyncio.run(run_campaign(seed, size, broker, Path(name), say))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
