"""The HTTP layer, by raw sockets: slow headers, slow bodies, slow readers, connections of an address."""

import json
import socket
import time

import pytest
from serving import Echo, serving
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from prunus.server.connections import block

QUICK = {"header_seconds": 0.6, "body_seconds": 0.8}
HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Large(Echo):
    def routes(self):
        return [*super().routes(), Route("/large", self.large)]

    async def large(self, request):
        return PlainTextResponse(b"x" * 50_000_000)


@pytest.fixture(scope="module")
def server():
    with serving(Large(), limits={**QUICK, "connections_per_address": 6}) as running:
        yield running


def error(answer):
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(content)["error"]["code"]


def dripped(content, seconds):
    """A byte at a time for so long: never idle."""
    return [content[i : i + 1] for i in range(int(seconds / 0.05))]


def test_headers_that_drip_in_are_ended_at_their_time(server):
    answer, seconds = server.raw(*dripped(HEAD, 2), pause=0.05)
    assert error(answer) == (408, "slow_headers")
    assert 0.6 <= seconds < 3


def test_a_connection_that_says_nothing_is_closed_without_a_word(server):
    answer, seconds = server.raw()
    assert answer == b"" and 0.55 <= seconds < 2


def test_a_body_that_drips_in_is_ended_at_its_time_and_never_reaches_the_part(server):
    before = server.app.state.life.parts[0].finished
    answer, seconds = server.raw(HEAD + b"Content-Length: 1000\r\n\r\n", *dripped(b"{" + b" " * 99, 2), pause=0.05)
    assert error(answer) == (408, "slow_body")
    assert 0.8 <= seconds < 3
    assert server.app.state.life.parts[0].finished == before


def test_the_second_request_of_a_connection_has_the_same_clocks(server):
    answer, _ = server.raw(GET, *dripped(HEAD, 2), pause=0.05)
    first, _, second = answer.partition(b'{"status":"alive"}')
    assert first.startswith(b"HTTP/1.1 200") and error(second) == (408, "slow_headers")


def test_pipelined_requests_are_answered_in_order_and_the_rest_is_timed(server):
    answer, seconds = server.raw(GET + GET + HEAD[:20])
    assert answer.count(b"HTTP/1.1 200") == 2 and answer.count(b"slow_headers") == 1
    assert 0.6 <= seconds < 2


def test_a_quiet_connection_between_requests_is_kept(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(1.0)  # longer than headers may take


def test_a_client_that_takes_nothing_of_its_answer_is_given_up(server):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2.0)
        got = 0
        with pytest.raises(ConnectionError):
            while chunk := connection.recv(1_000_000):
                got += len(chunk)
            raise ConnectionError  # closed before all was sent
        assert got < 50_000_000


def test_an_address_has_so_many_connections_at_a_time(server):
    time.sleep(0.1)
    server.client.close()
    open_ones = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
    try:
        answer, _ = server.raw(GET)
        assert error(answer) == (429, "too_many_connections") and b"retry-after: 5" in answer.lower()
        for connection in open_ones:  # those that were let in are served
            connection.sendall(GET)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        for connection in open_ones:
            connection.close()
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(GET)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET /health\r\n\r\n\r\n", b"A" * 200_000])
def test_what_is_not_http_is_refused(server, rubbish):
    answer, seconds = server.raw(rubbish + b"\r\n\r\n")
    assert error(answer) == (400, "invalid_http") and seconds < 3


def test_a_trusted_proxy_has_as_many_connections_as_it_needs_and_its_word_is_believed():
    with serving(Echo(), limits={"connections_per_address": 1}, proxies=("127.0.0.1",), root_path="/prunus") as running:
        open_ones = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(4)]
        said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Host": "localhost"}
        told = running.client.get("/v1/names", headers=said).json()
        assert told == {"address": "203.0.113.9", "url": "https://localhost/prunus/v1/names"}
        for connection in open_ones:
            connection.close()


def test_the_word_of_others_is_not_believed():
    with serving(Echo()) as running:
        said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        assert running.client.get("/v1/names", headers=said).json()["address"] == "127.0.0.1"


def test_a_network_of_ipv6_is_one_address():
    assert block("2001:db8:1:2::7") == block("2001:db8:1:2:ffff::9%eth0") != block("2001:db8:1:3::7")
    assert block("192.0.2.7") == "192.0.2.7"


def test_listens_at_ipv6():
    with serving(Echo(), host="::1") as running:
        assert running.url.startswith("http://[::1]:") and running.get("/v1/names").json()["address"] == "::1"


def test_so_many_connections_at_a_time_in_all():
    with serving(Echo(), limits={"connections": 3}) as running:
        open_ones = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
        time.sleep(0.1)
        answer, _ = running.raw(GET)
        assert error(answer) == (503, "too_many_connections")
        for connection in open_ones:
            connection.close()


def test_answers_do_not_wait_for_acknowledgements():
    """A head and a body are two writes: with Nagle's algorithm the second waits 40 ms on a connection that is kept."""
    with serving(Echo()) as server:
        took = []
        for _ in range(20):
            began = time.monotonic()
            server.get("/v1/names")
            took.append(time.monotonic() - began)
        assert sorted(took)[10] < 0.035
