"""HTTPReward against real servers on loopback: sound, slow, dead, broken and lying ones."""

import asyncio
import base64
import io
import math
import random
import subprocess
import sys
import textwrap
import time
from email.utils import formatdate

import numpy as np
import pytest
import torch
from loopback import Answer, Grey, closed_port, serve, wait_for
from PIL import Image

from prunus import Status, Tree, search
from prunus.commands.methods import find_reward
from prunus.errors import SearchError, ServerError, SettingError, VideoError
from prunus.http import seconds_to_wait
from prunus.rewards import HTTPReward, http_reward
from prunus.rewards.pictures import evenly_spaced
from prunus.roles import WHOLE, View
from prunus.score import Score
from prunus.strategies import Beam
from prunus.testing import assert_same_tree, check_reward

QUICK = {"back_off": 0.01, "retries": 1, "time_limit": 20}
PROMPT = "a red circle moving right"


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(file))))


def brightness(body):
    return {"scores": [float(np.mean([pixels(f) for f in frames]) / 255) for frames in body["frames"]]}


def clips(*lengths):
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(n, 3, 8, 10, generator=draw) for n in lengths]


@pytest.fixture
def site():
    with serve(brightness) as site:
        yield site


def test_the_server_in_the_docstring_runs(tmp_path):
    text = http_reward.__doc__
    code = text[text.index("    import base64") : text.index("On the command line")]
    port = closed_port()
    (tmp_path / "server.py").write_text(textwrap.dedent(code).replace("8500", str(port)))
    process = subprocess.Popen([sys.executable, tmp_path / "server.py"], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        white, grey = torch.ones(3, 3, 8, 8), torch.full((2, 3, 8, 8), 51 / 255)
        scores = HTTPReward(f"http://127.0.0.1:{port}/score").score([white, grey], [PROMPT] * 2)
        assert [s.value for s in scores] == pytest.approx([1.0, 0.2])
    finally:
        process.kill()
        process.wait()


def test_sends_the_pixels_and_prompts_in_batches_and_keeps_the_order(site):
    contents, prompts = clips(1, 3, 2, 1, 1), list("abcde")
    scores = HTTPReward(site.url, batch=2).score(contents, prompts)
    assert sorted(body["prompts"] for body in site.seen) == [["a", "b"], ["c", "d"], ["e"]]
    eight_bit = [c.mul(255).round().numpy() for c in contents]
    assert [s.value for s in scores] == pytest.approx([c.mean() / 255 for c in eight_bit])
    first = next(body for body in site.seen if body["prompts"][0] == "a")
    sent = np.stack([pixels(f) for f in first["frames"][1]])
    assert np.array_equal(sent, eight_bit[1].transpose(0, 2, 3, 1))


def test_keeps_the_contract(site):
    check_reward(HTTPReward(site.url, batch=2), clips(3, 1, 2), [PROMPT, "b", "c"])
    assert HTTPReward(site.url).score([], []) == []


def test_shows_at_most_so_many_frames_evenly_spaced(site):
    assert evenly_spaced(21, 5) == [0, 5, 10, 15, 20]
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert (evenly_spaced(3, 8), evenly_spaced(7, 1), evenly_spaced(3, None)) == ([0, 1, 2], [3], [0, 1, 2])
    steps = (torch.arange(21) / 255)[:, None, None, None].expand(-1, 3, 4, 4)
    HTTPReward(site.url, frames=5).score([steps], [PROMPT])
    assert [int(pixels(f)[0, 0, 0]) for f in site.seen[0]["frames"][0]] == [0, 5, 10, 15, 20]


def test_reads_parts_and_null(site):
    site.answer = lambda body: {"scores": [1, {"value": 0.5, "parts": {"motion": 2}}, None]}
    one, two, three = HTTPReward(site.url).score(clips(1, 1, 1), "abc")
    assert (one, two) == (Score(1.0), Score(0.5, {"motion": 2.0}))
    assert math.isnan(three.value)


FAULTS = {
    "500": (lambda body: Answer({"detail": "no memory"}, 500), r"answered 500: .*no memory.* \(after 2 tries\)"),
    "404": (lambda body: Answer(b"no such page", 404), "answered 404: no such page$"),
    "too few": (lambda body: {"scores": [0.5] * 3}, "returned 3 scores for 4 candidates"),
    "too many": (lambda body: {"scores": [0.5] * 5}, "returned 5 scores for 4 candidates"),
    "not JSON": (lambda body: Answer(b"<html>hello</html>"), "not JSON: <html>hello</html>"),
    "not text": (lambda body: Answer(b"\xff\xfe\x00"), "not JSON"),
    "nested": (lambda body: Answer(b"[" * 100_000), "not JSON"),
    "empty": (lambda body: Answer(b""), "not JSON: nothing"),
    "no scores": (lambda body: [0.5] * 4, "it must answer"),
    "a word": (lambda body: {"scores": ["good"] * 4}, "gave the score good; a score is a number"),
    "a truth": (lambda body: {"scores": [True] * 4}, "gave the score True"),
    "no value": (lambda body: {"scores": [{"parts": {}}] * 4}, "gave the score"),
    "bad parts": (lambda body: {"scores": [{"value": 1, "parts": [2]}] * 4}, "gave the score"),
    "NaN": (lambda body: Answer(b'{"scores": [NaN, NaN, NaN, NaN]}'), "all 4 candidates of round 1 failed.* gave nan"),
    "huge": (lambda body: Answer(b'{"scores": [1e999, 1e999, 1e999, 1%s]}' % (b"0" * 400)), "gave inf"),
    "slow": (lambda body: time.sleep(3), "no answer within time_limit = 0.5 seconds"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_breaks_down_ends_the_search_and_the_tree_goes_on_when_it_is_back(name, site, tmp_path):
    models = (Grey(units=3), HTTPReward(site.url, name="bright", **QUICK), Beam(2, 2))
    whole = search(PROMPT, *models)
    fault, message = FAULTS[name]
    site.answer = lambda body: fault(body) if len(body["frames"][0]) == 2 else brightness(body)
    limited = HTTPReward(site.url, name="bright", **{**QUICK, "time_limit": 0.5 if name == "slow" else 20})
    with pytest.raises((ServerError, SearchError), match=f"reward 'bright'.*{message}|{message}.*") as caught:
        search(PROMPT, models[0], limited, models[2], save_to=tmp_path)
    assert "'bright'" in str(caught.value)
    assert caught.value.tree.error == str(caught.value)
    saved = Tree.load(tmp_path)
    assert (saved.round, len(saved.nodes)) == (1, 5)
    site.answer = brightness
    assert_same_tree(whole, search(saved, *models), "saved")
    assert_same_tree(whole, search(caught.value.tree, Grey(units=3), *models[1:]), "in memory")


def test_a_dead_server_is_named_and_what_it_would_have_scored_is_kept(site):
    dead = HTTPReward(f"http://127.0.0.1:{closed_port()}/score", name="bright", **QUICK)
    with pytest.raises(ServerError, match=r"reward 'bright': .*/score cannot be reached .*after 2 tries") as caught:
        search(PROMPT, Grey(units=2), dead, Beam(2, 2))
    alive = HTTPReward(site.url, name="bright")
    went_on = search(caught.value.tree, Grey(units=2), alive, Beam(2, 2))
    assert_same_tree(search(PROMPT, Grey(units=2), alive, Beam(2, 2)), went_on, "back")


def test_a_candidate_without_a_score_fails_alone(site):
    def null(body):
        return {"scores": [None, *brightness(body)["scores"][1:]]}

    site.answer = null
    tree = search(PROMPT, Grey(units=1), HTTPReward(site.url, name="bright"), Beam(2, 2))
    failed = tree.having(Status.FAILED)
    assert [(n.path, n.reason) for n in failed] == [((0,), "reward 'bright' gave nan")]


def test_tries_again_after_500_and_not_after_400(site):
    replies = [Answer(b"", 500), Answer(b"", 503)]
    site.answer = lambda body: replies.pop(0) if replies else brightness(body)
    reward = HTTPReward(site.url, back_off=0.01)
    assert len(reward.score(clips(2), [PROMPT])) == 1 and len(site.seen) == 3
    site.answer = lambda body: Answer(b"what?", 400)
    with pytest.raises(ServerError, match="answered 400: what"):
        reward.score(clips(2), [PROMPT])
    assert len(site.seen) == 4


def test_waits_as_long_as_it_is_asked_to(site):
    replies = [Answer(b"", 429, {"Retry-After": "0.4"})]
    site.answer = lambda body: replies.pop(0) if replies else brightness(body)
    began = time.monotonic()
    HTTPReward(site.url, back_off=0.0).score(clips(1), [PROMPT])
    assert time.monotonic() - began >= 0.4 and len(site.seen) == 2

    site.answer = lambda body: Answer(b"busy", 429, {"Retry-After": "3600"})
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"answered 429: busy; trying again in 3.6e.03 seconds would be later"):
        HTTPReward(site.url, time_limit=30).score(clips(1), [PROMPT])
    assert time.monotonic() - began < 15


def test_reads_retry_after():
    assert [seconds_to_wait(text) for text in ("7", "0.5", None, "", "-3", "nan", "soon")] == [7, 0.5, 0, 0, 0, 0, 0]
    assert seconds_to_wait(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=3)


def test_does_not_ask_for_more_at_a_time_than_it_may(site):
    site.answer = lambda body: time.sleep(0.05) or brightness(body)
    HTTPReward(site.url, batch=1, concurrency=2).score(clips(*[1] * 8), ["p"] * 8)
    assert (len(site.seen), site.busiest) == (8, 2)


def test_one_failure_ends_the_others_at_once(site):
    site.answer = lambda body: Answer(b"", 400) if body["prompts"] == ["b"] else time.sleep(5)
    began = time.monotonic()
    with pytest.raises(ServerError, match="answered 400"):
        HTTPReward(site.url, batch=1).score(clips(1, 1, 1), "abc")
    assert time.monotonic() - began < 4


def test_works_where_an_event_loop_is_running(site):
    async def cell():
        return HTTPReward(site.url).score(clips(1), [PROMPT])

    assert len(asyncio.run(cell())) == 1


def test_draws_nothing_from_the_users_randomness(site):
    random.seed(0)
    before = random.getstate()
    site.answer = lambda body: Answer(b"", 500)
    with pytest.raises(ServerError):
        HTTPReward(site.url, **QUICK).score(clips(1), [PROMPT])
    assert random.getstate() == before


def test_the_key_is_sent_and_never_shown(site, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    site.answer = lambda body: Answer(b"wrong key sk-secret", 401)
    reward = HTTPReward(site.url + "/score?token=hidden", key="MY_KEY")
    with pytest.raises(ServerError, match=r"answered 401: wrong key \*\*\*") as caught:
        reward.score(clips(1), [PROMPT])
    assert site.headers[0]["Authorization"] == "Bearer sk-secret"
    named = HTTPReward(site.url.replace("//", "//me:password@"))
    shown = f"{caught.value} {reward.spec()} {reward.server!r} {named.spec()}"
    assert not any(secret in shown for secret in ("sk-secret", "password"))
    assert "hidden" not in f"{caught.value} {reward.spec()}"
    for not_a_name in ("sk-secret", "UNSET"):
        with pytest.raises(SettingError, match="key does not name an environment variable") as refused:
            HTTPReward(site.url, key=not_a_name)
        assert not_a_name not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url = 'localhost:8000' is not allowed"),
        ({"url": "http://[::1"}, "url"),
        ({"frames": 0}, "frames = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"units": 0}, "units = 0"),
        ({"time_limit": 0}, "time_limit = 0"),
        ({"retries": -1}, "retries = -1"),
        ({"back_off": -1}, "back_off = -1"),
        ({"concurrency": 0}, "concurrency = 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message.replace("[", r"\[")):
        HTTPReward(**{"url": "http://127.0.0.1:1", **settings})


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ServerError, match=r"reward 'http-reward' needs httpx; pip install 'prunus\[servers\]'"):
        HTTPReward("http://127.0.0.1:1")


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 8, 8).byte(), torch.full((1, 3, 8, 8), math.nan)],
)
def test_refuses_what_is_not_a_video(content, site):
    with pytest.raises(VideoError, match="http-reward"):
        HTTPReward(site.url).score([content], [PROMPT])
    assert site.seen == []


def test_is_named_on_the_command_line(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_bright_reward.py").write_text(
        f"from prunus.rewards import HTTPReward\nbright = HTTPReward({site.url!r}, name='bright', units=2)\n"
    )
    reward = find_reward("my_bright_reward:bright", WHOLE)
    assert (reward.name, reward.view) == ("bright", View(2))
    with pytest.raises(SettingError, match="cannot be made without arguments"):
        find_reward("prunus.rewards:HTTPReward", WHOLE)
