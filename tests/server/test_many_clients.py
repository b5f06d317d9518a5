"""Fifty clients at once, against ``prunus serve`` in a process of its own: for a few seconds, or ``--soak 60``."""

import asyncio
import importlib.util
import json
import re
import sys
import time
from pathlib import Path

import httpx
import pytest
from server_searches import writer

from prunus import search
from prunus.roles import FunctionReward
from prunus.strategies import Beam, BestOfN
from prunus.worlds import arithmetic

CLIENTS = 50
FILE = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"
TOKENS = 48
STRATEGIES = {
    "pocket-lm": BestOfN(n=1, reward="none"),
    "pocket-lm@beam-2x2": Beam(keep=2, branch=2, reward="liking"),
    "pocket-lm@best-of-4": BestOfN(n=4, reward="liking"),
}


@pytest.fixture(scope="module")
def load():
    spec = importlib.util.spec_from_file_location("serve_load", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_load"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(load):
    """What the searches offline answer, by (model, prompt, seed)."""
    answers, generator = {}, writer(max_tokens=TOKENS)
    for i, (model, strategy) in enumerate(STRATEGIES.items()):
        for seed in range(3):
            prompt = arithmetic.split("dev", 2)[3 * i + seed]
            reward = FunctionReward(load.liking, strategy.reward)
            answers[model, prompt, seed] = str(search(prompt, generator, reward, strategy, seed=seed).best().output)
    return answers


@pytest.fixture(scope="module")
def server(load):
    limits = {"searches": 12, "queue": 24, "connections_per_address": 200}
    with load.server("beam-2x2,best-of-4,best-of-16", TOKENS, limits) as running:
        yield running


def asked(model, prompt, seed, **more):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "seed": seed, **more}


def megabytes(process):
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


async def numbers(http, admin):
    text = (await http.get("/metrics", headers={"Authorization": f"Bearer {admin}"})).text
    return {n: float(v) for n, v in (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")}


def client_of(address):
    return httpx.AsyncClient(base_url=address, timeout=120, limits=httpx.Limits(max_connections=None))


def test_fifty_clients_at_a_time(server, expected, pytestconfig):
    """All that is sent is answered, as offline, or refused with a time to come back; the server does not grow."""
    address, admin, process = server
    seconds, wanted = pytestconfig.getoption("--soak"), list(expected)
    sent = answered = refused = streamed = 0
    wrong = []

    async def client(http, index, ends):
        nonlocal sent, answered, refused, streamed
        turn = index
        while time.monotonic() < ends:
            key = wanted[turn % len(wanted)]
            turn, sent = turn + 7, sent + 1
            body = asked(*key, stream=turn % 3 == 0)
            answer = await http.post("/v1/chat/completions", json=body)
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) >= 1 and answer.json()["error"]["code"] == "queue_full"
                refused += 1
                await asyncio.sleep(0.2)  # an impatient one
                continue
            assert answer.status_code == 200, answer.text
            text = said(answer) if body["stream"] else answer.json()["choices"][0]["message"]["content"]
            answered, streamed = answered + 1, streamed + body["stream"]
            if text != expected[key]:
                wrong.append((key, text))

    async def all_clients():
        async with client_of(address) as http:
            ends = time.monotonic() + seconds
            clients = [asyncio.ensure_future(client(http, i, ends)) for i in range(CLIENTS)]
            await asyncio.sleep(0.4 * seconds)
            before = megabytes(process)
            await asyncio.gather(*clients)
            return before, megabytes(process), await numbers(http, admin)

    before, after, told = asyncio.run(all_clients())
    counts = f"{sent} sent, {answered} answered ({streamed} streamed), {refused} refused"
    print(f"\n{counts}; {before:.0f} MB, at the end {after:.0f} MB")
    assert wrong == []
    assert answered + refused == sent and answered >= CLIENTS // 5 and streamed
    assert told['prunus_searches_total{end="finished"}'] == answered
    assert told["prunus_states"] == told["prunus_searches_waiting"] == told["prunus_searches_running"] == 0
    assert told["prunus_model_rows_total"] / told["prunus_model_calls_total"] > 4  # more than a search alone has
    assert after < before + 32


def said(answer):
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert answer.text.endswith("data: [DONE]\n\n")
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def test_half_of_them_hang_up(server, expected):
    """Their searches end and hold nothing: within ten seconds there is no state and nothing waits."""
    address, admin, _ = server
    short = [key for key in expected if key[0] == "pocket-lm"]
    long = asked("pocket-lm@best-of-16", "*".join(["(1+2-3+4)"] * 30) + "=?", 0)

    async def run():
        async with client_of(address) as http:
            before = await numbers(http, admin)
            going = [asyncio.ensure_future(http.post("/v1/chat/completions", json={**long, "stream": i % 2 == 0}))
                     for i in range(CLIENTS // 2)]  # fmt: skip
            staying = [
                http.post("/v1/chat/completions", json=asked(*short[i % len(short)])) for i in range(CLIENTS // 2)
            ]
            staying = [asyncio.ensure_future(one) for one in staying]
            while not (await numbers(http, admin))["prunus_states"]:
                await asyncio.sleep(0.05)
            for one in going:
                one.cancel()
            gone = time.monotonic()
            answers = await asyncio.gather(*staying)
            while True:
                now = await numbers(http, admin)
                left = [now[f"prunus_{name}"] for name in ("states", "searches_waiting", "searches_running")]
                if not any(left):
                    return answers, time.monotonic() - gone, now, before
                assert time.monotonic() - gone < 10, left
                await asyncio.sleep(0.05)

    answers, took, now, before = asyncio.run(run())
    print(f"\nnothing was held {took:.2f} seconds after half had hung up")
    assert {a.status_code for a in answers} <= {200, 429} and took < 10
    assert all(a.json()["choices"] for a in answers if a.status_code == 200)
    assert now['prunus_searches_total{end="cancelled"}'] > before['prunus_searches_total{end="cancelled"}']
