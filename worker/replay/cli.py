"""`stacknorm-worker replay`: a past stretch of the raw topic once more, with outputs, groups and state of its own."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.console import err, out, read_settings_of_a_running_system, read_time
from worker.errors import WorkerError

if TYPE_CHECKING:
    from worker.replay.plan import Plan
    from worker.replay.run import Tally


def replay(
    context: typer.Context,
    *,
    since: Annotated[str, typer.Option("--from", help="First time of the stretch, such as 2026-03-05T08:30Z.")],
    until: Annotated[str, typer.Option("--to", help="First time behind it. Without a zone it is UTC.")],
    output_prefix: Annotated[str, typer.Option(help="In front of the output topics' names; not the live prefix.")],
    bundle: Annotated[str | None, typer.Option(help="Label with this one, not the one of the settings.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without it only the plan is shown.")] = False,
) -> None:
    """Label and detect a past stretch of the raw topic again, apart from all that is live.

    Outputs, consumer groups, transactions and the detector's state are the replay's own; the raw topic is only read.
    Without --execute the plan is printed and nothing is done.
    """
    from worker.replay.plan import render_plan
    from worker.replay.run import prepare

    try:
        times = read_time(since), read_time(until)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

    async def plan_it() -> "Plan":
        live = await read_settings_of_a_running_system(context)
        now = datetime.now(UTC)
        return await prepare(live, *times, output_prefix=output_prefix, bundle=bundle, now=now)

    plan = asyncio.run(plan_it())
    out.print(render_plan(plan), highlight=False)
    if not execute:
        out.print("\nNothing is done yet: add --execute.", highlight=False)
        return
    _tell(plan, asyncio.run(_execute(plan)))


async def _execute(plan: "Plan") -> "Tally":
    from worker.engines import load_engine
    from worker.replay.run import Tally, carry_out
    from worker.runner.tasks import stop_on_signals

    stop = stop_on_signals()
    engine = await asyncio.to_thread(load_engine, plan.settings.engine)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(f"replaying {plan.raw}", total=plan.records)

        def show(tally: Tally) -> None:
            progress.update(task, completed=tally.done(plan))

        return await carry_out(plan, engine, stop, show)


def _tell(plan: "Plan", tally: "Tally") -> None:
    """The summary, and where to look.

    Raises:
        WorkerError: it was stopped before its end.
    """
    from worker.replay.plan import describe_view
    from worker.replay.run import render_tally

    out.print(render_tally(plan, tally), highlight=False)
    out.print(f"\n{describe_view(plan.settings)} stacknorm-worker tail --from-start", highlight=False, soft_wrap=True)
    if tally.done(plan) < plan.records:
        raise WorkerError(
            f"stopped after {tally.done(plan)} of {plan.records} records; to begin again give another --output-prefix"
        )
