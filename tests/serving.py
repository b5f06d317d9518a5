"""A server of Prunus on loopback for tests: run in a thread of its own, ended in order."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import httpx
from starlette.responses import JSONResponse
from starlette.routing import Route

from prunus.server.app import body, build, owner, request_id
from prunus.server.running import prepare
from prunus.server.settings import Limits, Settings

KEY, OTHER_KEY, ADMIN = "client-key-0123456789", "other-key-0123456789", "admin-key-0123456789"


class Echo:
    """A part that answers what it was sent; ``pause`` seconds later, unless it is drained before."""

    def __init__(self, pause=0.0, loading=0.0):
        self.pause, self.loading, self.loaded = pause, loading, False
        self.running, self.drained_with, self.finished = 0, None, 0

    def routes(self):
        return [Route("/v1/echo", self.echo, methods=["POST"]), Route("/v1/names", self.names)]

    async def echo(self, request):
        sent = await body(request)
        self.running += 1
        try:
            await asyncio.sleep(self.pause)
            self.finished += 1
        finally:
            self.running -= 1
        return JSONResponse({"sent": sent, "owner": owner(request), "id": request_id(request)})

    async def names(self, request):
        return JSONResponse({"address": request.client.host, "url": str(request.url)})

    def ready(self):
        return self.loaded

    def metrics(self):
        return []

    async def start(self):
        await asyncio.sleep(self.loading)
        self.loaded = True

    async def drain(self, seconds):
        self.drained_with = seconds
        ends = time.monotonic() + seconds
        while self.running and time.monotonic() < ends:
            await asyncio.sleep(0.01)


class Running:
    """A server that answers: ``url``, ``port``, ``app`` and a client."""

    def __init__(self, app, server):
        self.app, self.server, self.url = app, server, server.url
        self.port = int(self.url.rpartition(":")[2])
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.error = None
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.thread.start()

    def _run(self):
        try:
            self.server.run(sockets=[self.server.listener])
        except Exception as error:
            self.error = error

    def get(self, path, key=None, **more):
        return self.client.get(path, headers=bearer(key), **more)

    def post(self, path, sent, key=None, **more):
        return self.client.post(path, json=sent, headers=bearer(key), **more)

    def raw(self, *pieces, pause=0.0, seconds=20):
        """What is answered to these bytes until the server closes; and how long that took."""
        began, got = time.monotonic(), b""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    break
                time.sleep(pause)
            try:
                while chunk := connection.recv(65536):
                    got += chunk
            except ConnectionError:
                pass
        return got, time.monotonic() - began

    def end(self):
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def bearer(key):
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@contextmanager
def serving(*parts, limits=None, wait=True, **settings):
    """Serve these parts at a free port of loopback; ``limits`` are the fields of ``Limits`` that differ."""
    settings = Settings(port=0, limits=Limits(**(limits or {})), **settings)
    app = build(settings, parts)
    running = Running(app, prepare(app, settings))
    try:
        ends = time.monotonic() + 60
        while wait and running.get("/ready").status_code != 200:
            assert time.monotonic() < ends and running.thread.is_alive()
            time.sleep(0.02)
        yield running
    finally:
        running.client.close()
        running.end()
