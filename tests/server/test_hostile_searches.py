"""What strangers send to the routes of searches: each is refused by name before anything is queued."""

import json

import pytest
from server_searches import PROBLEM, catalogue, searching
from serving import KEY

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LIMITS = {"n": 4, "candidates": 16, "max_tokens": 64, "search_tokens": 512, "prompt_characters": 400, "stops": 4}


@pytest.fixture(scope="module")
def server():
    with searching(catalogue(strategies=("beam", "best-of-4", "majority")), keys=(KEY,), limits=LIMITS) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_queued(server):
    before = server.part.engine.calls, sum(server.part.books.ends.values())
    yield
    assert (server.part.engine.calls, sum(server.part.books.ends.values())) == before
    assert not server.part.engine.running and not server.part.engine.waiting


def refused(server, sent, path=CHAT, status=400):
    content = sent if isinstance(sent, (bytes, str)) else json.dumps(sent)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = server.client.post(path, content=content, headers=headers)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert set(error) == {"message", "type", "param", "code"}
    return error


def chat(**more):
    return {"model": "pocket-lm", "messages": [{"role": "user", "content": PROBLEM}], **more}


def text(**more):
    return {"model": "pocket-lm", "prompt": PROBLEM, **more}


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "logit_bias": {"5": 100},
    "presence_penalty": 0.5,
    "frequency_penalty": -1,
    "repetition_penalty": 1.1,
    "min_p": 0.1,
    "best_of": 4,
    "modalities": ["text", "audio"],
    "guided_regex": "(a+)+$",
    "guided_json": {},
    "structured_outputs": {"regex": "x"},
    "chat_template": "{{ 1 }}",
    "continue_final_message": True,
    "add_generation_prompt": False,
    "stop_token_ids": [1],
    "ignore_eos": True,
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_fields_that_would_change_the_answer_are_refused_by_name(server, field):
    error = refused(server, chat(**{field: UNSUPPORTED[field]}))
    assert error["param"] == field and error["code"] == "unsupported_field"


def test_echo_and_suffix_belong_to_completions_and_are_refused(server):
    assert refused(server, text(echo=True), TEXT)["param"] == "echo"
    assert refused(server, text(suffix="x"), TEXT)["param"] == "suffix"
    assert refused(server, text(messages=[]), TEXT)["param"] == "messages"
    assert refused(server, chat(prompt="x"))["param"] == "prompt"


WRONG = {
    "n": [0, 5, True, 1.0, "2", -1],
    "temperature": [-0.1, 2.1, True, "1", []],
    "top_p": [0, 1.5, False, "x"],
    "top_k": [-1, True, 1.5],
    "max_tokens": [0, 65, True, 10**12, "9"],
    "seed": [True, 1.5, "x"],
    "stop": ["", [""], ["a"] * 5, ["a"] * 100_000, "x" * 257, [1], {}],
    "stream": [1, "true", []],
    "stream_options": [[], True],
    "prunus": [[], "beam", True],
}


@pytest.mark.parametrize("field", WRONG)
def test_values_that_are_not_allowed(server, field):
    for value in WRONG[field]:
        error = refused(server, chat(**{field: value}))
        assert error["param"] == field, (value, error)


OWN = {
    "prunus": [{"strategie": "beam"}, {"a b\r\nX: y": 1}],
    "prunus.strategy": [{"strategy": 5}, {"strategy": True}],
    "prunus.reward": [{"strategy": "beam", "reward": "other"}, {"strategy": "beam", "reward": "os:system"}],
    "prunus.keep": [
        {"strategy": "beam", "keep": True},
        {"strategy": "beam", "keep": 0},
        {"strategy": "beam", "keep": 2.0},
    ],
    "prunus.budget": [{"budget": 5}, {"budget": {"nfes": 1}}],
    "prunus.budget.nfe": [{"budget": {"nfe": 0}}, {"budget": {"nfe": True}}, {"budget": {"nfe": 1.5}}],
    "prunus.budget.seconds": [{"budget": {"seconds": -1}}, {"budget": {"seconds": "1"}}],
    "tree": [{"tree": 1}],
}


@pytest.mark.parametrize("param", OWN)
def test_keys_inside_prunus(server, param):
    for own in OWN[param]:
        assert refused(server, chat(prunus=own))["param"] == param, own


