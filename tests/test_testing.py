"""The contract checks: they pass what is sound, and name the rule that each broken class breaks."""

import math
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from prunus import Cost, Strategy, Tree, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward
from prunus.strategies import Beam
from prunus.testing import (
    ScriptedGenerator,
    ScriptedReward,
    assert_same_tree,
    check_generator,
    check_reward,
    check_strategy,
    same,
)

PROMPTS = ["a prompt", "another"]


@pytest.mark.parametrize(
    ("generator", "how"),
    [
        (ScriptedGenerator(), {}),
        (ScriptedGenerator(units=1), {}),
        (ScriptedGenerator(units=6, early=0.3, failing=0.2), {}),
        (ScriptedGenerator(units=3, pieces=4), {}),
        (ScriptedGenerator(units=3, pieces=4), {"steps": 1}),
        (ScriptedGenerator(units=3, pieces=5), {"steps": 3}),
    ],
)
def test_the_scripted_generator_keeps_the_contract(generator, how):
    check_generator(generator, PROMPTS, tolerance=0.0, how=how)


def test_a_generator_whose_units_end_where_they_will_need_only_bound_its_forwards():
    class Short(ScriptedGenerator):
        def cost(self, asks):
            return super().cost(asks) + Cost(nfe=len(asks))

    check_generator(Short(), PROMPTS, tolerance=0.0, exact=False)
    with pytest.raises(AssertionError, match="cost is exact in NFE"):
        check_generator(Short(), PROMPTS, tolerance=0.0)


@pytest.mark.parametrize("reward", [ScriptedReward(), ScriptedReward(levels=3)])
def test_the_scripted_reward_keeps_the_contract(reward):
    check_reward(reward, [[0.5], [0.5, 0.25], [0.5]], ["a prompt", "a prompt", "another"], tolerance=0.0)


def changed(call):
    """A generator each of whose children is changed by ``call(generator, asks, index, child)``."""

    class Changed(ScriptedGenerator):
        def grow(self, asks):
            return [call(self, asks, i, g) for i, g in enumerate(super().grow(asks))]

    return Changed()


def stale(generator, asks, i, child):
    """Counts how often it was called with one parent in the parent's state."""
    seen = vars(asks[i].parent.state).get("seen", 0)
    object.__setattr__(asks[i].parent.state, "seen", seen + 1)
    return replace(child, unit={"values": [*child.unit["values"], seen * 1.0]})


BROKEN_GROWTH = {
    "a batch grows what single calls grow": lambda g, asks, i, c: replace(c, unit={"values": [len(asks) * 1.0]}),
    "the order of rows does not matter": lambda g, asks, i, c: replace(
        c, unit={"values": [asks[0].path[-1] * 1.0 if len(asks) > 1 else 0.0]}
    ),
    "branches of one parent differ": lambda g, asks, i, c: replace(c, unit={"values": [0.5]}, log_probability=0.0),
    "cost is exact in NFE": lambda g, asks, i, c: replace(c, cost=Cost(nfe=0)),
    "cost is not less than what is reported": lambda g, asks, i, c: replace(c, cost=c.cost + Cost(flops=1)),
    "grow gives Grown or Failed": lambda g, asks, i, c: c.unit,
    "units can be saved": lambda g, asks, i, c: replace(c, unit={**c.unit, "x": frozenset()}),
}


@pytest.mark.parametrize("rule", BROKEN_GROWTH)
def test_broken_growth_is_named(rule):
    with pytest.raises(AssertionError, match=f"generator 'scripted-generator' breaks its contract: {rule}"):
        check_generator(changed(BROKEN_GROWTH[rule]), PROMPTS)


BROKEN_METHODS = {
    "a state is a value": {
        "_grow": lambda self, ask, pays: stale(self, [ask], 0, ScriptedGenerator._grow(self, ask, pays))
    },
    "grow gives one result for each ask": {"grow": lambda self, asks: ScriptedGenerator.grow(self, asks)[1:]},
    "candidates end": {"_grow": lambda self, ask, pays: replace(ScriptedGenerator._grow(self, ask, pays), done=False)},
    "finish_cost is an upper bound": {"finish_cost": lambda self, ask: Cost(nfe=1)},
    "units_left is an upper bound": {"units_left": lambda self, node: 1},
    "render gives one content for each node": {"render": lambda self, nodes, view: [0.0]},
    "restore gives states that grow the same children": {
        "restore": lambda self, nodes, prompt: [(self.begin(prompt), Cost()) for _ in nodes]
    },
}


@pytest.mark.parametrize("rule", BROKEN_METHODS)
def test_broken_methods_are_named(rule, monkeypatch):
    monkeypatch.setattr("prunus.testing.generator_contract.MOST_ROUNDS", 50)
    broken = type("Broken", (ScriptedGenerator,), BROKEN_METHODS[rule])
    with pytest.raises(AssertionError, match=f"generator 'scripted-generator' breaks its contract: {rule}"):
        check_generator(broken(), PROMPTS)


