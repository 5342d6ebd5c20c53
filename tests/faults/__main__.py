"""`python -m tests.faults`: a campaign, its progress on standard error, its tally as the last line of the output."""

import logging
import secrets
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker.log import configure_logging

from .campaign import Size, run_campaign
from .plan import Kind

STARTED = time.monotonic()

err = Console(stderr=True)


def say(line: str) -> None:
    """Tell what is being done, and since when."""
    err.print(f"==> {time.monotonic() - STARTED:5.0f} s  {line}", highlight=False, soft_wrap=True)


def main(
    records: Annotated[int, typer.Option(min=1, help="Headlines and poison that are fed.")] = 100_000,
    kills: Annotated[int, typer.Option(min=0, help="Workers killed.")] = 20,
    rebalances: Annotated[int, typer.Option(min=0, help="Labellers that join and leave.")] = 20,
    broker_kills: Annotated[int, typer.Option(min=0, help="Nodes killed and started again.")] = 5,
    zombies: Annotated[int, typer.Option(min=0, help="Workers frozen beyond their session time-out.")] = 5,
    bundle: Annotated[
        str | None, typer.Option(help="A stack of models that labels; an engine without one else.", show_default=False)
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Of the detector.")] = 1,
    seed: Annotated[
        int | None, typer.Option(envvar="STACKNORM_SEED", help="Of the plan; by chance without it.", show_default=False)
    ] = None,
) -> None:
    """Real workers on three nodes of Apache Kafka, hit again and again; then what is lost, duplicated or altered."""
    configure_logging("error", "console")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our own clients complain of every node that is away
    size = Size(
        records, {Kind.sigkill: kills, Kind.rebalance: rebalances, Kind.broker: broker_kills, Kind.zombie: zombies}
    )
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    say(f"seed {chosen}")
    with tempfile.TemporaryDirectory(prefix="stacknorm-faults-") as folder:
        report = run_campaign(chosen, size, Path(folder), say, bundle=bundle, shards=shards)
    for problem in report.find_faults():
        err.print(f"FAILED {problem}", style="red", highlight=False, soft_wrap=True)
    print(report.recoveries)
    print(report.tally)
    raise typer.Exit(1 if any(report.find_faults()) else 0)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
