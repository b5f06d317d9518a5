"""Running the application until a signal, and then ending it in order.

After SIGTERM or Ctrl-C the server still listens: ``/ready`` and new requests are answered by 503, so that a balancer
turns to another, while what runs is finished. Then connections are closed. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from functools import partial

import uvicorn
from starlette.applications import Starlette

from prunus.errors import SettingError
from prunus.server.app import Life
from prunus.server.connections import BoundedProtocol, Doorkeeper
from prunus.server.logs import log
from prunus.server.settings import Settings

KEEP_ALIVE = 75  # seconds; longer than balancers and clients keep an idle connection, so that they close it
FLUSHED = 5  # seconds for answers that are finished to be sent
SAVED = 15.0  # seconds that parts may take, after their time, to save what did not finish


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which lets the parts finish before it closes connections."""

    def __init__(self, config: uvicorn.Config, life: Life, seconds: float, listener: socket.socket) -> None:
        super().__init__(config)
        self.life, self.seconds, self.listener = life, seconds, listener
        address, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{port}"

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.life.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log("draining", seconds=self.seconds)
        draining = asyncio.ensure_future(self.life.drain(self.seconds))
        ends = asyncio.get_running_loop().time() + self.seconds + SAVED
        while not (draining.done() or self.force_exit) and asyncio.get_running_loop().time() < ends:
            await asyncio.wait((draining,), timeout=0.1)
        await super().shutdown(sockets)
        log("ended")


def prepare(app: Starlette, settings: Settings) -> DrainingServer:
    """A server that listens already and answers when it is run. Raises SettingError if it cannot listen."""
    listener = listen(settings.host, settings.port)
    doorkeeper = Doorkeeper(settings.limits, settings.proxies)
    app.state.sources.append(doorkeeper)
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, doorkeeper=doorkeeper),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        root_path=settings.root_path,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=FLUSHED,
    )
    return DrainingServer(config, app.state.life, settings.limits.drain_seconds, listener)


def run(server: DrainingServer) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises what a part raised while it was loading."""
    log("listening", url=server.url)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if main:  # uvicorn raises the signal again when all is done, which then is no failure
            signal.signal(signal.SIGTERM, lambda *_: None)
        server.run(sockets=[server.listener])
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
    if server.life.failure is not None:
        raise server.life.failure


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
        # Connections inherit it: asyncio sets it only where the protocol is named, and without it the body of an answer
        # waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise SettingError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None
