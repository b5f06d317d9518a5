"""The scripted writer: the contract, its probabilities, its cuts."""

from collections import Counter

import pytest

from prunus import Budget, Tree, View, search
from prunus.errors import SettingError
from prunus.strategies import BestOfN
from prunus.testing import ScriptedText, ScriptedTextHow, check_generator

COUNTING = {(): {"one\n": 0.75, "uno\n": 0.25}, 1: {"two\n": 0.5, "three\n": 0.5}, 2: {}}
WRITER = ScriptedText(lambda written: COUNTING[len(written) or ()])


@pytest.mark.parametrize("how", [{}, {"steps": 2}, {"steps": 3, "temperature": 0.5}])
def test_it_keeps_the_contract(how):
    check_generator(WRITER, ["count", "count again"], how=how)
    check_generator(ScriptedText(WRITER.steps, most=6), ["count", "count again"], how=how)


def grow(tree, parents, **how):
    asks = tree.number([tree.ask(p, **how) for p in parents])
    return tree.add(asks, tree.generator.grow(asks))


def planted(writer, seed=0):
    tree = Tree("count", seed, writer)
    tree.root.state = writer.begin("count")
    return tree


def test_steps_come_with_their_probabilities():
    tree = planted(WRITER)
    counts = Counter(n.unit["text"] for n in grow(tree, [tree.root] * 2000))
    assert abs(counts["one\n"] / 2000 - 0.75) < 0.04
    cold = Counter(n.unit["text"] for n in grow(tree, [tree.root] * 2000, temperature=0.5))
    assert abs(cold["one\n"] / 2000 - 0.9) < 0.03  # 0.75^2 : 0.25^2 = 9 : 1
    greedy = grow(tree, [tree.root] * 50, temperature=0.0)
    assert {n.unit["text"] for n in greedy} == {"one\n"}


def test_a_step_that_is_left_goes_on_as_the_same_step():
    tree = planted(WRITER)
    [whole] = grow(tree, [tree.root])
    tree = planted(WRITER)
    [part] = grow(tree, [tree.root], steps=2)
    assert (part.unit["text"], part.unit["reason"], part.boundary) == (whole.unit["text"][:2], "partial", False)
    [rest] = grow(tree, [part])
    assert (rest.unit["text"], rest.unit["reason"], rest.cost.tokens) == (whole.unit["text"], "step", 2)
    [shown] = WRITER.render([part], View(None))
    assert (shown, shown.steps, shown.whole) == (whole.unit["text"][:2], (whole.unit["text"][:2],), False)


def test_a_text_is_cut_at_its_limit_and_not_whole():
    writer = ScriptedText(WRITER.steps, most=6)
    tree = search("count", writer, lambda text, prompt: 0.0, BestOfN(3), budget=Budget(nfe=18))
    for leaf in tree.finished:
        assert leaf.units()[-1].unit["reason"] == "length" and len(writer.output(leaf)) == 6
        assert not writer.output(leaf).whole


def test_settings_are_checked():
    with pytest.raises(SettingError, match="steps = 0"):
        ScriptedTextHow(steps=0)
    with pytest.raises(SettingError, match="temperature = -1"):
        ScriptedTextHow(temperature=-1)
