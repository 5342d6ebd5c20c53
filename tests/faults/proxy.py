"""A TCP proxy with bad weather: what passes comes late, slowly and in pieces, and connections are reset."""

import asyncio
import socket
import struct
from random import Random
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: what is on the way is thrown away


class Proxy:
    """Hands connections to ``port`` on to ``target_port``. An asynchronous context manager, owned by one event loop.

    Args:
        port: to listen on, on loopback.
        target_port: of whom it stands for.
        random: draws the pieces and their delays.
        max_delay_seconds: how long a piece waits at most.
        bytes_per_second: how fast the pieces of a connection follow each other, each way.
        max_piece_bytes: the largest piece.
    """

    def __init__(
        self,
        port: int,
        target_port: int,
        random: Random,
        *,
        max_delay_seconds: float = 0.02,
        bytes_per_second: float = 500_000.0,
        max_piece_bytes: int = 8000,
    ) -> None:
        self._port = port
        self._target_port = target_port
        self._random = random
        self._max_delay_seconds = max_delay_seconds
        self._bytes_per_second = bytes_per_second
        self._max_piece_bytes = max_piece_bytes
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> int:
        """Reset all connections; how many ends there were."""
        ends = list(self._open)
        for writer in ends:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            writer.transport.abort()
        return len(ends)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        passing = [asyncio.create_task(self._pass_on(reader, back)), asyncio.create_task(self._pass_on(there, writer))]
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        self._open -= ends
        for task in passing:
            task.cancel()
        for end in ends:
            end.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(self._random.randint(1, self._max_piece_bytes)):
                delay = self._random.uniform(0.0, self._max_delay_seconds)
                await asyncio.sleep(delay + len(piece) / self._bytes_per_second)
                writer.write(piece)
                await writer.drain()
        except OSError:  # one of the ends was reset
            return
