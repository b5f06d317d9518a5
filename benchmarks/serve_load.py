"""What ``prunus serve`` bears: requests a second, waiting times and tokens a second, at 1, 8 and 50 clients.

    python benchmarks/serve_load.py                       # 15 seconds each, beam-4x4 over the packaged model
    python benchmarks/serve_load.py --strategy best-of-8 --seconds 30
    python benchmarks/serve_load.py --smoke               # a few seconds in all: for CI

The server is a process of its own on loopback. Clients ask for solutions of problems of the arithmetic world, one
after another without a pause; one that is refused waits as long as ``Retry-After`` says. The same load is then put on a
server that runs one search at a time: what all clients get from it against what they get where searches share their
calls is the gain of batching. Candidates are ranked by a function that takes no time, so that what is measured is the
server and the model. p50 and p99 are of the requests that were answered within the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from prunus import pocket
from prunus.tree import seed_of
from prunus.worlds import arithmetic

MOST_SECONDS = 600


def liking(text: str, prompt: str) -> float:
    """What a verifier might say; it takes no time."""
    return seed_of(str(text)) / 2**63


@dataclass(frozen=True)
class Load:
    """What a number of clients got within ``seconds``. ``batch``: candidates in a call of the model. ``busy``: the
    share of the time in which models were called; the rest is the server's own, or waiting for clients.
    """

    clients: int
    seconds: float
    answered: int
    refused: int
    requests_per_second: float
    p50: float
    p99: float
    tokens_per_second: float
    batch: float
    busy: float


@contextmanager
def server(strategy: str, tokens: int, limits: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    """(address, admin key, process id) of a server that is ready."""
    admin, here = secrets.token_hex(16), Path(__file__).parent
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PRUNUS_ADMIN_KEY": admin, "PYTHONPATH": path}
    options = [f"--limit={name}={value}" for name, value in limits.items()]
    options += ["--reward", f"liking={Path(__file__).stem}:liking", "--strategy", strategy]
    options += ["--max-tokens", str(tokens), "--port", "0", f"pocket-lm={pocket.path('lm')}"]
    command = [sys.executable, "-m", "prunus", "serve", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+?:\d+", line):
                break
        else:
            raise SystemExit("the server did not start")
        ends = time.monotonic() + 120
        while httpx.get(f"{found[0]}/ready").status_code != 200:
            if time.monotonic() > ends or process.poll() is not None:
                raise SystemExit("the server did not become ready")
            time.sleep(0.1)
        yield found[0], admin, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def load(
    address: str, admin: str, strategy: str, clients: int, seconds: float, tokens: int, turns: int = 10**6
) -> Load:
    """Put a load on a server, at most ``turns`` requests of each client, and count what comes back."""
    problems = arithmetic.split("dev", 4)
    bounds = httpx.Limits(max_connections=clients + 1, max_keepalive_connections=clients + 1)
    async with httpx.AsyncClient(base_url=address, timeout=seconds + 120, limits=bounds) as http:

        async def numbers() -> dict[str, float]:
            text = (await http.get("/metrics", headers={"Authorization": f"Bearer {admin}"})).text
            lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
            return {name: float(value) for name, value in lines}

        took: list[float] = []
        refused = 0
        before, began = await numbers(), time.perf_counter()
        ends = began + seconds

        async def client(index: int) -> None:
            nonlocal refused
            for turn in range(turns):
                if (asked := time.perf_counter()) >= ends:
                    return
                number = index * 1009 + turn
                messages = [{"role": "user", "content": problems[number % len(problems)]}]
                sent = {"model": f"pocket-lm@{strategy}", "messages": messages, "seed": number, "max_tokens": tokens}
                answer = await http.post("/v1/chat/completions", json=sent)
                if answer.status_code == 200:
                    if time.perf_counter() <= ends:
                        took.append(time.perf_counter() - asked)
                elif answer.status_code in (429, 503) and "Retry-After" in answer.headers:
                    refused += 1
                    await asyncio.sleep(min(float(answer.headers["Retry-After"]), max(0.0, ends - time.perf_counter())))
                else:
                    raise SystemExit(f"answered {answer.status_code}: {answer.text[:200]}")

        async def all_clients() -> None:
            await asyncio.gather(*(client(i) for i in range(clients)))

        working = asyncio.ensure_future(all_clients())
        await asyncio.wait((working,), timeout=seconds)
        seconds, after = min(seconds, time.perf_counter() - began), await numbers()
        if working.done():
            working.result()
        working.cancel()  # the others hang up
        while (await numbers())["prunus_searches_running"]:
            await asyncio.sleep(0.1)
    written = 'prunus_search_tokens_total{kind="generated"}'
    calls = after["prunus_model_calls_total"] - before["prunus_model_calls_total"]
    rows = after["prunus_model_rows_total"] - before["prunus_model_rows_total"]
    parts = [f'prunus_search_seconds_total{{part="{part}"}}' for part in ("generate", "score")]
    took.sort()
    return Load(
        clients,
        seconds,
        len(took),
        refused,
        len(took) / seconds,
        took[len(took) // 2] if took else float("nan"),
        took[min(len(took) - 1, int(len(took) * 0.99))] if took else float("nan"),
        (after[written] - before[written]) / seconds,
        rows / calls if calls else float("nan"),
        sum(after[part] - before[part] for part in parts) / seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,8,50", help="numbers of clients, with commas")
    parser.add_argument("--seconds", type=float, default=15.0, help=f"for each number, at most {MOST_SECONDS}")
    parser.add_argument("--strategy", default="beam-4x4")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--smoke", action="store_true", help="two requests of each client, at 1 and 4 clients")
    parser.add_argument("--json", action="store_true", help="figures only")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and the server with it
    clients = [1, 4] if given.smoke else [int(n) for n in given.clients.split(",")]
    turns, seconds = (2, 120.0) if given.smoke else (10**6, min(given.seconds, MOST_SECONDS))
    figures: dict[str, list[dict]] = {}
    shared = {"searches": 64, "queue": 64, "connections_per_address": 256}
    for name, limits in (("shared", shared), ("one by one", {**shared, "searches": 1})):
        with server(given.strategy, given.max_tokens, limits) as (address, admin, _):
            common = (address, admin, given.strategy)
            asyncio.run(load(*common, 1, 60.0, given.max_tokens, 1))  # the first request warms up
            figures[name] = [asdict(asyncio.run(load(*common, n, seconds, given.max_tokens, turns))) for n in clients]
    gains = [
        a["requests_per_second"] / b["requests_per_second"] if b["requests_per_second"] else None
        for a, b in zip(figures["shared"], figures["one by one"], strict=True)
    ]
    if given.json or given.smoke:
        print(json.dumps({"strategy": given.strategy, **figures, "gain": gains}))
        return
    print(f"{given.strategy}, at most {given.max_tokens} tokens, {seconds:g} seconds each, {os.cpu_count()} cores\n")
    print("| searches | clients | requests/s | p50 s | p99 s | tokens/s | candidates a call | busy | gain |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, some in figures.items():
        for one, gain in zip(some, gains, strict=True):
            told = f"{gain:.2f}" if name == "shared" and gain else ""
            print(
                f"| {name} | {one['clients']} | {one['requests_per_second']:.2f} | {one['p50']:.2f} | {one['p99']:.2f} "
                f"| {one['tokens_per_second']:.0f} | {one['batch']:.1f} | {one['busy']:.0%} | {told} |"
            )


if __name__ == "__main__":
    main()
