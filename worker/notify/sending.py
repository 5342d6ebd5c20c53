"""Sending letters over HTTP: bounded in time and size, no redirects, nothing taken from the environment."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import httpx2

from worker.notify.letters import Answer, Channel, Letter, Reply, TryAgain

MAX_REPLY_BYTES = 64 << 10
USER_AGENT = "stacknorm-notify"


class Post:
    """Sends the letters of one receiver. Owned by one event loop; one letter at a time."""

    def __init__(self, client: httpx2.AsyncClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def send(self, letter: Letter, channel: Channel, now: datetime) -> Answer:
        """Send, and say what became of it; whatever the way there does is worth another try."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reply = await self._post(letter)
        except TimeoutError:
            return TryAgain(f"no answer within {self._timeout_seconds:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return TryAgain(f"{type(error).__name__}: {error}".replace(letter.url, "the url"))  # which may be a secret
        return channel.read(reply, now)

    async def _post(self, letter: Letter) -> Reply:
        async with self._client.stream("POST", letter.url, content=letter.body, headers=dict(letter.headers)) as reply:
            body = bytearray()
            async for part in reply.aiter_raw():
                body += part
                if len(body) >= MAX_REPLY_BYTES:
                    break
            return Reply(reply.status_code, reply.headers, bytes(body[:MAX_REPLY_BYTES]))


@asynccontextmanager
async def open_post(timeout_seconds: float, proxy: str | None, ca_file: Path | None) -> AsyncIterator[Post]:
    """A way to one receiver; certificates are always verified."""
    verify = ssl.create_default_context(cafile=ca_file)
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    async with httpx2.AsyncClient(
        verify=verify,
        proxy=proxy,
        headers=headers,
        timeout=timeout_seconds,
        follow_redirects=False,
        trust_env=False,
        limits=httpx2.Limits(max_connections=2),
    ) as client:
        yield Post(client, timeout_seconds)
