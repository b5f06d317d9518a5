"""ServerOutcomeReward and ServerStepReward against a fake of vLLM's routes that behaves, and misbehaves."""

import math
import time

import pytest
from loopback import Answer, closed_port, serve
from text_folders import write_folder

from prunus import Status, search
from prunus.errors import SearchError, ServerError, SettingError
from prunus.generators.written import Written
from prunus.rewards import ServerOutcomeReward, ServerStepReward
from prunus.roles import Failed
from prunus.score import Score
from prunus.strategies import BestOfN
from prunus.testing import ScriptedText, check_reward

QUICK = {"back_off": 0.01, "retries": 1, "time_limit": 20}
PROMPT = "1+2=?"
WRITER = ScriptedText(lambda steps: {} if steps else {f"answer {i}\n": 1.0 for i in range(50)})
TEXTS = ["1+2=3\nanswer 3\n", "1+2=4\nanswer 4\n", "answer 7\n"]


def value(prompt, text):
    """A score that depends on both texts."""
    return (sum(map(ord, prompt + text)) % 97) / 97


def vllm(body):
    """The shapes that vLLM answers, recorded from its protocol: every route, by what is in the body."""
    about = {"id": "score-1", "created": 1, "model": body.get("model", "m"), "object": "list"}
    usage = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": None}
    if "input" in body:
        data = [{"index": i, "object": "pooling", "data": steps(t)} for i, t in enumerate(body["input"])]
    elif "messages" in body:
        data = [{"index": 0, "object": "pooling", "data": steps(body["messages"][1]["content"])}]
    elif "query" in body:
        scores = [value(body["query"], d) for d in body["documents"]]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        results = [{"index": i, "document": {"text": body["documents"][i], "multi_modal": None},
                    "relevance_score": scores[i]} for i in order]  # fmt: skip
        return {**about, "results": results, "usage": usage}
    else:
        data = [{"index": i, "object": "score", "score": value(body["text_1"], d)}
                for i, d in enumerate(body["text_2"])]  # fmt: skip
    return {**about, "data": data, "usage": usage}


def steps(text):
    """A row for each line's end, of the text up to it."""
    ends = [i + 1 for i, c in enumerate(text) if c == "\n"]
    return [[1 - value("", text[:end]), value("", text[:end])] for end in ends]


def tokens(text):
    """A row for each character, a token each."""
    return [[1 - value("", text[: i + 1]), value("", text[: i + 1])] for i in range(len(text))]


@pytest.fixture
def site():
    with serve(vllm) as site:
        yield site


def outcome(site, **settings):
    return ServerOutcomeReward(site.url, "m", **{**QUICK, **settings})


def process(site, **settings):
    return ServerStepReward(site.url, "m", **{**QUICK, **settings})


# ---- score and rerank ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["score", "rerank"])
def test_sends_each_prompt_with_its_texts_in_batches_and_keeps_the_order(site, route):
    contents, prompts = [*"abcde", "f"], ["p", "q", "p", "p", "q", "p"]
    scores = outcome(site, route=route, batch=3).score(contents, prompts)
    assert scores == pytest.approx([value(p, c) for c, p in zip(contents, prompts)])
    first, second = ("text_1", "text_2") if route == "score" else ("query", "documents")
    sent = sorted((b[first], b[second], b["model"]) for b in site.seen)
    assert sent == [("p", ["a", "c", "d"], "m"), ("p", ["f"], "m"), ("q", ["b", "e"], "m")]


@pytest.mark.parametrize("route", ["score", "rerank"])
def test_keeps_the_contract(site, route):
    check_reward(outcome(site, route=route, batch=2), TEXTS, [PROMPT, "2+2=?", PROMPT])


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/v1", "{}/v1/"])
def test_the_url_is_the_servers_root_with_or_without_v1(site, url):
    reward = ServerOutcomeReward(url.format(site.url), extra={"user": "me"}, **QUICK)
    assert reward.client.server.url == site.url and reward.client.fixed == {"user": "me"}
    assert reward.score(["a"], ["p"]) == [value("p", "a")]