@pytest.mark.parametrize(
    "strategy",
    ["os:system", "../beam", "beam-4x", "beam-2x2x2", "beam-0x1", "particles-4", "best-of-5", "plain", "Beam"],
)
def test_strategies_that_the_operator_did_not_list(server, strategy):
    """Never an import path, a folder or an expression; nor a method that is not listed, or with other numbers."""
    assert refused(server, chat(prunus={"strategy": strategy}))["param"] == "prunus"
    assert refused(server, chat(model=f"pocket-lm@{strategy}"), status=404)["param"] == "model"
    assert refused(server, chat(model="pocket-lm@best-of-4", prunus={"n": 2}))["code"] == "strategy_not_offered"


@pytest.mark.parametrize("model", ["gpt-4o", "/etc/passwd", "org/model", "http://127.0.0.1/", "", "pocket-lm@"])
def test_models_that_the_operator_did_not_list(server, model):
    refused(server, chat(model=model), status=400 if model == "pocket-lm@" else 404)
    assert refused(server, chat(model=None))["param"] == "model"


def test_the_product_of_candidates_and_length_is_bounded(server):
    """Each number alone is allowed: 16 candidates, 64 tokens; together they may have 512."""
    own = {"strategy": "beam", "keep": 4, "branch": 4}
    assert refused(server, chat(prunus=own, max_tokens=64))["param"] == "max_tokens"
    assert refused(server, chat(prunus=own, max_completion_tokens=33))["param"] == "max_completion_tokens"
    assert refused(server, chat(prunus={**own, "branch": 5}))["code"] == "above_limit"
    assert refused(server, text(prompt=["1+1=?"] * 4, n=4, max_tokens=33), TEXT)["param"] == "max_tokens"
    assert refused(server, chat(model="pocket-lm@beam-1x1", n=2))["param"] == "n"
    assert refused(server, chat(max_tokens=5, max_completion_tokens=5))["param"] == "max_tokens"


MESSAGES = [
    None, [], "hello", {}, [1], [None], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}],
    [{"role": "User", "content": "x"}], [{"role": "user", "content": 5}], [{"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
    [{"role": "user", "content": [{"type": "text", "text": 1}]}], [{"role": "assistant", "content": "x"}],
    [{"role": "user", "content": "x" * 401}], [{"role": "user", "content": "1+1=?"}] * 100,
    [{"role": "assistant", "content": "x", "tool_calls": [{}]}, {"role": "user", "content": "x"}],
]  # fmt: skip


@pytest.mark.parametrize("messages", MESSAGES)
def test_messages(server, messages):
    assert refused(server, chat(messages=messages))["param"].startswith("messages")


PROMPTS = [
    None, [], {}, True, 5, [True], [1.5], [[]], [[1], "a", []], ["a"] * 5, "x" * 401, ["1+1=?", None],
    [-1], [10**9], [2**63 - 1], [[5, 10**6]], [1] * 401,
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(server, prompt):
    """Token numbers beyond the vocabulary too."""
    assert refused(server, text(prompt=prompt), TEXT)["param"] == "prompt"


def test_prompts_that_the_model_cannot_read(server):
    assert "cannot write" in refused(server, chat(messages=[{"role": "user", "content": "é"}]))["message"]
    assert "empty" in refused(server, text(prompt=""), TEXT)["message"]


BODIES = {
    "not JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "NaN": (b'{"model": "pocket-lm", "temperature": NaN}', 400),
    "Infinity": (b'{"model": "pocket-lm", "temperature": -Infinity}', 400),
    "1e999": (b'{"model": "pocket-lm", "temperature": 1e999}', 400),
    "twice": (b'{"model": "pocket-lm", "model": "pocket-lm"}', 400),
    "deep": (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "giant integer": (b'{"seed": ' + b"9" * 5000 + b"}", 400),
    "65 bits": (b'{"seed": 18446744073709551616}', 400),
    "lone surrogate": (b'{"model": "pocket-lm", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    "not UTF-8": (b'{"model": "\xff"}', 400),
    "huge": (b'{"model": "' + b"x" * 2**21 + b'"}', 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(server, name):
    content, status = BODIES[name]
    refused(server, content, status=status)


def test_forms_and_other_methods(server):
    headers = {"Authorization": f"Bearer {KEY}"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = server.client.post(CHAT, content=json.dumps(chat()), headers={**headers, "Content-Type": kind})
        assert answer.status_code == 415
    assert server.client.get(CHAT, headers=headers).status_code == 405
    answer = server.client.options(
        CHAT, headers={**headers, "Origin": "http://evil", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in {k.lower() for k in answer.headers}
