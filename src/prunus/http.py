"""A server that answers JSON with JSON: many requests at once, retries, a time limit, clear errors.

Requests run on one event loop in a thread of its own: a notebook's main thread has a loop already, and a request that
is given up (its time is over, another has failed, Ctrl-C) can be cancelled there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from prunus.errors import ServerError, SettingError, require

if TYPE_CHECKING:
    import httpx

QUOTED = 300  # characters of a server's answer that an error quotes
JITTER = random.SystemRandom()  # draws from no stream that a user has seeded


@dataclass(frozen=True)
class Server:
    """Where a server is, and how patient its client is.

    url: http or https. who: how errors name the client. key: the environment variable that holds the API key, sent as
    a bearer token and never shown; None: no key is sent. time_limit: seconds until a request is answered, retries
    included. retries: how often a request is sent again after 429, 5xx or a broken connection, never after another
    4xx. back_off: seconds before the first retry, doubled for each next, times a number drawn from [0.5, 1]; a
    ``Retry-After`` that is longer is waited for. concurrency: requests at a time.

    Raises SettingError, and ServerError if httpx is not installed.
    """

    url: str = field(repr=False)
    who: str = "client"
    key: str | None = None
    time_limit: float = 60.0
    retries: int = 4
    back_off: float = 0.5
    concurrency: int = 8

    def __post_init__(self) -> None:
        require(_is_url(self.url), "url", _shown(self.url), "an http or https address such as http://127.0.0.1:8000/v1")
        require(self.time_limit > 0, "time_limit", self.time_limit, "seconds above 0")
        require(self.retries >= 0, "retries", self.retries, "at least 0")
        require(self.back_off >= 0, "back_off", self.back_off, "seconds from 0")
        require(self.concurrency >= 1, "concurrency", self.concurrency, "at least 1")
        if self.key is not None and not (self.secret.isascii() and self.secret.isprintable() and self.secret):
            raise SettingError(  # without the value, which may be the key itself
                f"{self.who}: key does not name an environment variable that holds an API key; set the variable and "
                "give its name"
            )
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise ServerError(f"{self.who} needs httpx; pip install 'prunus[servers]'") from error

    @property
    def secret(self) -> str:
        return os.environ.get(self.key, "").strip() if self.key else ""

    @property
    def address(self) -> str:
        """The url without what may be secret."""
        return _shown(self.url)

    def post(self, path: str, bodies: Sequence[dict]) -> list[Any]:
        """What the server answers to each body, in order.

        Raises ServerError for the first that has no answer; the others are then cancelled.
        """
        return self._wait_for(self._post_all(path, bodies, self._post))

    def post_each(self, path: str, bodies: Sequence[dict]) -> list[Any | ServerError]:
        """As ``post``, but a body that has no answer has its error instead; the others go on."""

        async def kept(*request: Any) -> Any | ServerError:
            try:
                return await self._post(*request)
            except ServerError as error:
                return error

        return self._wait_for(self._post_all(path, bodies, kept))

    def _wait_for(self, work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        asked = asyncio.run_coroutine_threadsafe(work, _event_loop(os.getpid()))
        try:
            return asked.result()
        except BaseException:  # Ctrl-C too
            asked.cancel()
            raise

    def error(self, what: str, status: int | None = None) -> ServerError:
        message = f"{self.who}: the server {self.address} {what}"
        error = ServerError(message.replace(self.secret, "***") if self.secret else message)
        error.status = status
        return error

    async def _post_all(self, path: str, bodies: Sequence[dict], post: Callable[..., Awaitable[Any]]) -> list[Any]:
        import httpx

        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        gate = asyncio.Semaphore(self.concurrency)
        async with httpx.AsyncClient(headers=headers, timeout=None, verify=_certificates()) as client:

            async def ask(body: dict) -> Any:
                async with gate:
                    return await post(client, self.url.rstrip("/") + path, body)

            tasks = [asyncio.ensure_future(ask(body)) for body in bodies]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _post(self, client: httpx.AsyncClient, url: str, body: dict) -> Any:
        import httpx

        ends, failure = time.monotonic() + self.time_limit, ""
        for attempt in range(self.retries + 1):
            asked_to_wait, status = 0.0, None
            try:
                response = await asyncio.wait_for(client.post(url, json=body), ends - time.monotonic())
                status = response.status_code
                if status == 200:
                    return self._json(response)
                failure = f"answered {status}: {_quote(response.text)}"
                if status != 429 and status < 500:
                    raise self.error(failure, status)
                asked_to_wait = seconds_to_wait(response.headers.get("Retry-After"))
            except asyncio.TimeoutError:
                before = f"; before that it {failure}" if failure else ""
                raise self.error(
                    f"gave no answer within time_limit = {self.time_limit:g} seconds{before}; raise time_limit, or "
                    "lower concurrency if it is busy"
                ) from None
            except httpx.RequestError as error:
                failure = f"cannot be reached ({error or type(error).__name__})"
            pause = max(asked_to_wait, self.back_off * 2**attempt * JITTER.uniform(0.5, 1))
            if attempt == self.retries:
                tries = f"{attempt + 1} tries" if attempt else "one try"
                raise self.error(f"{failure} (after {tries}); start it, or mend the url", status)
            if time.monotonic() + pause >= ends:
                raise self.error(
                    f"{failure}; trying again in {pause:.3g} seconds would be later than time_limit = "
                    f"{self.time_limit:g} allows", status
                )  # fmt: skip
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _json(self, response: httpx.Response) -> Any:
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            raise self.error(f"answered what is not JSON: {_quote(response.text)}", 200) from None


def seconds_to_wait(retry_after: str | None) -> float:
    """The header ``Retry-After``, which is a number of seconds or a date; 0 if it is absent or neither."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(retry_after)).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: reading them takes longer than many a request."""
    import httpx

    return httpx.create_ssl_context()


@cache
def _event_loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process (a fork has none of its parent's threads)."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="prunus-servers", daemon=True).start()
    return loop


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _shown(url: str) -> str:
    """A url without name, password and query, any of which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _quote(text: str) -> str:
    words = " ".join(text.split())
    return (words if len(words) <= QUOTED else words[:QUOTED] + "...") or "nothing"
