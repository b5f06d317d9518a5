"""What every request passes: keys, hosts, ids, body, errors, readiness, quotas, the log."""

import asyncio
import json
import logging
import threading
import time

import httpx
import pytest
from serving import ADMIN, KEY, OTHER_KEY, Echo, bearer, serving
from starlette.routing import Route

from prunus.errors import ModelError, PromptError, SearchError, ServerError
from prunus.server import logs
from prunus.server.app import access, body, while_connected
from prunus.server.errors import Refusal
from prunus.server.keys import COOKIE, owner_of


class Failing(Echo):
    """Raises what it is asked for."""

    errors = {
        "refusal": Refusal(418, "no tea", param="tea", code="no_tea", retry_after=1.2),
        "prompt": PromptError("the prompt is too long"),
        "model": ModelError("/secret/folder is broken"),
        "search": SearchError("a secret prompt failed"),
        "server": ServerError("http://secret answered 500"),
        "bug": ZeroDivisionError("a secret number"),
    }

    def routes(self):
        return [Route("/v1/fail/{name}", self.fail), Route("/v1/fail", self.fail_late, methods=["POST"])]

    async def fail(self, request):
        raise self.errors[request.path_params["name"]]

    async def fail_late(self, request):
        await body(request)
        raise ValueError("the client wrote: my secret prompt")


@pytest.fixture(scope="module")
def server():
    with serving(Echo(), Failing(), keys=(KEY, OTHER_KEY), admin_key=ADMIN, limits={"body_bytes": 5000}) as running:
        yield running


def code(response):
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert response.headers["X-Request-Id"]
    return response.status_code, error["code"]


def until(true, seconds=30):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_clients_need_a_key_and_are_known_by_an_id_that_is_not_it(server):
    for headers in ({}, bearer("wrong"), bearer(ADMIN), bearer(KEY[:-1]), {"Authorization": f"Basic {KEY}"}):
        refused = server.client.post("/v1/echo", json={}, headers=headers)
        assert code(refused) == (401, "invalid_api_key")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    first, second = (server.post("/v1/echo", {}, key).json()["owner"] for key in (KEY, OTHER_KEY))
    assert first == owner_of(KEY) != second and KEY not in first


def test_a_key_is_asked_for_before_anything_else_is_looked_at(server):
    assert code(server.client.post("/v1/echo", content=b"[" * 100_000)) == (401, "invalid_api_key")


def test_metrics_need_the_admin_key(server):
    assert code(server.get("/metrics", KEY)) == (401, "invalid_api_key")
    text = server.get("/metrics", ADMIN).text
    assert 'prunus_requests_total{route="/metrics",status="401"} 1\n' in text
    assert "prunus_connections 1\n" in text and 'le="+Inf"' in text


def test_a_session_of_the_admin_stands_for_the_key_until_it_is_closed(server):
    keys = server.app.state.keys
    cookie = {"Cookie": f"{COOKIE}={keys.open_session()}"}
    assert server.client.get("/metrics", headers=cookie).status_code == 200
    assert server.client.get("/metrics", headers={"Cookie": f"{COOKIE}=other"}).status_code == 401
    assert server.client.post("/v1/echo", json={}, headers=cookie).status_code == 401


def test_without_an_admin_key_metrics_are_closed():
    with serving(Echo()) as running:
        assert code(running.get("/metrics")) == (403, "no_admin_key")
        assert running.post("/v1/echo", {"a": 1}).json()["owner"] == ""


# ---- hosts, ids, routes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:99", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("llm.example.com:443", 200),
     ("evil.example", 400), ("localhost.evil.example", 400), ("", 400), ("[::2]", 400)],
)  # fmt: skip
def test_answers_only_to_the_names_that_are_allowed(host, status):
    with serving(Echo(), hosts=("llm.example.com",)) as running:
        answer = running.client.post("/v1/echo", json={}, headers={"Host": host})
        assert answer.status_code == status
        if status == 400:
            assert code(answer) == (400, "unknown_host")
        assert running.client.get("/health", headers={"Host": host}).status_code == 200


def test_every_answer_has_a_request_id_the_clients_own_if_it_may_be_one(server):
    mine = {"X-Request-Id": "job-7.a_b", **bearer(KEY)}
    answer = server.client.post("/v1/echo", json={}, headers=mine)
    assert answer.headers["X-Request-Id"] == answer.json()["id"] == "job-7.a_b"
    for bad in ("a b", "x" * 65, "<script>", "a\tb"):
        given = server.client.post("/v1/echo", json={}, headers={**mine, "X-Request-Id": bad}).headers["X-Request-Id"]
        assert given.startswith("req-") and len(given) == 36


