"""The page at ``/``: searches that run and those that ended, their trees as they grow.

The page itself tells nothing; its events need the admin key, or the cookie of a session that the key has opened. What
models and clients wrote is sent as JSON and set as text, under a policy that runs no script but the page's own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from prunus.loop import Event
from prunus.server.app import access, body
from prunus.server.engine import Running
from prunus.server.errors import Refusal
from prunus.server.event_stream import EventStream
from prunus.server.fields import check_text
from prunus.server.keys import COOKIE, SESSION_SECONDS
from prunus.server.usage import tokens_of
from prunus.tree import Node, Tree

if TYPE_CHECKING:
    from prunus.server.searches import Searches

ENDED = 40  # searches that are shown after their end
NODES, CHARACTERS = 600, 600  # of a tree, of a text
WATCHERS, BEHIND = 20, 2000  # pages at a time; events that one may be behind before it must begin anew
SECOND = 1.0  # between the engine's numbers
WRONG_KEY = 0.5  # seconds until a wrong key is told
HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Live:
    """What the page shows, kept in the event loop; ``watch`` is called on the engine's thread."""

    def __init__(self, searches: Searches) -> None:
        self.searches = searches
        self.shown: dict[int, dict[str, Any]] = {}  # by the page's number of a search
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: set[asyncio.Queue[tuple[str, Any] | None]] = set()
        self._numbers, self._count = dict[Running, int](), itertools.count(1)
        self._sent: dict[Running, dict[int, tuple[Any, ...]]] = {}  # of each node, what was told of it

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """End all streams of events."""
        for watcher in self._watchers:
            watcher.put_nowait(None)
        self._watchers.clear()

    # ---- the engine's thread ---------------------------------------------------------------------------------------

    def watch(self, running: Running, event: Event | None) -> None:
        if running not in self._numbers:
            self._numbers[running], self._sent[running] = next(self._count), {}
        number = self._numbers[running]
        if event is None:
            self._tell("search", {"id": number, **_about(running)})
        if running.tree is not None and (event is None or event.kind in ("round", "finished")):
            if nodes := self._changed(running, running.tree):
                self._tell("nodes", {"id": number, "nodes": nodes, **_progress(running.tree)})
        if running.over:
            del self._numbers[running], self._sent[running]

    def _changed(self, running: Running, tree: Tree) -> list[dict[str, Any]]:
        """The nodes of which there is something new to tell."""
        sent, chosen = self._sent[running], set(tree.result.lineage) if tree.result is not None else set()
        new = []
        for node in tree.nodes[1 : NODES + 1]:
            key = (node.status, len(node.scores), node in chosen)
            if sent.get(node.id) != key:
                sent[node.id] = key
                new.append(_node(tree, node, node in chosen))
        return new

    def _tell(self, kind: str, told: dict[str, Any]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._apply, kind, told)

    # ---- the event loop --------------------------------------------------------------------------------------------

    def _apply(self, kind: str, told: dict[str, Any]) -> None:
        number = told["id"]
        if kind == "search":
            search = self.shown.setdefault(number, {"nodes": {}})
            search.update(told)
            ended = [n for n, s in self.shown.items() if s["ended"] is not None]
            for old in ended[: max(0, len(ended) - ENDED)]:
                del self.shown[old]
        elif number in self.shown:
            search = self.shown[number]
            search["nodes"].update((node["id"], node) for node in told["nodes"])
            search.update({k: v for k, v in told.items() if k not in ("id", "nodes")})
        self._publish(kind, told)

    def _publish(self, kind: str, told: Any) -> None:
        for watcher in list(self._watchers):
            if watcher.qsize() >= BEHIND:
                self._watchers.discard(watcher)
                watcher.put_nowait(None)
            else:
                watcher.put_nowait((kind, told))

    def snapshot(self) -> list[dict[str, Any]]:
        return [{**search, "nodes": list(search["nodes"].values())} for search in self.shown.values()]

    def numbers(self) -> dict[str, Any]:
        engine, total = self.searches.engine, self.searches.books.total
        return {
            "running": len(engine.running),
            "waiting": len(engine.waiting),
            "states": engine.states,
            "generated": total.generated,
            "kept": self.searches.books.kept,
            "calls": engine.calls,
            "rows": engine.rows,
            "time": time.monotonic(),
        }

    # ---- routes ----------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        return [
            Route("/", _file("live.html", "text/html")),
            Route("/live/page.css", _file("live.css", "text/css")),
            Route("/live/page.js", _file("live.js", "text/javascript")),
            Route("/live/session", self._sign_in, methods=["POST"]),
            Route("/live/session", self._sign_out, methods=["DELETE"]),
            Route("/live/events", self._events),
        ]

    @staticmethod
    @access("anyone")
    async def _sign_in(request: Request) -> Response:
        keys, key = request.app.state.keys, check_text((await body(request)).get("key"), "key", 1000)
        if not keys.is_admin(key):
            await asyncio.sleep(WRONG_KEY)
            raise Refusal(401, "this is not the admin key", code="invalid_api_key")
        response = Response(status_code=204, headers=HEADERS)
        response.set_cookie(
            COOKIE,
            keys.open_session(),
            max_age=SESSION_SECONDS,
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    @staticmethod
    @access("admin")
    async def _sign_out(request: Request) -> Response:
        request.app.state.keys.close_session(request)
        response = Response(status_code=204, headers=HEADERS)
        response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
        return response

    @access("admin")
    async def _events(self, request: Request) -> Response:
        if len(self._watchers) >= WATCHERS:
            raise Refusal(429, f"{WATCHERS} pages watch already", code="too_many_watchers", retry_after=30)
        return EventStream(self._told(request), headers=HEADERS)

    async def _told(self, request: Request) -> AsyncGenerator[bytes, None]:
        """All that is shown, and then each change, as long as the session lasts."""
        watcher: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        self._watchers.add(watcher)
        try:
            yield _event("snapshot", self.snapshot())
            yield _event("numbers", self.numbers())
            next_numbers = time.monotonic() + SECOND
            while True:
                try:
                    told = await asyncio.wait_for(watcher.get(), max(0.0, next_numbers - time.monotonic()))
                    if told is None:
                        return  # too far behind: the page connects again
                    yield _event(*told)
                except asyncio.TimeoutError:
                    try:
                        request.app.state.keys.check_admin(request)
                    except Refusal:
                        return
                    yield _event("numbers", self.numbers())
                    next_numbers = time.monotonic() + SECOND
        finally:
            self._watchers.discard(watcher)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one of the page's own files."""

    @access("anyone")
    async def endpoint(request: Request) -> Response:
        return FileResponse(HERE / name, media_type=f"{kind}; charset=utf-8", headers=HEADERS)

    return endpoint


def _event(kind: str, told: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(told, separators=(',', ':'))}\n\n".encode()


def _about(running: Running) -> dict[str, Any]:
    about: Mapping[str, Any] = running.job.about
    return {
        "state": running.state,
        "model": about.get("model", ""),
        "key": about.get("owner", ""),
        "prompt": running.job.prompt[:CHARACTERS],
        "seed": running.job.seed,
        "waited": round(running.waited, 3),
        "arrived": running.arrived,
        "ended": time.monotonic() if running.over else None,
        "error": type(running.error).__name__ if running.error is not None else "",
    }


def _progress(tree: Tree) -> dict[str, Any]:
    return {
        "tokens": tree.spent.generating.tokens,
        "nfe": tree.spent.total.nfe,
        "round": tree.round,
        "settled": tree.settled,
        "grown": len(tree.nodes) - 1,
    }


def _node(tree: Tree, node: Node, chosen: bool) -> dict[str, Any]:
    score = node.scores.get(tree.rewards[0]) if tree.rewards and tree.rewards[0] != "none" else None
    text = node.unit.get("text", "") if isinstance(node.unit, dict) else ""
    return {
        "id": node.id,
        "parent": node.parent.id if node.parent is not None else 0,
        "depth": node.depth,
        "status": "chosen" if chosen else node.status.value,
        "text": text[:CHARACTERS],
        "score": None if score is None else score.value,
        "tokens": tokens_of(node),
        "reason": node.reason[:CHARACTERS],
    }
