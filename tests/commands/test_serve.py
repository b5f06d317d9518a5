"""``prunus serve`` as a process of its own: what it refuses to start with, rewards for our clients, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from command_line import run
from serving import ADMIN, KEY, bearer
from text_folders import write_folder

from prunus import Tree, search
from prunus.commands.serve import named
from prunus.commands.text_methods import text_reward
from prunus.errors import SettingError
from prunus.generators.written import Written
from prunus.rewards import OutcomeReward, ServerOutcomeReward, ServerStepReward, StepReward
from prunus.strategies import Beam
from prunus.testing import ScriptedText

PROMPT = "1+2*3=?"
LINES = ["2*3=6\n", "2*3=5\n", "1+6=7\n", "answer 7\n", "answer 9\n"]
SLOW = """
import time
from pathlib import Path
from prunus.roles import Reward

class Slow(Reward):
    name = "slow"
    def score(self, contents, prompts):
        Path("begun").touch()
        time.sleep(float(contents[0]))
        return [1.0] * len(contents)
"""


class Process:
    """``prunus serve`` with these arguments, when it is ready; ``lines`` of its log."""

    def __init__(self, folder, *arguments, **environment):
        self.log = folder / "log.jsonl"
        command = [sys.executable, "-m", "prunus", "serve", "--port", "0", *map(str, arguments)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment}
            )
        self.said = [self.process.stdout.readline().strip() for _ in range(2)]
        self.url = self.said[1].removesuffix("/v1")
        ends = time.monotonic() + 120
        while httpx.get(self.url + "/ready").status_code != 200:
            assert time.monotonic() < ends and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    @property
    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, metric, seconds=60):
        """Until this metric, which was 0, is more."""
        ends = time.monotonic() + seconds
        while True:
            text = httpx.get(self.url + "/metrics", headers=bearer(ADMIN)).text
            if float(text.partition(f"\n{metric} ")[2].partition("\n")[0]) > 0.1:
                return
            assert time.monotonic() < ends
            time.sleep(0.05)

    def wait_until_begun(self, seconds=60):
        ends = time.monotonic() + seconds
        while not (self.log.parent / "begun").exists():
            assert time.monotonic() < ends
            time.sleep(0.02)

    def end(self, *signals):
        """Its exit code, and the seconds until it ended."""
        began = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
        code = self.process.wait(60)
        return code, time.monotonic() - began


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    steps = write_folder(tmp_path_factory.mktemp("steps"), "LlamaForTokenClassification")
    whole = write_folder(tmp_path_factory.mktemp("whole"), "BertForSequenceClassification")
    return steps, whole


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    keys = {"PRUNUS_API_KEYS": KEY, "PRUNUS_ADMIN_KEY": ADMIN}
    rewards = ("--reward", f"prm={folders[0]}", "--reward", f"orm={folders[1]}")
    process = Process(tmp_path_factory.mktemp("server"), *rewards, **keys)
    yield process
    process.end(signal.SIGTERM)


@pytest.fixture
def keyed(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    return {"key": "MY_KEY", "time_limit": 30, "retries": 1}


def test_tells_what_it_serves_and_where(server):
    assert server.said[0] == "reward prm, reward orm" and server.said[1].startswith("http://127.0.0.1:")
    listed = httpx.get(server.url + "/v1/models", headers=bearer(KEY)).json()
    assert [model["id"] for model in listed["data"]] == ["prm", "orm"]


def test_our_step_reward_client_gets_from_our_server_what_the_model_gives_here(server, folders, keyed):
    remote, local = ServerStepReward(server.url, "prm", **keyed), StepReward.load(folders[0])
    texts = ["2*3=6\n1+6=7\nanswer 7\n", Written(LINES[:2]), "answer 9\n", ""]
    for there, here in zip(remote.score(texts, [PROMPT] * 4), local.score(texts, [PROMPT] * 4), strict=True):
        assert (there is None) == (here is None)
        if here is not None:
            assert there.value == pytest.approx(here.value, abs=1e-5)
            assert dict(there.parts) == pytest.approx(dict(here.parts), abs=1e-5)
    asked = ServerStepReward(server.url, "prm", chat=True, **keyed).score(texts[:1], [PROMPT])
    assert asked[0].value == pytest.approx(local.score(texts[:1], [PROMPT])[0].value, abs=1e-5)


@pytest.mark.parametrize("route", ["score", "rerank"])
def test_our_outcome_reward_client_gets_from_our_server_what_the_model_gives_here(server, folders, keyed, route):
    remote, local = ServerOutcomeReward(server.url, "orm", route=route, **keyed), OutcomeReward.load(folders[1])
    assert remote.score(LINES, [PROMPT] * 5) == pytest.approx(local.score(LINES, [PROMPT] * 5), abs=1e-5)


def test_a_search_with_the_reward_behind_the_server_is_the_search_with_it_here(server, folders, keyed):
    def answer(reward):
        writer = ScriptedText(lambda steps: {} if len(steps) == 3 else dict.fromkeys(LINES, 1.0))
        return search(PROMPT, writer, reward, Beam(2, 3), seed=4)

    there = answer(ServerStepReward(server.url, "prm", name="prm", **keyed))
    here = answer(StepReward.load(folders[0], name="prm"))
    assert there.best().output == here.best().output
    assert [n.status for n in there.nodes] == [n.status for n in here.nodes]
    for a, b in zip(there.nodes[1:], here.nodes[1:]):
        assert a.scores["prm"].value == pytest.approx(b.scores["prm"].value, abs=1e-5)


def test_a_text_that_is_too_long_fails_alone(server, keyed):
    scores = ServerStepReward(server.url, "prm", **keyed).score(["1+2=3\n", "1" * 200 + "\n"], [PROMPT] * 2)
    assert 0 < scores[0].value < 1 and "at most 128 tokens" in scores[1].reason


def test_the_log_has_neither_prompts_nor_keys(server, keyed):
    ServerStepReward(server.url, "prm", **keyed).score(["1+1=2+3+4+5\n"], [PROMPT])
    httpx.post(server.url + "/v1/score", json={}, headers=bearer("another-guess-at-a-key"))
    httpx.get(server.url + "/metrics", headers=bearer(ADMIN))
    text = server.log.read_text()
    assert not [word for word in (KEY, ADMIN, "another-guess", "1+1=2+3", PROMPT) if word in text]
    assert {line["event"] for line in server.lines} <= {"listening", "request", "key file is readable by others"}


def test_the_routes_of_a_reward_server_are_named_on_the_command_line():
    steps, whole = text_reward("http://h:8000/pooling#prm", "cpu"), text_reward("https://h/x/v1/rerank/#a/b", "cpu")
    assert isinstance(steps, ServerStepReward) and steps.client.server.url == "http://h:8000"
    assert (steps.name, steps.model) == ("prm", "prm") and text_reward("http://h/pooling", "cpu").model is None
    assert isinstance(whole, ServerOutcomeReward) and whole.client.server.url == "https://h/x"
    assert (whole.route, whole.model) == ("rerank", "a/b")
    with pytest.raises(SettingError, match="must end in /pooling, /score or /rerank"):
        text_reward("http://h:8000/v1#prm", "cpu")


# ---- its end ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_server(tmp_path):
    (tmp_path / "slow_rewards.py").write_text(SLOW)

    def start(*arguments):
        started.append(Process(tmp_path, "--reward", "slow=slow_rewards:Slow", *arguments))
        return started[-1]

    started = []
    yield start
    for process in started:
        process.process.kill()
        process.process.wait()


def ask(process, seconds):
    return httpx.post(process.url + "/score", json={"text_1": "p", "text_2": str(seconds)}, timeout=60)


def test_sigterm_finishes_what_runs_and_exits_with_0(slow_server):
    process = slow_server()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, process, 2.0)
        process.wait_until_begun()
        code, seconds = process.end(signal.SIGTERM)
        assert asked.result().json()["data"][0]["score"] == 1.0
    assert code == 0 and seconds < 20
    assert [line["event"] for line in process.lines][-3:] == ["draining", "request", "ended"]


def test_what_does_not_finish_in_time_is_told_so_and_does_not_hold_the_process(slow_server):
    process = slow_server("--limit", "drain_seconds=1")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, process, 50.0)
        process.wait_until_begun()
        code, seconds = process.end(signal.SIGTERM)
        assert asked.result().status_code == 503 and asked.result().json()["error"]["code"] == "draining"
    assert code == 0 and seconds < 30


def test_openais_client_and_a_stop_that_saves_what_does_not_finish(tmp_path):
    (tmp_path / "slow_rewards.py").write_text(SLOW.replace("float(contents[0])", "0.2 * len(contents)"))
    arguments = ("pocket-lm", "--reward", "slow=slow_rewards:Slow", "--limit", "drain_seconds=1", "--trees", "trees")
    process = Process(tmp_path, *arguments, PRUNUS_ADMIN_KEY=ADMIN)
    try:
        assert process.said[0].startswith("pocket-lm, pocket-lm@beam, ")
        client = openai.OpenAI(base_url=process.said[1], api_key="none", max_retries=0)
        ask = {"messages": [{"role": "user", "content": "(7+5)*3-4=?"}], "seed": 1}
        answer = client.chat.completions.create(model="pocket-lm@majority-2", **ask)
        assert "answer" in answer.choices[0].message.content and answer.usage.completion_tokens > 0
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.chat.completions.create, model="pocket-lm@beam-4x4", **ask)
            process.wait_for('prunus_search_seconds_total{part="score"}')
            code, _ = process.end(signal.SIGTERM)
            with pytest.raises(openai.InternalServerError) as refused:
                asked.result()
        assert code == 0 and refused.value.status_code == 503
        (saved,) = (tmp_path / "trees").iterdir()
        assert len(Tree.load(saved).nodes) > 1 and saved.stat().st_mode & 0o077 == 0
    finally:
        process.process.kill()


def test_a_second_interrupt_ends_it_at_once(slow_server):
    process = slow_server()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, process, 50.0)
        process.wait_until_begun()
        process.process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        code, seconds = process.end(signal.SIGINT)
        assert isinstance(asked.exception(), httpx.HTTPError) or asked.result().status_code == 503
    assert code in (0, 130) and seconds < 25


# ---- what it does not start with -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "host = '0.0.0.0' is reached by others, and no key is set"),
        (("--host", "::"), "no key is set"),
        (("--host", "192.0.2.7"), "no key is set"),
        (("--port", "70000"), "port = 70000"),
        (("--key-file", "none"), "key file none cannot be read"),
        (("--key-file", "empty"), "key file empty has no key"),
        (("--key-file", "short"), "at least 16 printable"),
        (("--admin-key-file", "two"), "there are 2 admin keys"),
        (("--key-file", "two", "--admin-key-file", "one"), "the admin key is one of the clients' keys"),
        (("--limit", "speed=3"), "--limit 'speed=3' is unknown; take one of body_bytes"),
        (("--limit", "n=many"), "--limit 'n=many' has no number"),
        (("--limit", "n=0"), "n = 0 is not allowed"),
        (("pocket-lm", "--strategy", "beam-4x4"), "chooses by a reward, and there is none"),
        (("--strategy", "magic"), "strategy 'magic' is unknown"),
        (("--reward", "r=prunus.rewards:StepReward", "--strategy", "beam"), "only rewards are served"),
        (("--reward", "a b=folder"), "a name is ASCII without spaces"),
        (("--reward", "a=x", "--reward", "a=y"), "gives the name 'a' twice"),
        (("a@b=folder",), "a name is ASCII without spaces and @"),
        (("http://127.0.0.1:1/v1",), "is not NAME=WHAT"),
        (("--root-path", "prunus/"), "root_path = 'prunus/'"),
    ],
)
def test_refuses_to_start(here, capsys, arguments, says):
    for name, content in {"empty": "# none\n", "short": "key\n", "two": f"{KEY}\n{ADMIN}\n", "one": ADMIN}.items():
        (here / name).write_text(content)
    assert run("serve", *arguments) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("prunus: ") and KEY not in said and ADMIN not in said


def test_a_port_that_is_taken_is_named(here, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", "--port", port) == 2
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err


def test_says_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run("serve") == 2
    assert "pip install 'prunus[serve]'" in capsys.readouterr().err


def test_a_folder_that_is_no_model_ends_it(tmp_path):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "prunus", "serve", "--port", "0", "--reward", "r=empty"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and "has no config.json" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_names():
    assert named("MODEL", ["a=b", "some/folder", "x.gguf"]) == {"a": "b", "folder": "some/folder", "x": "x.gguf"}
    assert named("--reward", ["my.rewards:Mine"]) == {"Mine": "my.rewards:Mine"}
    assert named("MODEL", ["q=http://h:1/v1#Q/q"]) == {"q": "http://h:1/v1#Q/q"}
    assert named("MODEL", ["http://h:1/v1?a=b#qwen"]) == {"qwen": "http://h:1/v1?a=b#qwen"}
    for wrong in ("=folder", "name=", ""):
        with pytest.raises(SettingError, match="is not NAME=WHAT"):
            named("MODEL", [wrong])
