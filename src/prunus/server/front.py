"""What every request passes first: its id, the host it asks for, the clock, the count and the log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from logging import ERROR, INFO
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunus.server.errors import ClientGone, Refusal, refusal
from prunus.server.logs import log, where
from prunus.server.metrics import Distribution, Metric

OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBES = ("/health", "/ready")  # asked for by address, and telling nothing
STOPPED = Refusal(503, "the server has ended", code="draining", retry_after=5)
GONE = 499  # the status in log and metrics of a request whose client did not wait for the answer


def request_id(request: Request) -> str:
    """The id that the client sent as X-Request-Id, if it may be one, or a new one."""
    return request.scope["prunus.request_id"]


class Traffic:
    """Requests by route and status, how long they took, and how many are under way."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.seconds: dict[str, Distribution] = {}
        self.under_way = 0

    def add(self, route: str, status: int, seconds: float) -> None:
        self.counts[route, str(status)] = self.counts.get((route, str(status)), 0) + 1
        self.seconds.setdefault(route, Distribution()).observe(seconds)

    def metrics(self) -> Iterable[Metric]:
        yield Metric(
            "prunus_requests_total", "counter", "Requests that were answered.",
            [({"route": route, "status": status}, count) for (route, status), count in self.counts.items()],
        )  # fmt: skip
        yield Metric(
            "prunus_request_seconds", "histogram", "From a request's headers to the end of its answer.",
            [({"route": route}, seconds) for route, seconds in self.seconds.items()],
        )  # fmt: skip
        yield Metric("prunus_requests_under_way", "gauge", "Requests under way.", [({}, self.under_way)])


class Front:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], traffic: Traffic) -> None:
        self.app, self.traffic = app, traffic
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own = Headers(scope=scope).get("X-Request-Id", "")
        scope["prunus.request_id"] = own if OWN_ID.fullmatch(own) else f"req-{secrets.token_hex(16)}"
        began, status, problem = time.perf_counter(), 0, {}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = scope["prunus.request_id"]
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self.traffic.under_way += 1
        try:
            self._check_host(scope)
            await self.app(scope, receive, answer)
        except Exception as error:
            if status or isinstance(error, ClientGone):
                problem = {} if isinstance(error, ClientGone) else where(error)
            else:
                refused = refusal(error)
                problem = where(error) if refused.status >= 500 else {}
                await refused.response()(scope, receive, answer)
        except asyncio.CancelledError:  # the server ends, and does not wait any longer
            if not status:
                await STOPPED.response()(scope, receive, answer)
        finally:
            self.traffic.under_way -= 1
            self._count(scope, status or GONE, time.perf_counter() - began, problem or scope.get("prunus.problem", {}))

    def _check_host(self, scope: Scope) -> None:
        if "*" in self.hosts or scope["path"].removeprefix(scope.get("root_path", "")) in PROBES:
            return
        asked = Headers(scope=scope).get("Host", "").lower()
        name = asked.partition("]")[0] + "]" if asked.startswith("[") else asked.partition(":")[0]
        if name not in self.hosts:
            raise Refusal(
                400, "the server is not known by the name in the Host header; its operator can allow it: --allow-host",
                code="unknown_host",
            )  # fmt: skip

    def _count(self, scope: Scope, status: int, seconds: float, problem: dict[str, Any]) -> None:
        route = scope.get("prunus.route", "other")  # the pattern: paths are without end, and may hold a tree's id
        self.traffic.add(route, status, seconds)
        log(
            "request",
            ERROR if problem else INFO,
            request_id=scope["prunus.request_id"],
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 6),
            key=scope.get("prunus.owner", ""),
            address=(scope.get("client") or [""])[0],
            **problem,
        )
