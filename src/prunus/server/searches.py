"""The part of a server that searches: its models and engine, OpenAI's routes, saved trees, and its numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from logging import ERROR, INFO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from prunus.server.app import Metric, owner
from prunus.server.books import Books
from prunus.server.catalogue import Catalogue
from prunus.server.completions import Completions
from prunus.server.engine import Engine, Job, Running
from prunus.server.errors import Refusal
from prunus.server.following import Following
from prunus.server.live import Live
from prunus.server.logs import log, where
from prunus.server.model_thread import ModelThread
from prunus.server.settings import Settings
from prunus.server.trees import Trees, shown
from prunus.server.usage import amounts

SWEEP = 60.0  # seconds between looks for trees whose time is over


class Searches:
    """``load`` makes the catalogue, on the model thread; ``keep_alive``: seconds of silence until a comment is sent."""

    def __init__(
        self,
        load: Callable[[], Catalogue],
        settings: Settings,
        models: ModelThread,
        keep_alive: float = 10.0,
    ) -> None:
        self.load, self.settings, self.models, self.keep_alive = load, settings, models, keep_alive
        self.catalogue: Catalogue
        self.books, self.trees = Books(), Trees(settings.trees, settings.tree_seconds)
        self.engine = Engine(models, settings.limits, self._watch)
        self.live = Live(self)
        self._ready = False
        self._sweeping: asyncio.Task | None = None

    # ---- as a part -------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        completions = Completions(self)
        return [
            Route("/v1/chat/completions", completions.chat, methods=["POST"]),
            Route("/v1/completions", completions.text, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/trees/{id}", self._tree),
            Route("/v1/trees/{id}", self._forget, methods=["DELETE"]),
            *self.live.routes(),
        ]

    def ready(self) -> bool:
        return self._ready and self.engine.alive

    def metrics(self) -> Iterable[Metric]:
        return self.books.metrics(self.engine)

    async def start(self) -> None:
        self.catalogue = await self.models.run(self.load)
        for model in self.catalogue.served.values():
            await asyncio.to_thread(model.open)
        self.live.begin()
        self.engine.start()
        self._sweeping = asyncio.create_task(self._sweep())
        self._ready = True

    async def drain(self, seconds: float) -> None:
        self._ready = False
        await asyncio.to_thread(self.engine.drain, seconds, self._save)
        self.live.end()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.to_thread(self.trees.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.to_thread(self.trees.sweep)
            await asyncio.sleep(min(SWEEP, self.settings.tree_seconds))

    # ---- searches --------------------------------------------------------------------------------------------------

    def take(self, jobs: Sequence[Job], following: Sequence[Following], owner: str, request_id: str) -> list[Running]:
        """Queue searches, each with its follower. Raises Refusal if they find no place."""
        marked = [replace(job, about={**job.about, "owner": owner, "request_id": request_id}) for job in jobs]
        return self.engine.submit(marked, following)

    def keep(self, running: Running, owner: str) -> str:
        """Save a search's tree; its id. Raises FileError."""
        assert running.tree is not None
        id = self.trees.new_id()
        self.trees.save(running.tree, owner, id)
        return id

    def _save(self, running: Running) -> str:
        """Of a search that a stop breaks off: its whole rounds, from which it can go on."""
        id = self.keep(running, running.job.about["owner"])
        self.trees.passing = False  # a folder that goes with the server would be no place for it
        log("tree saved", request_id=running.job.about["request_id"], tree=id, folder=str(self.trees.folder))
        return id

    def _watch(self, running: Running, event: object) -> None:
        self.books.watch(running, event)  # type: ignore[arg-type]
        self.live.watch(running, event)  # type: ignore[arg-type]
        if running.over and event is None:
            about, took = running.job.about, amounts(running.tree) if running.tree is not None else None
            failed = running.error if running.state == "failed" else None
            log(
                "search",
                INFO if failed is None else ERROR,
                request_id=about["request_id"],
                model=about["model"],
                end=running.state,
                seconds=round(time.monotonic() - running.arrived, 6),
                waited=round(running.waited, 6),
                **({"generated": took.generated, "processed": took.processed, "scored": took.scored, "nfe": took.nfe}
                   if took is not None else {}),
                **(where(failed.__cause__ or failed) if failed is not None else {}),
            )  # fmt: skip

    # ---- other routes ----------------------------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_described(*one) for one in self.catalogue.names()]})

    async def _model(self, request: Request) -> Response:
        named = dict(self.catalogue.names())
        name = request.path_params["name"]
        if name not in named:
            raise Refusal(404, "there is no such model", param="model", code="model_not_found")
        return JSONResponse(_described(name, named[name]))

    async def _tree(self, request: Request) -> Response:
        tree = await asyncio.to_thread(self.trees.load, request.path_params["id"], owner(request))
        if tree is None:
            raise _no_tree()
        return JSONResponse(await asyncio.to_thread(shown, tree))

    async def _forget(self, request: Request) -> Response:
        if not await asyncio.to_thread(self.trees.delete, request.path_params["id"], owner(request)):
            raise _no_tree()
        return Response(status_code=204)


def _described(name: str, model: object) -> dict:
    return {"id": name, "object": "model", "created": model.created, "owned_by": "prunus"}  # type: ignore[attr-defined]


def _no_tree() -> Refusal:
    """The same for a tree that is not there, whose time is over, and of another key."""
    return Refusal(404, "there is no such tree, or it is another key's", code="tree_not_found")
