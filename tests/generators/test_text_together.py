"""Generators that share a model grow in one call, each by its own settings, as each would alone."""

import pytest
from tiny_text import model, planted

from prunus import search
from prunus.errors import ModelError, PromptError, SettingError
from prunus.generators.prompt import Prompt
from prunus.generators.text import TextGenerator
from prunus.loop import Grow
from prunus.roles import FunctionReward
from prunus.strategies import BestOfN
from prunus.testing.compare import differences

NONE = FunctionReward(lambda text, prompt: 0.0, "none")
SETTINGS = [{}, {"temperature": 0.3}, {"top_p": 0.5, "max_tokens": 7}, {"stop": ["a", "e"], "top_k": 5}]


@pytest.fixture(scope="module")
def base():
    return TextGenerator(model(), step=4, max_tokens=12)


def grown(generators, asks_of):
    """All asks in one call of the first generator; trees go on to their ends."""
    trees = [planted(g, f"prompt {i}", seed=i) for i, g in enumerate(generators)]
    while rows := [a for tree in trees for a in tree.number([tree.ask(n) for n in tree.frontier] * asks_of(tree))]:
        results = iter(generators[0].grow(rows))
        for tree in trees:
            mine = [a for a in rows if a.prompt == tree.prompt]
            tree.add(mine, [next(results) for _ in mine])
            tree.settle(())
    return trees


def test_each_keeps_its_settings_in_a_shared_call(base):
    """In one call of them all, every candidate is what a generator of these settings writes alone."""
    together = [base.adjusted(**some) for some in SETTINGS]
    assert len({Grow(g, ()).call for g in together}) == 1
    trees = grown(together, lambda tree: 2 if tree.root.status.value == "open" else 1)
    for i, (tree, some) in enumerate(zip(trees, SETTINGS)):
        alone = TextGenerator(base.model, step=4, **{"max_tokens": 12, **some})
        offline = search(tree.prompt, alone, NONE, BestOfN(n=2), seed=i)
        texts = [alone.output(n) for n in offline.finished]
        assert [alone.output(n) for n in tree.finished] == texts
    assert trees[0].nodes[1].unit["tokens"].tolist() != trees[1].nodes[1].unit["tokens"].tolist()


def test_the_adjusted_generator_is_the_one_made_with_these_settings(base):
    made = TextGenerator(base.model, step=4, max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, stop=["q"])
    adjusted = base.adjusted(max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, stop=["q"])
    assert adjusted.spec() == made.spec() and base.spec() != made.spec()
    a, b = (search("ab", g, NONE, BestOfN(n=3), seed=5) for g in (made, adjusted))
    assert not list(differences(a, b))


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"stop": [""]}, {"max_tokens": 0}])
def test_settings_that_are_not_allowed(base, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        base.adjusted(**wrong)


def test_another_models_generator_is_another_family(base):
    assert TextGenerator(model("qwen2"), step=4).family != base.family


# ---- prompts that are more than a text -------------------------------------------------------------------------------


def test_tokens_are_taken_as_they_are(base):
    tokens = base.model.encode("ab cd")
    assert base.model.encode(Prompt("what rewards read", tokens=tokens)) == tokens
    for odd in (-1, base.model.config.vocab_size):
        with pytest.raises(PromptError, match=f"token {odd} is not one"):
            base.model.encode(Prompt("", tokens=[5, odd]))


def test_the_turns_of_a_chat_go_through_the_template(base):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template += "{% if messages[0].role == 'assistant' %}{{ raise_exception('begin with the user') }}{% endif %}"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(ModelError, match="no chat template"):
        base.model.encode(Prompt("u", turns))
    base.model.tokenizer.chat_template = template
    try:
        assert base.model.decode(base.model.encode(Prompt("u", turns))) == "<system>s<user>u"
        assert base.model.decode(base.model.encode("u")) == "<user>u"
        with pytest.raises(PromptError, match="begin with the user"):
            base.model.encode(Prompt("u", [{"role": "assistant", "content": "u"}]))
    finally:
        base.model.tokenizer.chat_template = None
