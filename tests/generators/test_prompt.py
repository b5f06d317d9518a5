"""A prompt with turns or tokens is the text that rewards read, wherever a text is taken."""

import copy
import json
import pickle

from prunus.generators.prompt import Prompt
from prunus.tree import seed_of

TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]


def test_it_is_a_text():
    prompt = Prompt("q", TURNS, [5, 6])
    assert prompt == "q" and hash(prompt) == hash("q") and json.dumps(prompt) == '"q"' and prompt[:1] == "q"
    assert seed_of(0, prompt) == seed_of(0, "q")  # the draws of a server's generator depend on it
    assert prompt.messages == tuple(TURNS) and prompt.tokens == (5, 6)
    assert Prompt("q").messages == Prompt("q").tokens == ()


def test_copies_keep_turns_and_tokens():
    prompt = Prompt("q", TURNS, [5, 6])
    for again in (copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
        assert (again, again.messages, again.tokens) == (prompt, prompt.messages, prompt.tokens)


def test_turns_are_its_own():
    turns = [dict(turn) for turn in TURNS]
    prompt = Prompt("q", turns)
    turns[0]["content"] = "changed"
    assert prompt.messages[0]["content"] == "s"
