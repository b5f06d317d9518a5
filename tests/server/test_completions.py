"""OpenAI's routes, asked by OpenAI's own client: what is answered is what the search offline answers."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest
from server_engine import until
from server_searches import LIKING, PROBLEM, SHORTNESS, catalogue, openai_client, searching, writer
from serving import ADMIN, KEY, OTHER_KEY

from prunus import Tree, pocket, search
from prunus.generators.prompt import Prompt
from prunus.rewards import StepReward
from prunus.roles import FunctionReward
from prunus.server.methods import vote
from prunus.strategies import Beam, BestOfN

BEAM = Beam(keep=2, branch=2, reward="liking")
HARD = "(17+25)*3-46+12*7=?"


@pytest.fixture(scope="module")
def server():
    with searching() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai_client(server)


def ask(client, content=PROBLEM, model="pocket-lm@beam-2x2", **more):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **more)


def offline(strategy=BEAM, reward=LIKING, prompt=PROBLEM, seed=0, **settings):
    return search(prompt, writer(**settings), reward, strategy, seed=seed)


@contextmanager
def logged():
    """The lines that the server logs meanwhile."""
    lines, logger, handler = [], logging.getLogger("prunus.server"), logging.Handler()
    handler.emit = lambda r: lines.append(json.dumps({"event": r.getMessage(), **getattr(r, "fields", {})}))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7])
def test_a_chat_is_answered_with_what_the_search_offline_chooses(client, seed):
    answer, alone = ask(client, seed=seed), offline(seed=seed)
    (choice,) = answer.choices
    assert choice.message.content == alone.best().output and choice.message.role == "assistant"
    assert (
        choice.finish_reason == "stop" and answer.object == "chat.completion" and answer.model == "pocket-lm@beam-2x2"
    )
    assert answer.id.startswith("chatcmpl-")


def test_a_completion_goes_on_with_the_text_as_it_is(client):
    answer = client.completions.create(model="pocket-lm@beam-2x2", prompt=PROBLEM + "\n", seed=3)
    alone = offline(prompt=PROBLEM + "\n", seed=3, chat=False)
    assert answer.choices[0].text == alone.best().output and answer.object == "text_completion"
    tokens = writer().model.encode(PROBLEM + "\n", chat=False)
    again = client.completions.create(model="pocket-lm@beam-2x2", prompt=tokens, seed=3)
    assert again.choices[0].text == answer.choices[0].text


def test_a_bare_name_samples_plainly(client):
    """Without a reward; several are so many samples, which may be alike."""
    answer = ask(client, model="pocket-lm", seed=5, n=3)
    alone = offline(BestOfN(n=3), seed=5)
    assert {c.message.content for c in answer.choices} == {alone.generator.output(n) for n in alone.finished}
    assert len(answer.choices) == 3
    assert answer.usage.prunus["strategy"] == "plain" and answer.usage.prunus["reward"] is None
    assert len(ask(client, model="pocket-lm", temperature=0, n=2).choices) == 2


def test_a_requests_settings_are_those_of_the_search(client):
    answer = ask(client, seed=1, temperature=0.5, top_p=0.9, max_tokens=9, stop=["="], extra_body={"top_k": 5})
    alone = offline(seed=1, temperature=0.5, top_p=0.9, max_tokens=9, stop=["="], top_k=5)
    assert answer.choices[0].message.content == alone.best().output
    cut = ask(client, seed=1, max_completion_tokens=3)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 3


def test_the_strategy_may_stand_in_the_body(client):
    """A method that is listed without numbers is offered with any; so are the budget and the reward."""
    answer = ask(client, model="pocket-lm", seed=2, extra_body={"prunus": {"strategy": "best-of", "n": 3}})
    alone = offline(BestOfN(n=3, reward="liking"), seed=2)
    assert answer.choices[0].message.content == alone.best().output
    other = ask(client, model="pocket-lm@best-of-6", seed=2, extra_body={"prunus": {"reward": "shortness"}})
    short = offline(BestOfN(n=6, reward="shortness"), SHORTNESS, seed=2)
    assert other.choices[0].message.content == short.best().output
    assert other.usage.prunus["scores"] == [short.best().scores["shortness"].value]
    with pytest.raises(openai.BadRequestError, match="does not pay for one candidate"):
        ask(client, extra_body={"prunus": {"budget": {"nfe": 3}}})


def test_a_majority_needs_no_reward(client):
    """The answer that most of four samples come to, counted here."""
    answer, alone = ask(client, HARD, model="pocket-lm@majority-4", seed=4), offline(BestOfN(n=4), prompt=HARD, seed=4)
    votes = [v for n in sorted(alone.finished, key=lambda n: n.path) if (v := vote(alone.generator.output(n)))]
    assert vote(answer.choices[0].message.content) == max(votes, key=votes.count)
    assert answer.usage.prunus["reward"] is None and len(set(votes)) > 1


def test_with_a_process_reward_concurrent_searches_are_what_each_is_alone():
    """The packaged one, which keeps what it has read: six searches at a time, of two problems each three seeds."""
    steps = StepReward.load(pocket.path("prm"), name="prm")
    with searching(catalogue(rewards={"prm": steps}, strategies=("beam-4x4",))) as running:
        client, keys = openai_client(running), [(p, seed) for p in (PROBLEM, HARD) for seed in range(3)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda k: ask(client, k[0], "pocket-lm@beam-4x4", seed=k[1]), keys))
        assert running.part.engine.rows / running.part.engine.calls > 16
    for (prompt, seed), answer in zip(keys, answers):
        alone = StepReward.load(pocket.path("prm"), name="prm")
        tree = search(prompt, writer(), alone, Beam(keep=4, branch=4, reward="prm"), seed=seed)
        assert answer.choices[0].message.content == tree.best().output
        assert answer.usage.prunus["tokens_scored"] == tree.spent.scoring.tokens > 0
        assert answer.usage.prunus["scores"][0] == pytest.approx(tree.best().scores["prm"].value, abs=1e-4)


def test_all_turns_of_a_chat_are_read(client):
    messages = [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "answer 2"},
                {"role": "user", "content": [{"type": "text", "text": PROBLEM}]}]  # fmt: skip
    answer = client.chat.completions.create(model="pocket-lm", messages=messages, seed=1)
    turns = [*messages[:2], {"role": "user", "content": PROBLEM}]
    alone = search(Prompt("", turns), writer(), lambda t, p: 0.0, BestOfN(n=1), seed=1)
    assert answer.choices[0].message.content == alone.best().output
    assert answer.usage.prompt_tokens == len(writer().model.encode(Prompt("", turns)))


def test_several_answers_are_the_best_distinct_ones(client):
    answer = ask(client, HARD, model="pocket-lm@best-of-8", n=3, seed=6)
    alone = offline(BestOfN(n=8, reward="liking"), prompt=HARD, seed=6)
    by_score = sorted(alone.finished, key=lambda n: -n.scores["liking"].value)
    texts = list(dict.fromkeys(alone.generator.output(n) for n in by_score))
    assert [c.message.content for c in answer.choices] == texts[:3]
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert answer.usage.prunus["scores"] == sorted(answer.usage.prunus["scores"], reverse=True)
    alike = offline(BestOfN(n=8, reward="liking"), seed=6)  # of an easy problem all eight are the same
    assert len({alike.generator.output(n) for n in alike.finished}) == 1
    assert len(ask(client, model="pocket-lm@best-of-8", n=3, seed=6).choices) == 1


def test_prompts_of_a_list_are_answered_in_order(client):
    prompts = [f"{i}+{i}*2=?\n" for i in range(3)]
    answer = client.completions.create(model="pocket-lm@best-of-4", prompt=prompts, n=2, seed=9)
    for prompt in prompts:
        alone = offline(BestOfN(n=4, reward="liking"), prompt=prompt, seed=9, chat=False)
        mine = [c for c in answer.choices if c.text == alone.best().output]
        assert mine
    assert [c.index for c in answer.choices] == list(range(len(answer.choices)))


def test_without_a_seed_answers_differ_and_tell_how_to_get_them_again(client):
    first, second = (ask(client, HARD) for _ in range(2))
    assert first.usage.prunus["seed"] != second.usage.prunus["seed"]
    again = ask(client, HARD, seed=first.usage.prunus["seed"])
    assert again.choices[0].message.content == first.choices[0].message.content


# ---- usage -----------------------------------------------------------------------------------------------------------


def test_usage_is_that_of_the_tree(client):
    """Counted here from the tree of the search alone, node by node."""
    answer, alone = ask(client, HARD, seed=11, n=2), offline(prompt=HARD, seed=11)
    usage, prunus = answer.usage, answer.usage.prunus
    texts = [c.message.content for c in answer.choices]
    assert usage.prompt_tokens == len(writer().model.encode(HARD))
    drawn = sum(len(n.unit["tokens"]) for n in alone.nodes[1:])
    leaves = [next(n for n in alone.nodes[1:] if alone.generator.output(n) == t and not n.children) for t in texts]
    kept = {n for leaf in leaves for n in leaf.lineage}
    assert usage.completion_tokens == sum(len(n.unit["tokens"]) for leaf in leaves for n in leaf.lineage)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert prunus["tokens_generated"] == drawn
    assert prunus["tokens_pruned"] == drawn - sum(len(n.unit["tokens"]) for n in kept) > 0
    assert prunus["tokens_processed"] == alone.spent.generating.tokens and prunus["nfe"] == alone.spent.total.nfe
    assert prunus["candidates"] == len(alone.nodes) - 1 and prunus["flops"] == alone.spent.total.flops
    assert set(prunus["seconds"]) == {"wait", "generate", "score"} and prunus["strategy"] == "beam-2x2"


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_answer_in_settled_pieces(client, seed):
    """What was sent is never taken back: the pieces together are the answer that comes whole."""
    stream = list(ask(client, HARD, seed=seed, stream=True, stream_options={"include_usage": True}))
    whole = ask(client, HARD, seed=seed)
    pieces = [c.choices[0].delta.content for c in stream if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == whole.choices[0].message.content
    assert stream[0].choices[0].delta.role == "assistant" and stream[-2].choices[0].finish_reason == "stop"
    assert stream[-1].choices == [] and stream[-1].usage.prunus["tokens_generated"] > 0
    assert stream[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_plain_samples_are_streamed_line_by_line(client):
    plain = list(ask(client, model="pocket-lm", seed=0, stream=True))
    lines = [c.choices[0].delta.content for c in plain if c.choices[0].delta.content]
    assert len(lines) > 1 and all(line.endswith("\n") for line in lines[:-1])  # as each line is written
    assert not any(c.usage for c in plain)


def test_a_stream_of_several_answers(client):
    stream = list(ask(client, HARD, model="pocket-lm@best-of-6", seed=6, n=2, stream=True))
    whole = ask(client, HARD, model="pocket-lm@best-of-6", seed=6, n=2)
    for index in range(2):
        mine = [c.choices[0] for c in stream if c.choices and c.choices[0].index == index]
        assert "".join(c.delta.content or "" for c in mine) == whole.choices[index].message.content
        assert mine[-1].finish_reason == "stop"
    texts = client.completions.create(model="pocket-lm", prompt=["1+2=?\n", "2+3=?\n"], seed=6, stream=True)
    made = {0: "", 1: ""}
    for chunk in texts:
        made[chunk.choices[0].index] += chunk.choices[0].text
    assert all(made.values())


def test_an_error_after_the_headers_is_an_event(server):
    """The reward fails in the second round, when the first piece may be out already."""
    calls = []

    def failing(text, prompt):
        calls.append(text)
        if len(calls) > 8:
            raise ValueError("a secret of the server")
        return 0.0

    offered = catalogue()
    offered.rewards["failing"] = FunctionReward(failing, "failing")
    with logged() as lines, searching(offered) as running:
        sent = {"model": "pocket-lm@beam-2x2", "stream": True, "seed": 0, "prunus": {"reward": "failing"},
                "messages": [{"role": "user", "content": "(7+5)*3-4+8*2=?"}]}  # fmt: skip
        answer = running.post("/v1/chat/completions", sent)
        *_, last, rest = answer.text.split("\n\n")
        assert answer.status_code == 200 and rest == "" and "[DONE]" not in answer.text
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "search_failed" and "secret" not in last
        with pytest.raises(openai.APIError, match="search failed"):
            list(ask(openai_client(running), stream=True, extra_body={"prunus": {"reward": "failing"}}))
        calls.clear()
        refused = running.post("/v1/chat/completions", {**sent, "stream": False})
        assert refused.status_code == 500 and "secret" not in refused.text
    told = [json.loads(line) for line in lines if '"end": "failed"' in line]
    assert len(told) == 3 and "secret" not in "".join(lines)
    assert told[0]["error"] == "ValueError" and "failing" in told[0]["at"][-1]


def test_a_stream_that_has_nothing_to_say_is_kept_alive():
    gate = threading.Event()

    def slow(text, prompt):
        gate.wait(20)
        return 0.0

    offered = catalogue()
    offered.rewards["slow"] = FunctionReward(slow, "slow")
    with searching(offered, keep_alive=0.05) as running:
        sent = {"model": "pocket-lm@beam-2x2", "stream": True, "prunus": {"reward": "slow"},
                "messages": [{"role": "user", "content": PROBLEM}]}  # fmt: skip
        with running.client.stream("POST", "/v1/chat/completions", json=sent) as answer:
            lines = answer.iter_lines()
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in lines:
                if line.startswith(": "):
                    break
            gate.set()
            rest = [line for line in lines if line and not line.startswith(":")]
        assert rest[-1] == "data: [DONE]"


# ---- going away, and time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_goes_away_its_search_ends(server, stream):
    """A long search of which the client waits for 0.3 seconds only."""
    import httpx

    engine = server.part.engine
    before = server.part.books.ends["cancelled"]
    sent = {"model": "pocket-lm@best-of-16", "stream": stream, "max_tokens": 64, "n": 1,
            "messages": [{"role": "user", "content": "*".join(["(1+2-3+4)"] * 40) + "=?"}]}  # fmt: skip
    try:
        with httpx.Client(base_url=server.url, timeout=0.3) as client:
            if stream:
                with client.stream("POST", "/v1/chat/completions", json=sent) as answer:
                    next(answer.iter_lines())
            else:
                client.post("/v1/chat/completions", json=sent)
    except httpx.TimeoutException:
        pass
    until(lambda: server.part.books.ends["cancelled"] == before + 1)
    until(lambda: not engine.running and engine.states == 0)


def test_a_search_that_takes_too_long_is_refused():
    with searching(limits={"seconds": 0.05}) as running:
        content = "(1+2-3+4)*(5-6+7)*(8+9-1)=?"
        with pytest.raises(openai.APIStatusError) as refused:
            ask(openai_client(running), content, model="pocket-lm@best-of-16")
        assert refused.value.status_code == 408 and refused.value.body["code"] == "timeout"


def test_when_all_places_are_taken_clients_are_told_when_to_come_back():
    with searching(limits={"searches": 1, "queue": 1}) as running:
        statuses, retries = [], []

        def one(i):
            answer = running.post("/v1/chat/completions", {"model": "pocket-lm@best-of-16", "seed": i, "messages": [
                {"role": "user", "content": "(1+2-3+4)*(5-6+7)=?"}]})  # fmt: skip
            statuses.append(answer.status_code)
            retries.append(answer.headers.get("Retry-After"))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(statuses) == {200, 429} and len(statuses) == 8
        assert all((status == 429) == (retry is not None) for status, retry in zip(statuses, retries))


# ---- trees -----------------------------------------------------------------------------------------------------------


def test_a_tree_is_kept_for_its_key_alone(tmp_path):
    with searching(keys=(KEY, OTHER_KEY), trees=tmp_path / "trees", tree_seconds=60) as running:
        client = openai_client(running, KEY)
        answer = ask(client, seed=8, extra_body={"prunus": {"tree": True}})
        (id,) = answer.usage.prunus["trees"]
        shown = running.get(f"/v1/trees/{id}", KEY).json()
        assert shown["nodes"][0]["parent"] is None and shown["prompt"] == PROBLEM
        best = shown["nodes"][shown["result"]]
        assert best["status"] == "done" and "liking" in best["scores"]
        assert running.get(f"/v1/trees/{id}", OTHER_KEY).status_code == 404
        assert running.get(f"/v1/trees/{id}").status_code == 401
        assert running.get("/v1/trees/tree-" + "0" * 32, KEY).status_code == 404
        assert running.get("/v1/trees/..%2f..%2fsecret", KEY).status_code == 404
        folder = tmp_path / "trees" / id
        assert [oct(p.stat().st_mode & 0o777) for p in (folder, folder / "tree.json")] == ["0o700", "0o600"]
        assert Tree.load(folder, writer()).best().output == answer.choices[0].message.content
        assert (
            running.client.delete(f"/v1/trees/{id}", headers={"Authorization": f"Bearer {OTHER_KEY}"}).status_code
            == 404
        )
        assert running.client.delete(f"/v1/trees/{id}", headers={"Authorization": f"Bearer {KEY}"}).status_code == 204
        assert not folder.exists()


def test_a_stop_saves_the_trees_of_what_does_not_finish(tmp_path):
    """The client is told under which id; the tree goes on from there to the answer that it would have had."""
    gate, entered = threading.Event(), threading.Event()

    def slow(text, prompt):
        entered.set()
        gate.wait(20)
        return LIKING.function(text, prompt)

    offered = catalogue()
    offered.rewards["slow"] = FunctionReward(slow, "slow")
    answers = []
    with searching(offered, trees=tmp_path / "trees", limits={"drain_seconds": 0.3}) as running:
        sent = {"model": "pocket-lm@beam-2x2", "seed": 4, "prunus": {"reward": "slow"},
                "messages": [{"role": "user", "content": PROBLEM}]}  # fmt: skip
        thread = threading.Thread(target=lambda: answers.append(running.post("/v1/chat/completions", sent)))
        thread.start()
        until(entered.is_set)
        running.server.should_exit = True
        thread.join(30)
        gate.set()
    (answer,) = answers
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "stopping"
    (folder,) = (tmp_path / "trees").iterdir()
    assert folder.name in answer.json()["error"]["message"]
    slow_reward = FunctionReward(LIKING.function, "slow")
    strategy = Beam(keep=2, branch=2, reward="slow")
    whole = search(Tree.load(folder), writer(), slow_reward, strategy)
    assert whole.best().output == search(PROBLEM, writer(), slow_reward, strategy, seed=4).best().output


# ---- models and metrics ----------------------------------------------------------------------------------------------


def test_models_are_those_that_can_be_asked_for(client):
    names = [m.id for m in client.models.list()]
    assert names == ["pocket-lm", "pocket-lm@beam-2x2", "pocket-lm@best-of", "pocket-lm@majority-4"]
    assert client.models.retrieve("pocket-lm@beam-2x2").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_metrics_count_what_was_spent():
    with searching(admin_key=ADMIN) as running:
        usage = ask(openai_client(running), seed=1).usage
        text = running.get("/metrics", ADMIN).text
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        kinds = {k: float(values[f'prunus_search_tokens_total{{kind="{k}"}}']) for k in
                 ("generated", "processed", "scored", "kept")}  # fmt: skip
        prunus = usage.prunus
        assert kinds["generated"] == prunus["tokens_generated"] and kinds["processed"] == prunus["tokens_processed"]
        assert kinds["kept"] == usage.completion_tokens
        assert float(values["prunus_search_forwards_total"]) == prunus["nfe"]
        assert values['prunus_searches_total{end="finished"}'] == "1" and values["prunus_states"] == "0"
        assert float(values['prunus_search_seconds_total{part="generate"}']) > 0


def test_nothing_that_was_asked_or_answered_is_in_the_log():
    """Neither prompts nor answers nor keys; what a search took is."""
    with logged() as lines, searching(keys=(KEY,)) as running:
        answer = ask(openai_client(running, KEY), HARD, seed=1)
        running.post("/v1/chat/completions", {"model": HARD, "messages": [{"role": "user", "content": HARD}]}, KEY)
    text = "\n".join(lines)
    assert HARD not in text and KEY not in text and answer.choices[0].message.content.split("\n")[0] not in text
    (search_line,) = [json.loads(line) for line in lines if '"event": "search"' in line]
    assert search_line["generated"] == answer.usage.prunus["tokens_generated"] and search_line["end"] == "finished"
    assert search_line["request_id"].startswith("req-")


def test_a_keys_quota_counts_what_its_searches_took():
    with searching(keys=(KEY, OTHER_KEY), limits={"tokens_per_minute": 100}) as running:
        first, other = openai_client(running, KEY), openai_client(running, OTHER_KEY)
        took = ask(first, HARD, seed=1).usage.prunus
        assert took["tokens_processed"] + took["tokens_scored"] > 100
        with pytest.raises(openai.RateLimitError) as refused:
            until(lambda: not ask(first, HARD))
        assert (
            refused.value.body["code"] == "quota_exceeded" and int(refused.value.response.headers["Retry-After"]) >= 1
        )
        assert ask(other, PROBLEM, seed=1).choices
