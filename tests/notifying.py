"""What tests of notifications share: alerts, people, and a receiver that fails, hangs and comes back."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.events import AlertEvent
from worker.notify.decision import News, Told

NOW = datetime(2026, 3, 5, 9, 0, tzinfo=UTC)  # a Thursday
GOOD = json.loads((Path(__file__).parents[1] / "schemas/examples/alert_event.good.jsonl").read_text().splitlines()[0])
ENDED = {"status": "resolved", "ends_at": "2026-03-05T14:30:02.125Z", "resolve_reason": "quiet"}


def make_alert(alert_id: str = "a-1", revision: int = 1, *, ended: bool = False, **others: Any) -> AlertEvent:
    """An alert as the detector publishes it."""
    value = {**GOOD, "alert_id": alert_id, "revision": revision, **(ENDED if ended else {}), **others}
    return AlertEvent.model_validate_json(json.dumps(value))


def tell(alert: AlertEvent, reference: str | None = None, *, grouped: bool = False) -> Told:
    """What a receiver knows that got this revision."""
    return Told().after(alert, reference, grouped=grouped)


def news(alert: AlertEvent, told: Told | None = None, *, again: bool = False) -> News:
    return News(alert, told or Told(), again)


@dataclass(slots=True)
class Taken:
    """A request that was answered with success."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """A local HTTP server that does with each request what ``mood`` says.

    ``fine`` answers 200, ``error`` 500, ``bad`` 400, ``busy`` 429 and Retry-After: 1, ``redirect`` sends to itself,
    ``hang`` answers nothing, ``drip`` without end, ``reset`` closes. As Slack it gives each message a time stamp.
    """

    mood: str = "fine"
    taken: list[Taken] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    port: int = 0
    slack: bool = False
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of what was taken."""
        return [each.headers["idempotency-key"] for each in self.taken]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        taken = Taken(head[0].split()[1], headers, await reader.readexactly(int(headers.get("content-length", 0))))
        self.seen[self.mood] += 1
        if self.mood == "hang":
            await reader.read()  # until the other side gives up
        if self.mood in {"hang", "reset"}:
            return False
        if self.mood == "drip":
            await self._drip(writer)
            return False
        answers = {
            "error": ("500 No", ""),
            "bad": ("400 No", ""),
            "busy": ("429 No", "Retry-After: 1\r\n"),
            "redirect": ("302 Found", f"Location: {self.url}/other\r\n"),
        }
        status, more = answers.get(self.mood, ("200 OK", ""))
        body = b'{"ok": false}'
        if self.mood == "fine":
            self.taken.append(taken)
            body = self._receipt(taken)
        writer.write(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    def _receipt(self, taken: Taken) -> bytes:
        if not self.slack:
            return b"ok"
        stamp = taken.json.get("ts") or f"1700000000.{len(self.taken):06}"
        return json.dumps({"ok": True, "channel": taken.json["channel"], "ts": stamp}).encode()


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