def test_other_origins_get_no_leave_to_read(server):
    said = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.client.options("/v1/echo", headers=said)
    assert code(answer) == (405, "no_such_route")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_routes_that_do_not_exist(server):
    assert code(server.get("/v1/nothing", KEY)) == (404, "no_such_route")
    assert code(server.post("/v1/echo/", {}, KEY)) == (404, "no_such_route")  # and no redirect
    refused = server.get("/v1/echo", KEY)
    assert code(refused) == (405, "no_such_route") and refused.headers["Allow"] == "POST"


# ---- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/json; charset=latin-1"],
)
def test_takes_json_by_its_content_type_only(server, kind):
    sent = server.client.post("/v1/echo", content=b"{}", headers={**bearer(KEY), "Content-Type": kind})
    assert code(sent) == (415, "unsupported_media_type")


def test_takes_json_in_utf_8(server):
    kind = {**bearer(KEY), "Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert server.client.post("/v1/echo", content='{"a":"é🌳"}'.encode(), headers=kind).json()["sent"] == {"a": "é🌳"}
    packed = {**bearer(KEY), "Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert code(server.client.post("/v1/echo", content=b"{}", headers=packed)) == (415, "unsupported_media_type")


@pytest.mark.parametrize("told", [True, False])
def test_a_huge_body_is_refused_however_it_is_sent(server, told):
    def parts():
        for _ in range(30):
            yield b" " * 1000

    content = b" " * 30_000 if told else parts()
    kind = {**bearer(KEY), "Content-Type": "application/json"}
    assert code(server.client.post("/v1/echo", content=content, headers=kind)) == (413, "body_too_large")
    assert server.post("/v1/echo", {"a": "x" * 4900}, KEY).status_code == 200


def test_a_body_without_end_is_cut(server):
    head = "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {KEY}\r\nContent-Length: 1000000000000\r\n"
    answer, _ = server.raw(f"{head}\r\n".encode(), b" " * 200_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")  # closed while the client still sends: it may be lost
    asked, seconds = server.raw(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert asked.startswith(b"HTTP/1.1 413") and seconds < 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"a": 1, "a": 2}', "field a twice"),
        (b'{"p": {"b": 1, "c": 2, "b": 3}}', "field b twice"),
        (b'{"a": NaN}', "number NaN"),
        (b'{"a": -Infinity}', "number -Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1%s}' % (b"0" * 4500), "more than 64 bits"),
        (b'{"a": 9223372036854775808}', "more than 64 bits"),
        (b'{"a": 0.%s}' % (b"1" * 4000), "longer than"),
        (b'{"a": %s}' % (b"[" * 2400 + b"]" * 2400), "nested more than"),
        (b'{"a": %s' % (b'{"a":' * 900), "nested more than"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b'{"\\udc00": 1}', "half a character"),
        (b'{"a": [{"b": "x\\udfff\\ud800"}]}', "half a character"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": "line\nbreak"}', "not JSON"),
    ],
)
def test_hostile_json_is_a_400_that_says_what_is_wrong(server, content, says):
    kind = {**bearer(KEY), "Content-Type": "application/json"}
    answer = server.client.post("/v1/echo", content=content, headers=kind)
    assert code(answer) == (400, "invalid_json") and says in answer.json()["error"]["message"]


def test_what_looks_hostile_and_is_not_is_taken(server):
    sent = {"a": "[[[[" * 100, "b": '"\\"[', "c": "\U0001f333", "d": [[[]]] * 50, "e": 2**63 - 1, "f": 0.1 + 0.2}
    assert server.post("/v1/echo", sent, KEY).json()["sent"] == sent
    kind = {**bearer(KEY), "Content-Type": "application/json"}
    whole = server.client.post("/v1/echo", content=b'{"a": "\\ud83c\\udf33"}', headers=kind)
    assert whole.json()["sent"] == {"a": "\U0001f333"}


# ---- errors, the log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "kind", "said"),
    [
        ("refusal", 418, "invalid_request_error", "no tea"),
        ("prompt", 400, "invalid_request_error", "the prompt is too long"),
        ("model", 500, "server_error", "failed"),
        ("search", 500, "server_error", "failed"),
        ("server", 502, "server_error", "did not answer"),
        ("bug", 500, "server_error", "failed"),
    ],
)
def test_errors_have_one_shape_and_tell_no_secrets(server, name, status, kind, said):
    answer = server.get(f"/v1/fail/{name}", KEY)
    assert code(answer)[0] == status
    assert answer.json()["error"]["type"] == kind and said in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert answer.headers.get("Retry-After") == ("2" if name == "refusal" else None)


def test_the_log_has_each_request_and_neither_prompts_nor_keys(server, caplog):
    logs.LOGGER.propagate = True
    with caplog.at_level(logging.INFO, "prunus.server"):
        server.client.post(
            "/v1/fail", json={"prompt": "my secret prompt"}, headers={**bearer(KEY), "X-Request-Id": "r1"}
        )
        server.client.post(
            "/v1/echo?prompt=secret", json={}, headers={**bearer("a secret guess"), "X-Request-Id": "r2"}
        )
        time.sleep(0.1)
    text = "\n".join(logs.JSONLines().format(record) for record in caplog.records)
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    first, second = lines["r1"], lines["r2"]
    told = [[line[name] for name in ("request_id", "route", "status", "key")] for line in (first, second)]
    assert told == [["r1", "/v1/fail", 500, owner_of(KEY)], ["r2", "/v1/echo", 401, ""]]
    assert first["error"] == "ValueError" and any("fail_late" in at for at in first["at"]) and first["level"] == "error"
    assert first["seconds"] >= 0 and first["address"] == "127.0.0.1"
    assert "secret" not in text and KEY not in text


# ---- readiness, draining, quotas, clients that leave -----------------------------------------------------------------


def test_is_alive_while_it_loads_and_ready_only_afterwards():
    with serving(Echo(loading=3.0), wait=False) as running:
        assert running.get("/health").json() == {"status": "alive"}
        loading = running.get("/ready")
        assert (loading.status_code, loading.json(), loading.headers["Retry-After"]) == (
            503,
            {"status": "loading"},
            "5",
        )
        assert code(running.post("/v1/echo", {})) == (503, "loading")
        until(lambda: running.get("/ready").json() == {"status": "ready"})
        assert running.post("/v1/echo", {}).status_code == 200


def test_a_part_that_cannot_start_ends_the_server_with_its_error():
    class Broken(Echo):
        async def start(self):
            raise ModelError("no such folder")

    with serving(Broken(), wait=False) as running:
        running.thread.join(10)
        assert not running.thread.is_alive()
        assert isinstance(running.app.state.life.failure, ModelError)


def test_draining_finishes_what_runs_and_refuses_what_is_new():
    part = Echo(pause=3.0)
    with serving(part, limits={"drain_seconds": 7}) as running, httpx.Client(base_url=running.url) as other:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(running.post("/v1/echo", {"a": 1})))
        asking.start()
        until(lambda: part.running)
        running.server.should_exit = True
        until(lambda: other.get("/ready").json() == {"status": "draining"})
        assert other.get("/health").status_code == 200
        refused = other.post("/v1/echo", json={})
        assert code(refused) == (503, "draining") and refused.headers["Retry-After"] == "5"
        asking.join(10)
        assert answers[0].json()["sent"] == {"a": 1} and part.drained_with == 7
        running.thread.join(10)
        assert not running.thread.is_alive()
        with pytest.raises(httpx.ConnectError):
            httpx.get(running.url + "/health")


def test_a_key_has_so_many_requests_a_minute():
    with serving(Echo(), keys=(KEY, OTHER_KEY), limits={"requests_per_minute": 3}) as running:
        answers = [running.post("/v1/echo", {}, KEY) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        assert code(answers[3]) == (429, "quota_exceeded") and 1 <= int(answers[3].headers["Retry-After"]) <= 20
        assert running.post("/v1/echo", {}, OTHER_KEY).status_code == 200


def test_work_ends_when_its_client_leaves():
    class Patient(Echo):
        async def echo(self, request):
            await body(request)
            self.running += 1
            try:
                return await while_connected(request, asyncio.sleep(30))
            finally:
                self.running -= 1

    part = Patient()
    with serving(part) as running:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(running.url + "/v1/echo", json={}, timeout=1.5)
        until(lambda: ("/v1/echo", "499") in running.app.state.traffic.counts)
        assert part.running == 0


def test_who_may_call_is_said_at_the_endpoint():
    class Open(Echo):
        def routes(self):
            return [Route("/open", self.open), Route("/shut", self.shut)]

        @access("anyone")
        async def open(self, request):
            return await self.names(request)

        @access("admin")
        async def shut(self, request):
            return await self.names(request)

    with serving(Open(), keys=(KEY,), admin_key=ADMIN) as running:
        assert running.get("/open").status_code == 200
        assert [running.get("/shut", key).status_code for key in (None, KEY, ADMIN)] == [401, 401, 200]
