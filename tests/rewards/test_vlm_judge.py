"""VLMJudge against real OpenAI-compatible servers on loopback that can do more or less, and that lie."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from loopback import Answer, Grey, closed_port, serve
from PIL import Image

from prunus import Status, Tree, search
from prunus.commands.methods import find_reward
from prunus.errors import ServerError, SettingError
from prunus.rewards import VLMJudge
from prunus.rewards.judge_probe import Ability
from prunus.rewards.vlm_judge import first_word
from prunus.roles import WHOLE, View
from prunus.strategies import Beam
from prunus.testing import assert_same_tree, check_reward

PROMPT = "a red {circle} moving right"
QUICK = {"back_off": 0.01, "retries": 1, "time_limit": 20}
RED, BLUE = (torch.tensor(c)[None, :, None, None].expand(2, 3, 8, 8) for c in ([1.0, 0, 0], [0, 0, 1.0]))


def redness(body):
    """Mean red of the first picture, in [0, 1]."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return float(np.asarray(picture)[..., 0].mean()) / 255


def choice(tokens):
    """A choice with these first tokens and their probabilities."""
    likely = [{"token": t, "logprob": math.log(p) if p else -9999.0, "bytes": None} for t, p in tokens.items()]
    first = {**likely[0], "top_logprobs": likely}
    return {"index": 0, "message": {"content": first["token"]}, "logprobs": {"content": [first]}}


def able(body):
    """A server with log-probabilities, to whom red is yes; it allows as many as the protocol does."""
    assert body["model"] == "tiny" and body["temperature"] == 1
    red = redness(body)
    tokens = {"Yes": 0.6 * red, " yes": 0.1 * red, "NO": 0.6 * (1 - red), "ĠNo": 0.1 * (1 - red), "The": 0.2}
    return {"choices": [choice(tokens)]}


def without_log_probabilities(body):
    """Takes ``n``; answers Yes for three samples of four about red, and never about blue."""
    texts = ["**Yes**, it is", " yes.", "No", "YES"] if redness(body) > 0.5 else ["No"] * 4
    seed = body.get("seed", 0)
    return {
        "choices": [{"message": {"content": texts[(seed + i) % 4]}, "logprobs": None} for i in range(body.get("n", 1))]
    }


@pytest.fixture
def site():
    with serve(able) as site:
        yield site


def judge(site, **settings):
    return VLMJudge(f"{site.url}/v1/", "tiny", **{**QUICK, **settings})


def test_is_the_mass_of_yes_among_yes_and_no(site):
    grey = torch.full((1, 3, 8, 8), 51 / 255)
    red, blue, grey = judge(site).score([RED, BLUE, grey], [PROMPT] * 3)
    assert (red.value, blue.value) == (1.0, 0.0)
    assert grey.value == pytest.approx(0.2)  # 0.7 * 0.2 / (0.7 * 0.2 + 0.7 * 0.8)
    assert grey.parts == pytest.approx({"yes": 0.14, "no": 0.56})


def test_asks_about_the_frames_in_order(site):
    steps = (torch.arange(21) / 255)[:, None, None, None].expand(-1, 3, 4, 4)
    judge(site, frames=3, extra={"top_p": 0.5}).score([steps], [PROMPT])
    body = site.seen[-1]
    *images, text = body["messages"][0]["content"]
    shown = [redness({"messages": [{"content": [image]}]}) * 255 for image in images]
    assert shown == pytest.approx([0, 10, 20])
    assert text["text"] == (
        'These pictures are frames of one video, in order. Does it show "a red {circle} moving right"? '
        "Answer only Yes or No."
    )
    assert (body["top_logprobs"], body["max_tokens"], body["top_p"]) == (20, 1, 0.5)


def test_keeps_the_contract(site):
    check_reward(judge(site), [RED, BLUE, torch.full((3, 3, 8, 8), 0.4)], [PROMPT, "b", "c"])


@pytest.mark.parametrize("token", ["Yes", " yes", "YES.", "Ġyes", "▁Yes", "**Yes**", "Yes, it is", "\n Yes"])
def test_variants_of_a_word_are_one(token):
    assert first_word(token) == "yes"


def test_other_words_are_not_yes():
    assert [first_word(t) for t in ("Yesterday", "", "!", "Not", "<think>")] == ["yesterday", "", "", "not", "think"]


def test_finds_out_once_what_the_server_can_do(site):
    reward = judge(site)
    assert site.seen == []  # not when it is made
    reward.score([RED], [PROMPT])
    asked = len(site.seen) - 1
    reward.score([RED, BLUE], [PROMPT] * 2)
    assert (reward.ability, len(site.seen)) == (Ability(20), asked + 3)


def test_a_server_may_allow_fewer_log_probabilities(site):
    site.answer = lambda body: Answer(b"at most 5", 400) if body.get("top_logprobs", 0) > 5 else able(body)
    reward = judge(site)
    assert reward.score([RED], [PROMPT])[0].value == 1.0
    assert reward.ability == Ability(5)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("refuses", [True, False])