def test_only_the_candidate_that_is_refused_fails(site):
    def strict(body):
        if "too long" in body["text_2"]:
            return Answer({"error": {"message": "the prompt has 9999 tokens"}}, 400)
        return vllm(body)

    site.answer = strict
    scores = outcome(site).score(["a", "too long", "b"], ["p"] * 3)
    assert (scores[0], scores[2]) == (value("p", "a"), value("p", "b"))
    assert isinstance(scores[1], Failed) and "answered 400" in scores[1].reason and "9999 tokens" in scores[1].reason


def changed(**fields):
    """An answer whose entries have these fields, functions of the index."""

    def answer(body):
        made = vllm(body)
        for name in ("data", "results"):
            for i, entry in enumerate(made.get(name, ())):
                entry.update({k: f(i) if callable(f) else f for k, f in fields.items()})
        return made

    return answer


FAULTS = {
    "too few": (lambda b: {**vllm(b), "data": vllm(b)["data"][1:]}, "returned 2 entries .* for 3 candidates"),
    "twice": (changed(index=lambda i: 0), r"indices \[0\] for 3 candidates"),
    "beyond": (changed(index=lambda i: i + 1), r"indices \[1, 2, 3\]"),
    "truths": (changed(index=lambda i: bool(i)), "returned 3 entries"),
    "no index": (changed(index=None), "returned 3 entries"),
    "a word": (changed(score="good"), "gave the score good"),
    "a truth": (changed(score=True), "gave the score True"),
    "a list": (changed(score=lambda i: [0.5]), r"gave the score \[0.5\]"),
    "not entries": (lambda b: {"data": [0.5] * 3}, "it must answer"),
    "no data": (lambda b: {"error": {"message": "no"}}, 'it must answer {"data"'),
    "a list of scores": (lambda b: [0.5] * 3, "it must answer"),
    "html": (lambda b: Answer(b"<html>"), "not JSON"),
    "a redirect": (lambda b: Answer(b"", 307, {"Location": "http://127.0.0.1:1/"}), "answered 307"),
    "401": (lambda b: Answer({"error": "key"}, 401), "answered 401"),
    "404": (lambda b: Answer({"error": "no model"}, 404), "answered 404: .*no model"),
    "500": (lambda b: Answer(b"no memory", 500), r"answered 500: no memory \(after 2 tries\)"),
    "slow": (lambda b: time.sleep(3), "no answer within time_limit = 0.5 seconds"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_does_not_answer_as_it_should_is_named(site, name):
    site.answer, message = FAULTS[name]
    with pytest.raises(ServerError, match=f"reward 'orm'.*{message}"):
        outcome(site, name="orm", time_limit=0.5 if name == "slow" else 20).score(list("abc"), ["p"] * 3)


@pytest.mark.parametrize(
    ("given", "got"), [("null", "nan"), ("NaN", "nan"), ("1e999", "inf"), ("1" + "0" * 400, "inf")]
)
def test_a_candidate_without_a_number_fails_alone(site, given, got):
    def answer(body):
        if len(body["text_2"]) == 1:
            return vllm(body)
        entries = ", ".join('{"index": %d, "score": %s}' % (i, n) for i, n in enumerate((given, "0.5")))  # noqa: UP031
        return Answer(f'{{"data": [{entries}]}}'.encode())

    site.answer = answer
    tree = search(PROMPT, WRITER, outcome(site, name="orm"), BestOfN(2))
    (failed,) = tree.having(Status.FAILED)
    assert failed.reason == f"reward 'orm' gave {got}" and tree.best().scores["orm"].value == 0.5


# ---- pooling ---------------------------------------------------------------------------------------------------------


def expected(text, layout="{}\n"):
    """The scores of the steps of a text, by the fake's own formula."""
    whole = layout.format(PROMPT) + text
    ends = [i + 1 for i, c in enumerate(whole) if c == "\n" and i >= len(PROMPT) + 1]
    return [value("", whole[:end]) for end in ends]


def summed(scores):
    parts = {"min": min(scores), "max": max(scores), "mean": sum(scores) / len(scores)}
    return {**parts, "product": math.prod(scores), "sum": sum(scores)}


def test_rows_of_the_separators_become_the_scores_of_the_steps(site):
    scores = process(site, batch=2).score(TEXTS, [PROMPT] * 3)
    for score, text in zip(scores, TEXTS):
        assert score.value == pytest.approx(expected(text)[-1])
        assert dict(score.parts) == pytest.approx(summed(expected(text)))
    assert sorted(len(b["input"]) for b in site.seen) == [1, 2]
    assert site.seen[0]["model"] == "m" and f"{PROMPT}\n{TEXTS[0]}" in [t for b in site.seen for t in b["input"]]


def test_keeps_the_contract_of_rewards(site):
    check_reward(process(site, batch=2), TEXTS, [PROMPT, "2+2=?", PROMPT])


def test_steps_are_the_writers_whatever_is_in_them(site):
    written = Written(["1+2=3\nso\n", "answer 3\n"])  # the first step holds a separator
    (score,) = process(site).score([written], ["a prompt\nof two lines"])
    whole = "a prompt\nof two lines\n1+2=3\nso\nanswer 3\n"
    ends = [whole.index("so\n") + 3, len(whole)]
    assert dict(score.parts) == pytest.approx(summed([value("", whole[:end]) for end in ends]))


def test_an_unfinished_step_is_scored_with_its_separator_and_is_partial(site):
    (score,) = process(site).score([Written(["1+2=3\n", "answ"], whole=False)], [PROMPT])
    first, second = expected("1+2=3\nansw\n")
    assert score.value == score.parts["partial"] == pytest.approx(second)
    assert score.parts["min"] == score.parts["sum"] == pytest.approx(first)


def test_a_text_without_a_step_is_not_sent_and_has_no_score(site):
    assert process(site).score(["", Written()], [PROMPT] * 2) == [None, None] and site.seen == []


def test_the_layout_is_the_users(site):
    reward = process(site, layout="Q: {prompt}\n\nA: {steps}\n(end)", separator=" ки\n")
    site.answer = lambda body: {"data": [{"index": 0, "data": [[0.1, 0.9], [0.4, 0.6]]}]}
    (score,) = reward.score([Written(["one ки\n", "two ки\n"])], ["{steps}?"])
    assert site.seen[0]["input"] == ["Q: {steps}?\n\nA: one ки\ntwo ки\n\n(end)"]
    assert (score.value, score.parts["max"]) == (0.6, 0.9)


def test_a_chat_is_laid_out_by_the_server(site):
    scores = process(site, chat=True).score(TEXTS[:2], [PROMPT] * 2)
    assert [s.value for s in scores] == pytest.approx([value("", t) for t in TEXTS[:2]])
    assert site.seen[0]["messages"][0] == {"role": "user", "content": PROMPT}


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    """A tokenizer with a token for each character."""
    return str(write_folder(tmp_path_factory.mktemp("characters"), "LlamaForTokenClassification"))


def test_of_rows_of_all_tokens_those_of_the_separators_are_taken(site, characters):
    site.answer = lambda b: {"data": [{"index": i, "data": tokens(t)} for i, t in enumerate(b["input"])]}
    scores = process(site, tokenizer=characters).score(TEXTS, [PROMPT] * 3)
    for score, text in zip(scores, TEXTS):
        assert dict(score.parts) == pytest.approx(summed(expected(text)))
    without = process(site).score(TEXTS[:1], [PROMPT])[0]
    assert without == Failed("the server gave 21 rows for 3 separators; if it gives one for each token, give tokenizer")


ROWS = {
    "one too few": (lambda rows: rows[1:], r"gave 2 rows for 3 separators"),
    "one too many": (lambda rows: [*rows, [0.5, 0.5]], "gave 4 rows for 3 separators"),
    "none": (lambda rows: [], "gave 0 rows for 3 separators"),
    "logits": (lambda rows: [[-3.0, 4.5]] * len(rows), "gave 4.5, which is no probability"),
    "null": (lambda rows: [[None, None]] * len(rows), "gave nan, which is no probability"),
}


@pytest.mark.parametrize("name", ROWS)
def test_wrong_rows_fail_their_candidate_and_the_others_go_on(site, name):
    change, reason = ROWS[name]

    def answer(body):
        made = vllm(body)
        made["data"][0]["data"] = change(made["data"][0]["data"])
        return made

    site.answer = answer
    scores = process(site).score(TEXTS, [PROMPT] * 3)
    assert isinstance(scores[0], Failed) and reason in scores[0].reason
    assert [s.value for s in scores[1:]] == pytest.approx([expected(t)[-1] for t in TEXTS[1:]])


def test_a_failed_candidate_has_its_reason_in_the_tree(site):
    def answer(body):
        made = vllm(body)
        made["data"][0]["data"] = []
        return made

    site.answer = answer
    tree = search(PROMPT, WRITER, process(site, name="prm"), BestOfN(3))
    (failed,) = tree.having(Status.FAILED)
    assert failed.reason.startswith("reward 'prm': the server gave 0 rows for")
    site.answer = lambda b: {"data": [{"index": i, "data": []} for i in range(len(b["input"]))]}
    with pytest.raises(SearchError, match=r"all 3 candidates of round .* failed: reward 'prm': the server gave 0 rows"):
        search(PROMPT, WRITER, process(site, name="prm"), BestOfN(3))


@pytest.mark.parametrize(
    ("data", "message"),
    [("AAAA", "gave AAAA where rows"), (None, "gave None where rows"), ([["a", "b"]] * 3, "gave the score b"),
     ([[]] * 3, "has no column"), ([{"p": 1}] * 3, "gave the score"), ([[True, False]] * 3, "gave the score False")],
)  # fmt: skip
def test_rows_that_are_no_rows_end_the_search(site, data, message):
    site.answer = lambda b: {"data": [{"index": i, "data": data} for i in range(len(b["input"]))]}
    with pytest.raises(ServerError, match=f"reward 'step-server'.*{message}"):
        process(site).score(TEXTS[:1], [PROMPT])


def test_rows_of_one_number_and_another_column(site):
    site.answer = lambda b: {"data": [{"index": 0, "data": [0.1, 0.2, 0.3]}]}
    assert process(site).score(TEXTS[:1], [PROMPT])[0].value == 0.3
    site.answer = lambda b: {"data": [{"index": 0, "data": [[0.9, 0.1]] * 3}]}
    assert process(site, good=0).score(TEXTS[:1], [PROMPT])[0] == Score(0.9, summed([0.9, 0.9]))


# ---- both ------------------------------------------------------------------------------------------------------------


def test_a_dead_server_is_named():
    for kind in (ServerOutcomeReward, ServerStepReward):
        with pytest.raises(ServerError, match="cannot be reached"):
            kind(f"http://127.0.0.1:{closed_port()}", **QUICK).score(TEXTS, [PROMPT] * 3)


def test_what_makes_them_again_has_no_secret(site, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    for kind in (ServerOutcomeReward, ServerStepReward):
        kind(site.url, "m", key="MY_KEY").score(TEXTS[:1], [PROMPT])
        named = kind(site.url.replace("//", "//me:password@"), "m", key="MY_KEY")
        assert named.spec()["url"] == site.url
        assert not any(word in str(named.spec()) for word in ("secret", "password"))
    assert all(h["Authorization"] == "Bearer sk-secret" for h in site.headers)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ServerOutcomeReward, {"route": "embed"}, "route = 'embed' .* score or rerank"),
        (ServerOutcomeReward, {"batch": 0}, "batch = 0"),
        (ServerStepReward, {"batch": 0}, "batch = 0"),
        (ServerStepReward, {"separator": ""}, "separator = ''"),
        (ServerStepReward, {"layout": "{steps}"}, "layout"),
        (ServerStepReward, {"layout": "{prompt}{steps}{steps}"}, "layout"),
        (ServerStepReward, {"chat": True, "tokenizer": "folder"}, "tokenizer"),
        (ServerStepReward, {"url": "nowhere"}, "url"),
    ],
)
def test_settings_are_checked(kind, settings, message):
    with pytest.raises(SettingError, match=message):
        kind(**{"url": "http://127.0.0.1:1", **settings})
