"""Server-sent events: an answer that comes in pieces, kept alive while there is nothing to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = b": still here\n\n"
DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    """One event. JSON has no line ends of its own, so that no text can end it."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends what ``events`` yields. It is closed when the client goes away, so that its work can be stopped; a comment
    goes out after so many silent seconds, which clients skip."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], keep_alive: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> None:
        # Proxies are told to pass pieces on as they come.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self.events, self.keep_alive = events, keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_gone(receive))
        step: asyncio.Task[bytes] | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while True:
                step = step or asyncio.create_task(self.events.asend(None))
                await asyncio.wait((step, gone), timeout=self.keep_alive, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                chunk = KEEP_ALIVE
                if step.done():
                    try:
                        chunk, step = step.result(), None
                    except StopAsyncIteration:
                        break
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            if step is not None and not step.done():
                step.cancel()
                await asyncio.wait({step})
            await self.events.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
