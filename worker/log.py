"""Structured logs to standard error: JSON for machines, colours for people. Dotted event names, values as keys."""

import logging
import math
import sys
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

REPEAT_SECONDS = 10.0

Log = structlog.typing.FilteringBoundLogger


def configure_logging(level: str, log_format: str) -> None:
    """Set up structlog, and send what libraries log at warning or above the same way."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared = (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    renderers: tuple[Callable[..., Any], ...]
    tracebacks: Any  # without the values of variables: one may be a secret
    if log_format == "json":
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        renderers = (tracebacks, structlog.processors.JSONRenderer(serializer=_dump))
    else:
        tracebacks = structlog.dev.RichTracebackFormatter(show_locals=False)
        renderers = (structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks),)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def get_logger(**values: object) -> Log:
    """A logger that adds ``values`` to every line."""
    logger: Log = structlog.get_logger(**values)
    return logger


def _dump(event: dict[str, Any], **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


class _LibraryHandler(logging.Handler):
    """Sends a library's own log lines through structlog, so that all lines have one shape.

    The same complaint again within ten seconds is only counted: a client says ten times a second that a broker is away.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at_seconds: dict[tuple[str, str], float] = {}
        self._unsaid: dict[tuple[str, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        complaint = (record.name, str(record.msg))
        if record.created - self._said_at_seconds.get(complaint, -math.inf) < REPEAT_SECONDS:
            self._unsaid[complaint] = self._unsaid.get(complaint, 0) + 1
            return
        self._said_at_seconds[complaint] = record.created
        repeated = self._unsaid.pop(complaint, 0)
        log = get_logger(library=record.name)
        log.log(record.levelno, "library.message", message=record.getMessage(), repeated=repeated)
