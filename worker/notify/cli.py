"""`stacknorm-worker notify`: alerts to people, by webhook, Slack and Alertmanager."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from worker.console import err, out, read_settings
from worker.errors import Retriable


def notify(
    context: typer.Context,
    routes: Annotated[Path, typer.Option(help="A TOML file of receivers and routes.", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Say whether it is right, and what it means; send nothing.")
    ] = False,
    test: Annotated[str | None, typer.Option(help="Send a test alert to this receiver, and end.")] = None,
) -> None:
    """Bring alerts to people until SIGTERM or Ctrl-C: webhooks, Slack, Alertmanager.

    Each receiver gets what its routes lead to it, at least once, whatever becomes of the others; what people did about
    alerts (acknowledged, silenced) is obeyed. docs/notify.md shows a whole file.
    """
    from worker.notify.letters import Delivered
    from worker.notify.plan import load_plan, render_plan
    from worker.notify.process import send_test, serve

    plan = load_plan(routes, os.environ)
    if check:
        for line in render_plan(plan):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    settings = read_settings(context)
    if test is None:
        asyncio.run(serve(settings, plan))
        return
    answer = asyncio.run(send_test(plan, test))
    if not isinstance(answer, Delivered):
        raise Retriable(f"receiver {test}: {answer.reason}")
    err.print(f"receiver {test} took the test alert", highlight=False)