@pytest.mark.parametrize(
    ("rule", "function"),
    [
        ("there is one score for each content", lambda cs, ps: [0.5]),
        ("a score is a number or a prunus.Score", lambda cs, ps: ["good"] * len(cs)),
        ("scores and their parts are finite", lambda cs, ps: [math.nan] * len(cs)),
        ("a batch gets the scores of single calls", lambda cs, ps: [float(len(cs))] * len(cs)),
        ("the order of rows does not matter", lambda cs, ps: [c[0] + (cs[0][0] > 1) * (len(cs) > 1) for c in cs]),
    ],
)
def test_broken_rewards_are_named(rule, function):
    reward = ScriptedReward()
    object.__setattr__(reward, "score", function)
    with pytest.raises(AssertionError, match=f"reward 'scripted-reward' breaks its contract: {rule}"):
        check_reward(reward, [[1.0], [2.0], [3.0]], ["a"] * 3)


def test_a_reward_that_draws_is_named():
    numbers = iter(range(100))
    with pytest.raises(AssertionError, match="the same contents get the same scores again"):
        check_reward(FunctionReward(lambda c, p: next(numbers)), [[1.0], [2.0]], ["a", "b"])


@dataclass
class Thawed(Strategy):
    n: int = 1


class Unfinished(Beam):
    def choose(self, tree):
        return tree.nodes[1]


class Closed(Beam):
    def select(self, tree):
        return [tree.ask(tree.root)]


class Early(Beam):
    def prune(self, tree):
        return tree.fresh


class Draws(Beam):
    def prune(self, tree):
        import random

        return [n for n in super().prune(tree) if random.random() < 0.5]


@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        (Thawed(), "it is a frozen dataclass"),
        (Beam(reward=3.5j), "its spec can be written as JSON"),
        (Unfinished(), "it chooses a finished candidate"),
        (Closed(), "it comes to an answer; .*node 0, which is closed"),
        (Early(), "it comes to an answer; .*before a candidate was finished"),
        (Draws(8, 2), "it does the same again"),
    ],
)
def test_broken_strategies_are_named(strategy, rule):
    with pytest.raises(AssertionError, match=f"strategy {type(strategy).__name__} breaks its contract: {rule}"):
        check_strategy(strategy)


def test_a_strategy_that_remembers_outside_the_tree_is_named():
    rounds = weakref.WeakKeyDictionary()

    class Forgetful(Beam):
        """Keeps the best in odd rounds and the worst in even ones, by a count that is not in the tree."""

        def prune(self, tree):
            rounds[tree] = rounds.get(tree, 0) + 1
            return self.ranked(tree, tree.fresh)[2:] if rounds[tree] % 2 else self.ranked(tree, tree.fresh)[:2]

    with pytest.raises(AssertionError, match="saved after round 1 and loaded goes on to the same tree"):
        check_strategy(Forgetful(2, 2))


def test_same_compares_nested_values():
    assert same({"a": [1, (2.0, "x")]}, {"a": [1, [2.0, "x"]]})
    assert same([math.nan, None], [math.nan, None])
    assert same(np.ones(3), np.ones(3) + 1e-7, tolerance=1e-6) and not same(np.ones(3), np.ones(3) + 1e-7)
    assert same(torch.ones(2), torch.ones(2) + 1e-6, tolerance=1e-5)
    for a, b in ((1, 1.0), (1, True), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (np.ones(2), np.ones(3)), (1, 2)):
        assert not same(a, b, tolerance=1.0)
    assert not same(np.ones(2, np.float32), np.ones(2))
    assert same([0.1], [0.1 + 1e-7], tolerance=1e-6) and not same([0.1], [0.1 + 1e-7])


def test_assert_same_tree_says_what_differs():
    a, b = (search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam(), seed=s) for s in (0, 1))
    with pytest.raises(AssertionError, match="here: seed: 0 and 1"):
        assert_same_tree(a, b, "here")
    c = search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam())
    c.nodes[3].unit = {"values": [0.0]}
    with pytest.raises(AssertionError, match="unit of node 3"):
        assert_same_tree(a, c, "here")


# ---- the scripted models --------------------------------------------------------------------------------


def test_scripted_costs_are_as_stated():
    generator = ScriptedGenerator(units=2, pieces=3)
    tree = Tree("a prompt", 0, generator)
    tree.root.state = generator.begin("a prompt")
    [node] = tree.add(asks := tree.number([tree.ask(tree.root)]), generator.grow(asks))
    assert node.cost == Cost(3, 3, 10 + 20 + 30)
    assert generator.finish_cost(asks[0]) == Cost(1 + 3, 3, 40 + 50 + 60)
    [child, sibling] = tree.add(asks := tree.number([tree.ask(node)] * 2), generator.grow(asks))
    assert (child.cost, sibling.cost) == (Cost(4, 3, 150), Cost(3, 3, 150))
    # Siblings share their parent's three numbers: 8 bytes each for 3 + 3 + 3.
    assert generator.state_bytes([node.state, child.state, sibling.state]) == 72


def test_scripted_states_are_known_while_they_live():
    generator = ScriptedGenerator()
    tree = Tree("a prompt", 0, generator)
    tree.root.state = generator.begin("a prompt")
    assert len(generator.states) == 1
    tree.add(asks := tree.number([tree.ask(tree.root)] * 2), generator.grow(asks))
    assert len(generator.states) == 3
    tree.settle([tree.nodes[2]])
    assert set(generator.states) == {tree.nodes[1].state}


def test_scripted_settings_are_checked():
    for settings in ({"units": 0}, {"pieces": 0}):
        with pytest.raises(SettingError):
            ScriptedGenerator(**settings)
