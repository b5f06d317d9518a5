"""A search on the engine's thread, followed from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

from prunus.loop import Event
from prunus.server.engine import Running


@dataclass(frozen=True)
class News:
    """``begun``: its budget is enough and the first call comes next. ``text``: so much more is settled. ``over``."""

    kind: str
    text: str = ""


class Following:
    """A listener; ``news`` are those of one search. ``ended`` is called in the event loop when it is over."""

    def __init__(self, ended: Callable[[Running], None] | None = None) -> None:
        self._loop, self._queue, self._ended = asyncio.get_running_loop(), asyncio.Queue[News](), ended
        self._over = False

    def __call__(self, running: Running, event: Event | None) -> None:
        if event is not None and event.kind == "begun":
            self._send(News("begun"))
        elif event is not None and event.kind == "settled":
            self._send(News("text", "".join(node.unit["text"] for node in event.nodes)))
        elif event is None and running.over:
            if self._ended is not None:
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._ended, running)
            self._send(News("over"))

    def _send(self, news: News) -> None:
        with suppress(RuntimeError):  # the event loop is closed: no one follows any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, news)

    async def news(self) -> AsyncGenerator[News, None]:
        """Until the search is over."""
        while not self._over:
            yield await self._next()

    async def _next(self) -> News:
        news = await self._queue.get()
        self._over = news.kind == "over"
        return news

    async def over(self) -> None:
        async for _ in self.news():
            pass

    async def first(self, seconds: float) -> News | None:
        """What comes first, if it comes in time; ``news`` begins after it."""
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._next(), seconds)
        return None
