"""Rewards behind vLLM's routes: the shapes, the same scores as offline, shared batches, limits and hostile requests."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import serving
from text_folders import write_folder

from prunus.errors import ModelError, SettingError
from prunus.generators.written import Written
from prunus.rewards import OutcomeReward, StepReward
from prunus.roles import CHUNK, FunctionReward, Reward, View
from prunus.server.model_thread import ModelThread
from prunus.server.reward_routes import RewardPart
from prunus.server.settings import Limits

PROMPT = "1+2*3=?"
STEPS = ["2*3=6\n1+6=7\nanswer 7\n", "2*3=5\n1+5=6\n", "answer 9\n"]
NEAR = {"rel": 1e-5, "abs": 1e-6}


class Slow(Reward):
    """Scores the length; counts its calls and how many texts each had. ``gate`` holds it up."""

    name = "slow"

    def __init__(self):
        self.calls, self.gate = [], threading.Event()
        self.gate.set()

    def score(self, contents, prompts):
        assert self.gate.wait(60)
        self.calls.append(len(contents))
        if "poison" in contents:
            raise ValueError("this text said: poison")
        return [float(len(c)) if c else math.nan for c in contents]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    steps = write_folder(tmp_path_factory.mktemp("steps"), "LlamaForTokenClassification")
    whole = write_folder(tmp_path_factory.mktemp("whole"), "BertForSequenceClassification")
    return steps, whole


@pytest.fixture(scope="module")
def slow():
    return Slow()


@pytest.fixture(scope="module")
def server(folders, slow):
    loaders = {
        "prm": lambda: StepReward.load(folders[0]),
        "orm": lambda: OutcomeReward.load(folders[1]),
        "slow": lambda: slow,
    }
    limits = {"pairs": 8, "text_characters": 300, "score_characters": 1200, "rows": 20}
    part = RewardPart(loaders, ModelThread(), Limits(**limits))
    with serving(part, limits=limits) as running:
        running.part = part
        yield running


def goods(rows):
    return [good for _, good in rows]


@pytest.fixture(autouse=True)
def opened(slow):
    yield
    slow.gate.set()


def refused(answer, status, param=None):
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    return error["message"]


# ---- shapes and scores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
def test_score_has_vllms_shape_and_the_scores_of_the_reward(server, folders, path, names):
    answer = server.post(path, {"model": "orm", names[0]: PROMPT, names[1]: STEPS}).json()
    expected = OutcomeReward.load(folders[1]).score(STEPS, [PROMPT] * 3)
    assert [d["score"] for d in answer["data"]] == pytest.approx(expected, **NEAR)
    assert [(d["index"], d["object"]) for d in answer["data"]] == [(i, "score") for i in range(3)]
    assert (answer["object"], answer["model"]) == ("list", "orm") and answer["id"].startswith("score-")
    characters = sum(len(PROMPT) + 1 + len(s) for s in STEPS)  # a token each
    assert answer["usage"] == {"prompt_tokens": characters, "total_tokens": characters, "completion_tokens": 0}


def test_one_with_one_one_with_many_and_as_many_with_as_many(server):
    def scores(first, second):
        answer = server.post("/v1/score", {"model": "slow", "text_1": first, "text_2": second})
        return [d["score"] for d in answer.json()["data"]]

    assert scores("p", "ab") == [2.0]
    assert scores(["p"], ["ab", "abc"]) == [2.0, 3.0]
    assert scores(["p", "q"], ["ab", "abc"]) == [2.0, 3.0]
    for first, second in ((["p", "q"], ["a"]), (["p", "q"], ["a", "b", "c"]), (["p", "q", "r"], "a")):
        message = refused(server.post("/v1/score", {"model": "slow", "text_1": first, "text_2": second}), 400, "text_2")
        assert "as many texts" in message


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_rerank_is_sorted_best_first_and_cut(server, folders, path):
    asked = {"model": "orm", "query": PROMPT, "documents": [STEPS[0], {"text": STEPS[1]}, STEPS[2]]}
    results = server.post(path, asked).json()["results"]
    expected = OutcomeReward.load(folders[1]).score(STEPS, [PROMPT] * 3)
    order = sorted(range(3), key=lambda i: -expected[i])
    assert [r["index"] for r in results] == order
    assert [r["relevance_score"] for r in results] == pytest.approx([expected[i] for i in order], **NEAR)
    assert [r["document"] for r in results] == [{"text": STEPS[i]} for i in order]
    assert server.post(path, {**asked, "top_n": 2}).json()["results"] == results[:2]
    assert server.post(path, {**asked, "top_n": 0}).json()["results"] == results


def test_pooling_has_a_row_at_each_step_separator(server, folders):
    reward = StepReward.load(folders[0])
    text = f"{PROMPT}\n{STEPS[0]}"
    rows = server.post("/pooling", {"model": "prm", "input": text}).json()["data"][0]["data"]
    assert len(rows) == text.count("\n") == 4
    for good, end in zip(goods(rows[1:]), (1, 2, 3)):  # each step's, read by the reward alone
        steps = [s + "\n" for s in STEPS[0].splitlines()[:end]]
        assert good == pytest.approx(reward.score([Written(steps)], [PROMPT])[0].value, **NEAR)
    assert all(bad + good == pytest.approx(1) for bad, good in rows)


def test_pooling_takes_several_texts_what_is_unfinished_and_what_has_no_step(server):
    texts = [f"{PROMPT}\n{STEPS[0]}", f"{PROMPT}\n{STEPS[1]}1+", "no step", ""]
    answer = server.post("/pooling", {"model": "prm", "input": texts}).json()
    assert [len(d["data"]) for d in answer["data"]] == [4, 3, 0, 0]
    assert [(d["index"], d["object"]) for d in answer["data"]] == [(i, "pooling") for i in range(4)]
    alone = server.post("/pooling", {"model": "prm", "input": texts[1]}).json()
    assert goods(answer["data"][1]["data"]) == pytest.approx(goods(alone["data"][0]["data"]), **NEAR)


def test_pooling_of_messages_has_the_rows_of_the_solution(server):
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": STEPS[0]}]
    rows = server.post("/pooling", {"model": "prm", "messages": turns}).json()["data"][0]["data"]
    whole = server.post("/pooling", {"model": "prm", "input": f"{PROMPT}\n{STEPS[0]}"}).json()["data"][0]["data"]
    assert goods(rows) == pytest.approx(goods(whole[1:]), **NEAR)


def test_a_step_rewards_score_is_its_last_steps(server, folders):
    answer = server.post("/v1/score", {"model": "prm", "text_1": PROMPT, "text_2": [*STEPS, ""]}).json()
    expected = [s.value for s in StepReward.load(folders[0]).score(STEPS, [PROMPT] * 3)]
    assert [d["score"] for d in answer["data"][:3]] == pytest.approx(expected, **NEAR)
    assert answer["data"][3]["score"] is None  # a text without a step


def test_what_has_no_score_is_null_and_last(server):
    results = server.post("/rerank", {"model": "slow", "query": "p", "documents": ["", "ab", "abc"]}).json()["results"]
    assert [(r["index"], r["relevance_score"]) for r in results] == [(2, 3.0), (1, 2.0), (0, None)]


# ---- batches ---------------------------------------------------------------------------------------------------------


def wait_until(true, seconds=30):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_requests_that_wait_together_are_scored_together(server, slow):
    slow.calls.clear()
    slow.gate.clear()
    batches = server.part.batches["slow"]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, "/score", {"model": "slow", "text_1": "p", "text_2": "a"})
        wait_until(lambda: batches._unanswered and not batches.waiting)
        rest = [pool.submit(server.post, "/score", {"model": "slow", "text_1": "p", "text_2": ["b" * n, "c"]})
                for n in range(1, 7)]  # fmt: skip
        wait_until(lambda: batches.waiting == 12)
        slow.gate.set()
        assert first.result().status_code == 200
        for n, answer in enumerate(rest, 1):
            assert [d["score"] for d in answer.result().json()["data"]] == [n, 1]
    assert slow.calls == [1, 12]


def test_a_request_whose_text_makes_the_batch_fail_fails_alone(server, slow):
    slow.gate.clear()
    batches = server.part.batches["slow"]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.post, "/score", {"model": "slow", "text_1": "p", "text_2": t})
                 for t in ("a", "bb", "poison", "dddd")]  # fmt: skip
        wait_until(lambda: len(batches._unanswered) == 4)
        slow.gate.set()
        answers = [a.result() for a in asked]
    assert [a.status_code for a in answers] == [200, 200, 500, 200]
    assert "poison" not in answers[2].text


def test_a_full_queue_refuses_and_says_when_to_come_back(server, slow):
    slow.gate.clear()
    batches = server.part.batches["slow"]
    with ThreadPoolExecutor(8) as pool:
        eight = {"model": "slow", "text_1": "p", "text_2": ["a"] * 8}
        busy = [pool.submit(server.post, "/score", eight)]
        wait_until(lambda: batches._unanswered and not batches.waiting)
        busy += [pool.submit(server.post, "/score", eight) for _ in range(2)]
        wait_until(lambda: batches.waiting == 16)
        answer = server.post("/score", eight)
        assert answer.json()["error"]["code"] == "queue_full" and int(answer.headers["Retry-After"]) >= 1
        assert answer.status_code == 429
        slow.gate.set()
        assert [b.result().status_code for b in busy] == [200] * 3


def test_a_client_that_leaves_takes_its_texts_with_it(server, slow):
    slow.gate.clear()
    batches = server.part.batches["slow"]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, "/score", {"model": "slow", "text_1": "p", "text_2": "a"})
        wait_until(lambda: len(batches._unanswered) == 1 and not batches.waiting)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/score", json={"model": "slow", "text_1": "p", "text_2": ["b"] * 5}, timeout=0.3)
        wait_until(lambda: len(batches._unanswered) == 1 and not batches.waiting)
        slow.calls.clear()
        slow.gate.set()
        assert first.result().status_code == 200
    assert slow.calls == [1]


def test_of_many_clients_half_hang_up_and_the_others_are_answered():
    reward = Slow()
    reward.gate.clear()
    part = RewardPart({"slow": lambda: reward}, ModelThread(), Limits())

    def ask(i):
        try:
            patience = 0.5 if i % 2 else 60
            answer = httpx.post(running.url + "/score", json={"text_1": "p", "text_2": "x" * (i + 1)}, timeout=patience)
            return answer.json()["data"][0]["score"]
        except httpx.TimeoutException:
            return None

    with serving(part) as running, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, i) for i in range(40)]
        wait_until(lambda: all(a.done() for a in asked[1::2]), 60)
        batches = part.batches["slow"]
        wait_until(lambda: len(batches._unanswered) == 20, 60)
        reward.gate.set()
        assert [a.result() for a in asked] == [None if i % 2 else i + 1 for i in range(40)]
        assert not batches.waiting and not batches._unanswered
        assert batches.spent.texts <= 25  # those who left were not scored, but for those that had begun


def test_an_answer_that_takes_too_long_is_given_up():
    reward, limits = Slow(), {"seconds": 1.0}
    reward.gate.clear()
    with serving(RewardPart({"slow": lambda: reward}, ModelThread(), Limits(**limits)), limits=limits) as running:
        answer = running.post("/score", {"text_1": "p", "text_2": "a"})
        reward.gate.set()
        assert refused(answer, 408) == "the answer was not ready within 1 seconds"
        assert answer.headers["Retry-After"] == "1"


def test_metrics_tell_of_texts_batches_and_seconds(server):
    def count(name):
        found = {m.name: m.samples for m in server.part.metrics()}
        return {labels["reward"]: value for labels, value in found[f"prunus_reward_{name}"]}["slow"]

    before = [count(name) for name in ("texts_total", "batches_total")]
    server.post("/score", {"model": "slow", "text_1": "p", "text_2": ["a", "b", "c"]})
    assert [count(name) for name in ("texts_total", "batches_total")] == [before[0] + 3, before[1] + 1]
    assert count("waiting_texts") == 0


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sent", "param", "says"),
    [
        ("/score", {"text_1": "p"}, "text_2", "text"),
        ("/score", {"text_2": "p"}, "text_1", "text"),
        ("/score", {"text_1": "p", "text_2": []}, "text_2", "at least one"),
        ("/score", {"text_1": [], "text_2": ["a"]}, "text_1", "at least one"),
        ("/score", {"text_1": "p", "text_2": True}, "text_2", "text"),
        ("/score", {"text_1": "p", "text_2": ["a", 1]}, "text_2", "text"),
        ("/score", {"text_1": "p", "text_2": [["a"]]}, "text_2", "text"),
        ("/score", {"text_1": "p", "text_2": ["a"] * 9}, "text_2", "at most 8"),
        ("/score", {"text_1": ["p"] * 9, "text_2": ["a"] * 9}, "text_1", "at most 8"),
        ("/score", {"text_1": ["p"] * 3, "text_2": ["a"] * 4}, "text_2", "as many"),
        ("/score", {"text_1": "p", "text_2": "a" * 301}, "text_2", "at most 300 characters"),
        ("/score", {"text_1": "p" * 300, "text_2": ["a"] * 4}, "text_2", "1204 characters"),
        ("/score", {"text_1": "p", "text_2": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "supported"),
        ("/score", {"text_1": "p", "text_2": "a", "use_activation": False}, "use_activation", "supported"),
        ("/rerank", {"query": "p"}, "documents", "text"),
        ("/rerank", {"query": ["p"], "documents": ["a"]}, "query", "text"),
        ("/rerank", {"query": "p", "documents": [{"text": "a", "image": "b"}]}, "documents", "text"),
        ("/rerank", {"query": "p", "documents": ["a"], "top_n": True}, "top_n", "whole number"),
        ("/rerank", {"query": "p", "documents": ["a"], "top_n": 1.0}, "top_n", "whole number"),
        ("/rerank", {"query": "p", "documents": ["a"], "top_n": -1}, "top_n", "from 0"),
        ("/pooling", {"input": [1, 2, 3]}, "input", "text"),
        ("/pooling", {"input": [[999_999_999]]}, "input", "text"),
        ("/pooling", {"messages": [{"role": "user", "content": "p"}]}, "messages", "assistant"),
        ("/pooling", {"messages": "p"}, "messages", "assistant"),
        ("/pooling", {"input": "p", "encoding_format": "base64"}, "encoding_format", "float"),
        ("/pooling", {"input": "p", "task": "embed"}, "task", "token_classify"),
    ],
)
def test_refuses_before_anything_is_queued(server, path, sent, param, says):
    before = server.part.batches["prm"].spent.texts
    assert says in refused(server.post(path, {"model": "prm", **sent}), 400, param)
    assert server.part.batches["prm"].spent.texts == before


def test_a_text_that_is_too_long_for_the_model_is_a_400(server):
    answer = server.post("/score", {"model": "prm", "text_1": "1" * 100, "text_2": "2" * 100})
    assert answer.status_code == 400 and "at most 128 tokens" in answer.json()["error"]["message"]


def test_only_what_was_listed_is_served(server):
    for name in ("other", "../prm", "prunus.rewards:StepReward", 3, ["prm"], None):
        message = refused(server.post("/score", {"model": name, "text_1": "p", "text_2": "a"}), 404, "model")
        assert message == "model must be one of prm, orm, slow"


def test_a_reward_of_whole_texts_has_no_steps_to_pool(server):
    assert "scores whole texts" in refused(server.post("/pooling", {"model": "orm", "input": "a"}), 400, "model")


def test_fields_that_change_nothing_are_ignored_and_listed(server):
    sent = {"model": "slow", "text_1": "p", "text_2": "a", "user": "me", "priority": 0, "x\r\ny": 1}
    assert server.post("/score", sent).headers["X-Prunus-Ignored"] == "user, priority, ?"


def test_one_reward_needs_no_name():
    part = RewardPart({"length": lambda: FunctionReward(lambda c, p: len(c), "length", CHUNK)}, ModelThread(), Limits())
    with serving(part) as running:
        answer = running.post("/score", {"text_1": "p", "text_2": "abc"}).json()
        assert (answer["model"], answer["data"][0]["score"]) == ("length", 3.0)


def self_evaluation():
    return FunctionReward(lambda content, prompt: 1.0, "self", View(None, state=True))


def test_a_reward_that_cannot_be_loaded_or_served_ends_the_server(tmp_path):
    for load in (lambda: StepReward.load(tmp_path), self_evaluation):
        with serving(RewardPart({"a": load}, ModelThread(), Limits(), alone=True), wait=False) as running:
            running.thread.join(20)
            assert isinstance(running.app.state.life.failure, (ModelError, SettingError))


def test_a_reward_for_searches_only_has_no_routes():
    loaders = {"length": lambda: FunctionReward(lambda c, p: len(c), "length"), "self": self_evaluation}
    part = RewardPart(loaders, ModelThread(), Limits())
    with serving(part) as running:
        assert list(part.rewards) == ["length", "self"]
        refused(running.post("/score", {"model": "self", "text_1": "p", "text_2": "a"}), 404, "model")


def test_draining_finishes_what_was_taken():
    reward = Slow()
    reward.gate.clear()
    part = RewardPart({"slow": lambda: reward}, ModelThread(), Limits())
    with serving(part) as running, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(running.post, "/score", {"text_1": "p", "text_2": "abc"})
        wait_until(lambda: part.batches["slow"]._unanswered)
        running.server.should_exit = True
        time.sleep(0.3)
        reward.gate.set()
        assert asked.result().json()["data"][0]["score"] == 3.0
