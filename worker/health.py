"""Metrics and health over HTTP: ``/metrics``, ``/livez``, ``/readyz``. Loopback unless told otherwise."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from worker.errors import Misconfigured

Check = Callable[[], str | None]
"""None when all is well, else what is wrong, in a sentence."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What the endpoints ask: ``live`` fails when only a restart helps, ``ready`` while work cannot be done."""

    live: Check
    ready: Check


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker, which drains first."""
        yield


@asynccontextmanager
async def serve_health(host: str, port: int, checks: Checks) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port that was taken.

    Raises:
        Misconfigured: the address cannot be listened on.
    """
    listener = _listen(host, port)
    server = _Server(uvicorn.Config(make_app(checks), log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def make_app(checks: Checks) -> Starlette:
    """The endpoints as an ASGI application."""

    def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def livez(_: Request) -> Response:
        return _verdict(checks.live())

    def readyz(_: Request) -> Response:
        return _verdict(checks.ready())

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise Misconfigured(f"cannot listen on http.host:http.port = {host}:{port}: {error.strerror}") from error


def _verdict(problem: str | None) -> Response:
    return PlainTextResponse("ok\n" if problem is None else f"{problem}\n", 200 if problem is None else 503)
