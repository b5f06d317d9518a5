"""Real web servers on loopback for tests: one whose answers a test decides, and a port where nothing listens."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prunus.testing import ScriptedGenerator


@dataclass
class Answer:
    """``body`` is sent as JSON, or as it is if it is bytes."""

    body: object
    status: int = 200
    headers: dict = field(default_factory=dict)


@dataclass
class Site:
    """A running server. ``answer(body) -> Answer | object`` may be replaced at any time; ``seen`` are the requests."""

    url: str
    answer: object
    seen: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    busy: int = 0
    busiest: int = 0


@contextmanager
def serve(answer):
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                site.seen.append(body)
                site.headers.append(dict(self.headers))
                site.busy += 1
                site.busiest = max(site.busiest, site.busy)
            given = site.answer(body)
            with lock:
                site.busy -= 1
            given = given if isinstance(given, Answer) else Answer(given)
            content = given.body if isinstance(given.body, bytes) else json.dumps(given.body).encode()
            try:
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has given up

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    site = Site(f"http://127.0.0.1:{server.server_port}", answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def closed_port():
    """A port of loopback on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=30):
    ends = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)


class Grey(ScriptedGenerator):
    """The scripted generator, whose units are shown as grey frames: each number is a frame's brightness."""

    def render(self, nodes, view):
        import torch

        rows = super().render(nodes, view)
        return [torch.tensor(row)[:, None, None, None].expand(-1, 3, 8, 8) for row in rows]
