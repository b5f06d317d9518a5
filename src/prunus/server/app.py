"""The application: parts that each bring routes, behind the checks that all requests pass.

A part is what a server is made of: the searches are one, the rewards another. Its endpoints are ``async def
endpoint(request) -> Response``; they read the body with ``await body(request)`` and raise ``Refusal`` for what they
refuse. Who may call one is said by ``@access``: clients with a key (the default), the admin, or anyone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from logging import ERROR
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from prunus.server import metrics
from prunus.server.body import body, while_connected
from prunus.server.errors import ClientGone, Refusal, refusal
from prunus.server.front import Front, Traffic, request_id
from prunus.server.keys import Keys, owner
from prunus.server.logs import log, where
from prunus.server.metrics import Metric
from prunus.server.quotas import Quotas, charge
from prunus.server.settings import Settings

__all__ = [
    "Life",
    "Metric",
    "Part",
    "access",
    "body",
    "build",
    "charge",
    "owner",
    "request_id",
    "while_connected",
]

Endpoint = Callable[[Request], Awaitable[Response]]
LOCAL = ("localhost", "127.0.0.1", "[::1]")
COME_BACK = 5.0  # seconds; what a client is told while the server loads or drains


class Part(Protocol):
    """What a server is made of."""

    def routes(self) -> list[Route]:
        """Its routes; the endpoints are functions."""
        ...

    def ready(self) -> bool:
        """False while it loads or drains."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """What ``/metrics`` tells of it."""
        ...

    async def start(self) -> None:
        """Load what it needs; the server answers ``/health`` meanwhile. An error ends the server."""
        ...

    async def drain(self, seconds: float) -> None:
        """Refuse new work and finish what runs; after so many seconds save or stop what does not finish."""
        ...


class Life:
    """Whether the parts are loading, ready or draining."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts, self.started, self.draining = parts, False, False
        self.failure: Exception | None = None
        self._drained: asyncio.Task | None = None

    async def start(self) -> None:
        try:
            for part in self.parts:
                await part.start()
            self.started = True
        except Exception as error:
            self.failure = error
            log("start failed", ERROR, **where(error))

    @property
    def state(self) -> str:
        if self.draining:
            return "draining"
        return "ready" if self.started and all(part.ready() for part in self.parts) else "loading"

    async def drain(self, seconds: float) -> None:
        """Once; a second call waits for the first one."""
        self.draining = True
        if self._drained is None:
            self._drained = asyncio.ensure_future(self._drain(seconds))
        await asyncio.shield(self._drained)

    async def _drain(self, seconds: float) -> None:
        for part, result in zip(
            self.parts, await asyncio.gather(*(p.drain(seconds) for p in self.parts), return_exceptions=True)
        ):
            if isinstance(result, BaseException):
                log("drain failed", ERROR, part=type(part).__name__, **where(result))


def access(who: str) -> Callable[[Any], Any]:
    """Who may call an endpoint: ``key`` (clients; the default), ``admin`` or ``anyone``."""

    def mark(endpoint: Any) -> Any:
        endpoint.access = who
        return endpoint

    return mark


def build(settings: Settings, parts: Sequence[Part]) -> Starlette:
    """The application. ``app.state`` has settings, keys, quotas, traffic and life."""
    life, traffic = Life(parts), Traffic()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(life.start())
        try:
            yield
        finally:
            loading.cancel()
            await life.drain(settings.limits.drain_seconds)

    @access("anyone")
    async def health(request: Request) -> Response:
        """Liveness: the process answers."""
        return JSONResponse({"status": "alive"})

    @access("anyone")
    async def ready(request: Request) -> Response:
        """Readiness: send requests here, or elsewhere (503)."""
        if life.state == "ready":
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": life.state}, 503, {"Retry-After": f"{COME_BACK:.0f}"})

    @access("admin")
    async def scrape(request: Request) -> Response:
        found = [m for source in (traffic, *app.state.sources, *parts) for m in source.metrics()]
        return PlainTextResponse(metrics.write(found), media_type=metrics.CONTENT_TYPE)

    own = [Route("/health", health), Route("/ready", ready), Route("/metrics", scrape)]
    routes = [_guarded(route) for route in [*own, *(r for part in parts for r in part.routes())]]
    hosts = (*LOCAL, *settings.hosts, settings.host if ":" not in settings.host else f"[{settings.host.strip('[]')}]")
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Front, hosts=hosts, traffic=traffic)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.life, app.state.traffic = settings, life, traffic
    app.state.keys, app.state.quotas = Keys(settings.keys, settings.admin_key), Quotas(settings.limits)
    app.state.sources = []  # what else has metrics
    return app


def _guarded(route: Route) -> Route:
    """The route behind its checks, its errors as answers."""
    endpoint: Endpoint = route.endpoint
    who = getattr(endpoint, "access", "key")

    async def guarded(request: Request) -> Response:
        request.scope["prunus.route"] = route.path
        try:
            _admit(request, who)
            return await endpoint(request)
        except ClientGone:
            raise
        except Exception as error:
            refused = refusal(error)
            if refused.status >= 500:
                request.scope["prunus.problem"] = where(error)
            return refused.response()

    return Route(route.path, guarded, methods=list(route.methods or ()), name=route.name)


def _admit(request: Request, who: str) -> None:
    """Raises Refusal for a request that may not come in."""
    state = request.app.state
    if who == "admin":
        state.keys.check_admin(request)
    if who == "key":
        request.scope["prunus.owner"] = state.keys.client(request)
        if state.life.state != "ready":
            raise Refusal(503, f"the server is {state.life.state}", code=state.life.state, retry_after=COME_BACK)
        state.quotas.admit(owner(request))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = "there is no such route"
    elif error.status_code == 405:
        message = f"{request.method} is not a method of this route; take {(error.headers or {}).get('Allow')}"
    else:
        message = error.detail
    return Refusal(error.status_code, message, code="no_such_route", headers=dict(error.headers or {})).response()
