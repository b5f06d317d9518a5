"""OpenAIText against servers that are busy, broken, slow, lying or gone: nothing is lost, and the search goes on."""

import re
import time

import pytest
from language_server import LanguageServer
from loopback import Answer, closed_port, serve

from prunus import Tree, search
from prunus.errors import SearchError, ServerError
from prunus.generators.openai import OpenAIText
from prunus.strategies import Beam, BestOfN
from prunus.testing import assert_same_tree
from prunus.tree import Status

PROMPT = "7+5=?\n"
QUICK = {"back_off": 0.01, "retries": 2, "time_limit": 30}


@pytest.fixture
def site():
    with serve(LanguageServer(hints=True)) as site:
        yield site


def text(site, **settings):
    return OpenAIText(site.url, "tiny", **{"max_tokens": 16, "max_steps": 2, "share": False, **QUICK, **settings})


def shortest(content, prompt):
    return -float(len(content))


def rude(fault, honest, which=lambda body: body["seed"] % 2 == 1, times=10**9):
    """A server that does its work but for some requests, told by their seeds, at first. The probe's seed is 0."""
    left = [times]

    def answer(body):
        if body["seed"] and which(body) and left[0] > 0:
            left[0] -= 1
            return fault(honest(body)) if fault.__code__.co_argcount else fault()
        return honest(body)

    return answer


def cut_off():
    return Answer(b'{"choices": [', headers={"Content-Length": "1000"})


PASSING = {
    "429": lambda: Answer({"error": "busy"}, 429, {"Retry-After": "0.05"}),
    "500": lambda: Answer(b"out of memory", 500),
    "503": lambda: Answer(b"", 503),
    "cut off": cut_off,
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_and_nothing_is_lost(name, site):
    whole = search(PROMPT, text(site), shortest, Beam(2, 2))
    site.answer = rude(PASSING[name], site.answer, lambda body: True, times=2)
    assert_same_tree(whole, search(PROMPT, text(site), shortest, Beam(2, 2)), name)


def changed(**fields):
    def change(answer):
        return {**answer, "choices": [{**choice, **fields} for choice in answer["choices"]]}

    return change


LASTING = {
    "429": (PASSING["429"], r"answered 429: .*busy.*\(after 3 tries\)"),
    "500": (PASSING["500"], r"answered 500: out of memory \(after 3 tries\)"),
    "400": (lambda: Answer({"error": "too long"}, 400), "answered 400: .*too long"),
    "cut off": (cut_off, r"cannot be reached .*\(after 3 tries\)"),
    "not JSON": (lambda: Answer(b"<html>Bad gateway</html>"), "not JSON: <html>Bad gateway"),
    "half of it": (lambda: Answer(b'{"choices": [{"text": "7+'), "not JSON"),
    "an error": (
        lambda: {"error": {"message": "no memory"}},
        "answered .*no memory.*; a completion has a list of choices",
    ),
    "no choices": (lambda: {"choices": []}, "a completion has a list of choices"),
    "odd choices": (lambda: {"choices": ["7+5=12"]}, "a completion has a list of choices"),
    "no text": (changed(text=7), "which has no text"),
    "no reason": (changed(finish_reason=None), "ended the text for the reason 'None'"),
    "filtered": (changed(finish_reason="content_filter"), "ended the text for the reason 'content_filter'"),
    "slow": (lambda: time.sleep(2), "no answer within time_limit = 0.4 seconds"),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_candidate_whose_request_fails_is_a_failed_one_and_the_others_go_on(name, site):
    fault, says = LASTING[name]
    generator = text(site, time_limit=0.4 if name == "slow" else 30)
    site.answer = rude(fault, site.answer)
    tree = search(PROMPT, generator, shortest, BestOfN(6))
    failed = tree.having(Status.FAILED)
    assert 0 < len(failed) < 6 and tree.result.status is Status.DONE
    assert all(re.search(says, node.reason) and node.unit is None and not node.scores for node in failed)
    assert tree.spent.generating.tokens == sum(node.cost.tokens for node in tree.nodes)


def test_siblings_that_share_a_request_share_its_failure(site):
    site.answer = rude(PASSING["500"], site.answer, lambda body: body.get("n") == 3)
    with pytest.raises(SearchError, match=r"all 3 candidates of round 0 failed: .*answered 500"):
        search(PROMPT, text(site, share=True), shortest, BestOfN(3))


def test_a_text_that_is_too_long_does_not_mean_that_siblings_cannot_be_asked_for_together(site):
    generator = text(site, share=True)
    generator.begin(PROMPT)
    site.answer = lambda body: Answer({"error": "too long"}, 400)
    with pytest.raises(SearchError, match=r"all 3 candidates of round 0 failed: .*answered 400: .*too long"):
        search(PROMPT, generator, shortest, BestOfN(3))
    assert [body.get("n") for body in site.seen[-4:]] == [3, None, None, None] and generator.client.ability.several


def test_a_server_that_dies_leaves_the_tree_which_goes_on_when_it_is_back(site, tmp_path):
    honest = site.answer = LanguageServer(hints=True, boost={"\n": 5.0, "": -50.0})  # none ends with its first line
    whole = search(PROMPT, text(site), shortest, Beam(2, 2))
    site.answer = rude(PASSING["503"], honest, lambda body: body["prompt"].strip() != PROMPT.strip())
    with pytest.raises(
        SearchError, match=r"candidates of round 1 failed: .*generator 'openai'.*answered 503"
    ) as caught:
        search(PROMPT, text(site), shortest, Beam(2, 2), save_to=tmp_path)
    site.answer = honest
    assert_same_tree(whole, search(caught.value.tree, text(site), shortest, Beam(2, 2)), "in memory")
    assert_same_tree(whole, search(Tree.load(tmp_path), text(site), shortest, Beam(2, 2)), "saved")


def test_a_dead_server_is_named_before_anything_is_grown():
    dead = OpenAIText(f"http://127.0.0.1:{closed_port()}/v1", "tiny", **QUICK)
    with pytest.raises(
        ServerError, match=r"generator 'openai': the server .*/v1 cannot be reached .*after 3 tries"
    ) as caught:
        search(PROMPT, dead, shortest, Beam(2, 2))
    assert len(caught.value.tree.nodes if caught.value.tree else [0]) == 1


@pytest.mark.parametrize(
    "answer, says",
    [
        (
            Answer({"error": "no model tiny"}, 404),
            "no such address, or no model 'tiny'; .*url.*chat=True.*no model tiny",
        ),
        (Answer({"error": "wrong key"}, 401), "answered 401: .*wrong key"),
        (Answer({"error": "no such field"}, 422), "answered 422: .*no such field"),
        ([1, 2], r"answered \[1, 2\]; a completion has a list of choices"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_at_once(site, answer, says):
    site.answer = lambda body: answer
    with pytest.raises(ServerError, match=says):
        text(site).begin(PROMPT)


def test_so_many_requests_are_under_way_at_a_time(site):
    honest = site.answer

    def slow(body):
        time.sleep(0.03)
        return honest(body)

    site.answer = slow
    search(PROMPT, text(site, concurrency=3), shortest, BestOfN(9))
    assert site.busiest == 3
