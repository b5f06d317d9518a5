"""``/v1/chat/completions`` and ``/v1/completions``: a request becomes a search, its answer is what the search chooses.

What is streamed is settled: all candidates that are alive share it, so that nothing that was sent is taken back. Of
several answers the first is streamed and the others come whole, at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from logging import ERROR
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prunus.server.answers import Found, Shape, kept, texts
from prunus.server.app import body, charge, owner, request_id, while_connected
from prunus.server.engine import Running
from prunus.server.errors import Refusal, refusal
from prunus.server.event_stream import DONE, EventStream, data
from prunus.server.following import Following
from prunus.server.logs import log, where
from prunus.server.request import Asked, read
from prunus.server.usage import amounts

if TYPE_CHECKING:
    from prunus.server.searches import Searches

PATIENCE = 5.0  # seconds in which a search may fail with a status of its own, before a stream begins


class Completions:
    """The two routes of one server's searches."""

    def __init__(self, searches: Searches) -> None:
        self.searches = searches

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def text(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, chat: bool) -> Response:
        searches = self.searches
        content = await body(request)
        # Tokenizers take their time with long prompts; the event loop has others to answer.
        asked = await asyncio.to_thread(read, content, chat, searches.catalogue, searches.settings.limits)
        headers = {"X-Prunus-Ignored": ", ".join(asked.ignored)} if asked.ignored else {}
        following = [Following(lambda running: _book(request, running)) for _ in asked.jobs]
        runnings = searches.take(asked.jobs, following, owner(request), request_id(request))
        shape = Shape(asked, chat)
        try:
            if asked.stream:
                first = await while_connected(request, following[0].first(PATIENCE))
                if first is not None and first.kind == "over":
                    _check(runnings[0])
                return EventStream(self._stream(request, shape, runnings, following), searches.keep_alive, headers)
            await while_connected(request, _gathered(runnings, following))
            found, trees = await self._found(request, asked, runnings)
            return JSONResponse(shape.whole(found, trees), headers=headers)
        except BaseException:
            self._leave(runnings)
            raise

    async def _stream(
        self, request: Request, shape: Shape, runnings: Sequence[Running], following: Sequence[Following]
    ) -> AsyncGenerator[bytes, None]:
        """The events of an answer; an error is the last one, as there is no status any more."""
        asked, sent = shape.asked, dict[int, str]()
        try:
            for i, follow in enumerate(following):
                index = i * asked.n
                if shape.chat:
                    for j in range(index, index + asked.n):
                        yield data(shape.chunk(j, "", first=True))
                sent[index] = ""
                async for news in follow.news():
                    if news.text:
                        sent[index] += news.text
                        yield data(shape.chunk(index, news.text))
                _check(runnings[i])
            found, trees = await self._found(request, asked, runnings)
            for i, one in enumerate(found):
                for j, (text, finish) in enumerate(texts([one])):
                    index = i * asked.n + j
                    if rest := text[len(sent.get(index, "")) :]:
                        yield data(shape.chunk(index, rest))
                    yield data(shape.chunk(index, "", finish))
            if asked.include_usage:
                yield data(shape.last(found, trees))
            yield DONE
        except Exception as error:
            refused = refusal(error)
            if refused.status >= 500:
                log("stream failed", ERROR, request_id=request_id(request), **where(error))
            yield data(refused.body())
        finally:
            self._leave(runnings)

    async def _found(
        self, request: Request, asked: Asked, runnings: Sequence[Running]
    ) -> tuple[list[Found], list[str]]:
        """The answers of finished searches, and the ids of their trees if they were asked for."""
        for running in runnings:
            _check(running)
        found = [Found.of(running, asked) for running in runnings]
        self.searches.books.kept += kept(found)
        trees = []
        for running in runnings if asked.tree else ():
            trees.append(await asyncio.to_thread(self.searches.keep, running, owner(request)))
        return found, trees

    def _leave(self, runnings: Sequence[Running]) -> None:
        for running in runnings:
            self.searches.engine.cancel(running)


async def _gathered(runnings: Sequence[Running], following: Sequence[Following]) -> None:
    """Wait for all, or for the first that fails."""
    waiting = {asyncio.ensure_future(follow.over()): r for follow, r in zip(following, runnings, strict=True)}
    try:
        for done in asyncio.as_completed(waiting):
            await done
            for running in runnings:
                if running.over:
                    _check(running)
    finally:
        for task in waiting:
            task.cancel()


def _check(running: Running) -> None:
    """Raise what ended a search, unless it finished."""
    if running.state == "finished":
        return
    raise running.error or Refusal(503, "the search was ended", code="cancelled", retry_after=5)


def _book(request: Request, running: Running) -> None:
    if running.tree is not None:
        charge(request, amounts(running.tree).tokens)
