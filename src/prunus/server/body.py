"""A request's body as an object, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from prunus.server.errors import ClientGone, Refusal
from prunus.server.strict_json import parse

Result = TypeVar("Result")
SWALLOWED = 16  # times what is allowed: so much of a body that is too large is read before the answer


async def body(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises Refusal: 413 too large, 415 not JSON by its type, 400 not as it must be."""
    limits = request.app.state.settings.limits
    kind, _, more = request.headers.get("Content-Type", "").partition(";")
    charset = more.strip().lower().partition("charset=")[2].strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise Refusal(415, "send the body as Content-Type: application/json, in UTF-8", code="unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refusal(415, "send the body as it is, without Content-Encoding", code="unsupported_media_type")
    return parse(await _content(request, limits.body_bytes), limits.json_depth)


async def _content(request: Request, most: int) -> bytes:
    """Most clients read no answer before they have sent all, so some of what is too much is taken before it comes."""
    too_large = Refusal(
        413, f"the body has more than {most} bytes", code="body_too_large", headers={"Connection": "close"}
    )
    try:
        told = int(request.headers.get("Content-Length", "0"))
    except ValueError:
        told = 0
    if told > most and request.headers.get("Expect", "").lower() == "100-continue":
        raise too_large
    parts, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                parts.append(chunk)
            elif size > SWALLOWED * most:
                break
    except ClientDisconnect:
        raise ClientGone from None
    if size > most:
        raise too_large
    return b"".join(parts)


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives; it is cancelled when the client goes away, and ClientGone raised. The body was read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
