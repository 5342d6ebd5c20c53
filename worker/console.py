"""What every command does at its edges: where it prints, and how it comes by its settings."""

import re
import sys
from datetime import UTC, datetime, timedelta

import typer
from rich.console import Console

from worker.settings import Settings, load_settings

_LENGTH = re.compile("".join(rf"(?:([0-9]{{1,6}}){unit})?" for unit in "wdhm"))

PIPE_WIDTH = 120  # where there is no terminal to ask

out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)


def read_time(text: str) -> datetime:
    """An ISO time; one without a zone is UTC.

    Raises:
        ValueError: it is none.
    """
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def read_length(text: str) -> timedelta:
    """A length of time such as ``90m``, ``2h``, ``1d12h`` or ``2w``.

    Raises:
        ValueError: it is none.
    """
    match = _LENGTH.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is no length of time: write 90m, 2h, 1d12h or 2w")
    weeks, days, hours, minutes = (int(number or 0) for number in match.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)


def read_settings(context: typer.Context) -> Settings:
    """The settings; what libraries complain of is not shown, since a command says itself what is wrong."""
    from worker.log import configure_logging

    configure_logging("critical", "console")
    return load_settings(context.find_root().obj)


async def read_settings_of_a_running_system(context: typer.Context) -> Settings:
    """The settings, once the topics they name are known to be there as they must be."""
    from worker.check import require_topics

    settings = read_settings(context)
    await require_topics(settings)
    return settings