def test_without_log_probabilities_it_samples_if_it_may(site, several, refuses):
    def answer(body):
        if refuses and "logprobs" in body:
            return Answer(b"no logprobs here", 422)
        return without_log_probabilities(body if several else {k: v for k, v in body.items() if k != "n"})

    site.answer = answer
    with pytest.raises(ServerError, match=r"reward 'vlm-judge': .* gives no log-probabilities; set samples"):
        judge(site).score([RED], [PROMPT])
    reward, before = judge(site, samples=4), len(site.seen)
    red, blue = reward.score([RED, BLUE], [PROMPT] * 2)
    assert (red.value, red.parts, blue.value) == (0.75, {"yes": 0.75, "no": 0.25}, 0.0)
    assert reward.ability == Ability(0, several)
    before = len(site.seen)
    reward.score([RED, BLUE], [PROMPT] * 2)
    assert len(site.seen) - before == (2 if several else 8)


def text_only(body):
    if isinstance(body["messages"][0]["content"], list):
        return Answer({"error": {"message": "image input is not supported"}}, 400)
    return {"choices": [choice({"Yes": 1.0})]}


def spoilt(logprob):
    return lambda body: {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "Yes", **logprob}]}]}}]}


LIARS = {
    "takes no images": (text_only, "answers questions without pictures only.*image input is not supported"),
    "drops images": (lambda body: {"choices": [choice({"Yes": 0.7, "No": 0.3})]}, r"answers alike, P\(Yes\) = 0.70000"),
    "thinks first": (lambda body: {"choices": [choice({"<think>": 1.0})]}, "says neither Yes nor No.*turn thinking"),
    "unknown model": (lambda body: Answer(b"no model tiny", 404), "answered 404: no model tiny"),
    "not a number": (spoilt({"logprob": math.nan}), "log-probability nan"),
    "more than certain": (spoilt({"logprob": 2.0}), "log-probability 2.0"),
    "a word": (spoilt({"logprob": "high"}), "log-probabilities are expected"),
    "none": (spoilt({}), "log-probabilities are expected"),
    "no choices": (lambda body: {"choices": []}, "has a list of choices"),
    "a list": (lambda body: [1], "has a list of choices"),
    "garbage": (lambda body: Answer(b"<html>"), "not JSON: <html>"),
    "500": (lambda body: Answer(b"oops", 500), "answered 500: oops"),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_server_that_cannot_judge_is_found_out_before_the_first_score(name, site):
    site.answer, message = LIARS[name]
    with pytest.raises(ServerError, match=f"reward 'vlm-judge': .*{message}"):
        judge(site).score([RED], [PROMPT])


def test_a_candidate_about_which_nothing_is_said_fails_alone(site):
    site.answer = lambda body: {"choices": [choice({"Sorry": 1.0})]} if redness(body) == 0.2 else able(body)
    silent = torch.full((1, 3, 8, 8), 0.2)
    reward = judge(site)
    scores = reward.score([RED, silent], [PROMPT] * 2)
    assert scores[0].value == 1.0 and math.isnan(scores[1].value)
    with pytest.raises(ServerError, match="said neither Yes nor No about any of 2 candidates"):
        reward.score([silent, silent], [PROMPT] * 2)


def test_a_server_that_dies_in_mid_search_leaves_a_tree_that_goes_on(site, tmp_path):
    models = (Grey(units=3), judge(site), Beam(2, 2))
    whole = search(PROMPT, *models)
    asked = 0

    def dying(body):
        nonlocal asked
        asked += 1
        return able(body) if asked <= 6 else Answer(b"out of memory", 503)

    site.answer = dying
    with pytest.raises(ServerError, match=r"reward 'vlm-judge': .* answered 503: out of memory") as caught:
        search(PROMPT, *models, save_to=tmp_path)
    assert caught.value.tree.error == str(caught.value)
    assert not caught.value.tree.having(Status.FAILED)
    site.answer = able
    assert_same_tree(whole, search(Tree.load(tmp_path), *models), "back")


def test_a_dead_server_is_named():
    reward = VLMJudge(f"http://127.0.0.1:{closed_port()}/v1", "tiny", **QUICK)
    with pytest.raises(ServerError, match=r"reward 'vlm-judge': .* cannot be reached"):
        search(PROMPT, Grey(units=1), reward, Beam(2, 2))


def test_settings_are_checked_and_told(site, monkeypatch):
    for settings, message in (
        ({"question": "Is it good?"}, "question = 'Is it good"),
        ({"frames": 0}, "frames = 0"),
        ({"samples": -1}, "samples = -1"),
    ):
        with pytest.raises(SettingError, match=message):
            judge(site, **settings)
    monkeypatch.setenv("MY_KEY", "sk-secret")
    reward = judge(site, key="MY_KEY", units=2)
    reward.score([RED], [PROMPT])
    assert all(headers["Authorization"] == "Bearer sk-secret" for headers in site.headers)
    assert "sk-secret" not in str(reward.spec()) and reward.spec()["model"] == "tiny"
    assert (reward.view, reward.range) == (View(2), "probability")


def test_is_named_on_the_command_line(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_judge.py").write_text(
        f"from prunus.rewards import VLMJudge\njudge = VLMJudge({site.url!r}, 'tiny', name='mine')\n"
    )
    assert find_reward("my_judge:judge", WHOLE).name == "mine"
