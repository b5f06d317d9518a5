"""The HTTP layer below the application: how many connections, and how long a client may take over each part of one.

uvicorn's own protocol with three clocks added: from a connection (or the first byte of its next request) to the end of
the headers, from there to the end of the body, and while a client takes nothing of what is sent to it. They run on
whatever arrives meanwhile, so that a client that sends a byte now and then is not kept for ever.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from prunus.server.errors import Refusal
from prunus.server.logs import log
from prunus.server.metrics import Metric
from prunus.server.settings import Limits


class Doorkeeper:
    """The open connections of each address, and how many were refused or ended."""

    def __init__(self, limits: Limits, proxies: Sequence[str] = ()) -> None:
        self.limits, self.proxies = limits, {block(proxy) for proxy in proxies}
        self.open: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def enter(self, address: str) -> Refusal | None:
        """Let a connection in, or say why not."""
        address = block(address)
        most = self.limits.connections_per_address
        if self.open.total() >= self.limits.connections:
            return Refusal(503, "the server has too many connections", code="too_many_connections", retry_after=5)
        if self.open[address] >= most and address not in self.proxies:
            message = f"your address has {most} connections, which is the most; close one or use it again"
            return Refusal(429, message, code="too_many_connections", retry_after=5)
        self.open[address] += 1
        return None

    def leave(self, address: str) -> None:
        address = block(address)
        self.open[address] -= 1
        if not self.open[address]:
            del self.open[address]

    def metrics(self) -> Iterable[Metric]:
        yield Metric("prunus_connections", "gauge", "Open connections.", [({}, self.open.total())])
        yield Metric(
            "prunus_connections_ended_total", "counter", "Connections that the server refused or ended, by reason.",
            [({"reason": reason}, count) for reason, count in self.ended.items()],
        )  # fmt: skip


def block(address: str) -> str:
    """Whom an address belongs to: of IPv6 a client has a whole network of 2^64."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))


class BoundedProtocol(H11Protocol):
    """A connection that is ended when it takes too long."""

    def __init__(self, *given: Any, doorkeeper: Doorkeeper, **named: Any) -> None:
        super().__init__(*given, **named)
        self.doorkeeper, self.limits = doorkeeper, doorkeeper.limits
        self.address: str | None = None  # of a connection that was let in
        self.reading: asyncio.TimerHandle | None = None
        self.writing: asyncio.TimerHandle | None = None
        self.watched: Any = None  # the state of the client that ``reading`` is the clock of
        self.heard = False

    # ---- connections -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if refused := self.doorkeeper.enter(address):
            self._refuse(refused)
            return
        self.address = address
        self.reading = self._after(self.limits.header_seconds, self._slow_headers)
        self.watched = h11.IDLE

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading()
        self._stop_writing()
        if self.address is not None:
            self.doorkeeper.leave(self.address)
            self.address = None
        super().connection_lost(exc)

    # ---- what the client sends ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.heard = True
        if self.reading is None and self.conn.their_state is h11.IDLE:
            self.reading = self._after(self.limits.header_seconds, self._slow_headers)
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        state = self.conn.their_state
        if state is self.watched:
            return
        self.watched = state
        self._stop_reading()
        if state is h11.SEND_BODY:
            self.reading = self._after(self.limits.body_seconds, self._slow_body)
        elif state is h11.IDLE and self.conn.trailing_data[0]:
            self.reading = self._after(self.limits.header_seconds, self._slow_headers)

    def _slow_headers(self) -> None:
        self.reading = None
        if not self.heard:  # browsers connect in advance
            self.transport.close()
            return
        seconds = self.limits.header_seconds
        self._refuse(Refusal(408, f"the headers did not arrive within {seconds:g} seconds", code="slow_headers"))

    def _slow_body(self) -> None:
        self.reading = None
        started = self.cycle.response_started
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if started:
            self._end("slow_body")
            return
        seconds = self.limits.body_seconds
        self._refuse(Refusal(408, f"the body did not arrive within {seconds:g} seconds", code="slow_body"))

    # ---- what it is sent ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def _watch_writing(self) -> None:
        self._stop_writing()
        self.writing = self._after(self.limits.body_seconds, self._slow_reader)

    def _slow_reader(self) -> None:
        self.writing = None
        if self.transport.get_write_buffer_size():
            self._end("slow_reader")
            self.transport.abort()

    # ---- refusing ----------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refusal(400, "this is not HTTP as it must be", code="invalid_http"))

    def _refuse(self, refused: Refusal) -> None:
        """Answer what never reached the application, and close."""
        response = refused.response()
        headers = [(k, v) for k, v in response.raw_headers if k.lower() != b"connection"] + [(b"connection", b"close")]
        try:
            for event in (
                h11.Response(status_code=refused.status, headers=headers),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # an answer is on its way already
        self._end(refused.code or "")

    def _end(self, reason: str) -> None:
        self.doorkeeper.ended[reason] += 1
        log("connection ended", reason=reason, address=self.client[0] if self.client else "")
        self.transport.close()

    def _after(self, seconds: float, what: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, what)

    def _stop_reading(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            self.reading = None

    def _stop_writing(self) -> None:
        if self.writing is not None:
            self.writing.cancel()
            self.writing = None
