"""Aggregates of step scores, and that best-of-N and beam search choose by them."""

import math

import pytest

from prunus import Budget, Score, Tree, View, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward
from prunus.strategies import AGGREGATES, Beam, BestOfN, StreamT1, aggregate
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy

STEPS = [0.5, 0.2, 0.8]
VALUES = {"last": 0.8, "min": 0.2, "max": 0.8, "product": 0.08, "mean": 0.5, "sum": 1.5}


def line(*scores):
    """The last node of a candidate whose units have these scores (None: not scored)."""
    tree = Tree.from_units("", list(range(len(scores))))
    for node, score in zip(tree.nodes[1:], scores, strict=True):
        node.scores = {} if score is None else {"reward": score if isinstance(score, Score) else Score(score)}
    return tree.nodes[-1]


@pytest.mark.parametrize("how", AGGREGATES)
def test_values(how):
    assert aggregate(line(*STEPS), "reward", how) == pytest.approx(VALUES[how])
    assert aggregate(line(0.3), "reward", how) == 0.3


def test_a_part_of_that_name_is_the_aggregate():
    node = line(0.1, Score(0.8, {"min": 0.4, "product": 0.3}))
    assert aggregate(node, "reward", "min") == 0.4
    assert aggregate(node, "reward", "product") == 0.3
    assert aggregate(node, "reward", "mean") == pytest.approx(0.45)


def test_only_complete_units_enter_and_unscored_ones_are_passed_over():
    node = line(0.9, None, 0.7, 0.1)
    node.boundary = False
    assert aggregate(node, "reward", "min") == 0.7
    assert aggregate(node, "reward", "last") == 0.7
    first = line(0.4)
    first.boundary = False  # no step yet: there is nothing else to go by
    assert aggregate(first, "reward", "min") == 0.4


def test_a_node_that_was_not_scored_comes_last():
    assert aggregate(line(0.9, None), "reward", "max") == -math.inf


@pytest.mark.parametrize("how", AGGREGATES)
def test_best_of_n_chooses_by_it(how):
    step = FunctionReward(lambda content, prompt: content[-1], "step", View(1))
    for seed in range(5):
        tree = search("a prompt", ScriptedGenerator(units=3, early=0.3), step, BestOfN(8, aggregate=how), seed=seed)
        values = {n: AGGREGATES[how](tree.generator.output(n)) for n in tree.finished}
        assert values[tree.result] == max(values.values())


def test_the_choice_of_aggregate_matters():
    step = FunctionReward(lambda content, prompt: content[-1], "step", View(1))
    chosen = {
        how: search("a prompt", ScriptedGenerator(), step, BestOfN(8, aggregate=how)).result for how in AGGREGATES
    }
    assert len(set(chosen.values())) >= 3


@pytest.mark.parametrize("how", ["min", "mean", "max"])
def test_beam_search_prunes_and_chooses_by_it(how):
    step = FunctionReward(lambda content, prompt: content[-1], "step", View(1))
    for seed in range(5):
        tree = search("a prompt", ScriptedGenerator(units=3), step, Beam(2, 2, aggregate=how), seed=seed)
        beams = [(i,) for i in range(4)]
        values = {n.path: AGGREGATES[how]([m.unit["values"][0] for m in n.lineage]) for n in tree.nodes[1:]}
        for _ in range(2):
            kept = sorted(beams, key=lambda path: (-values[path], path))[:2]
            beams = [(*path, i) for path in kept for i in range(2)]
        assert tree.result.path == min(beams, key=lambda path: (-values[path], path))


def counted(parts=()):
    """A reward of whole candidates that remembers how many it was shown."""
    seen = []

    def reward(content, prompt):
        seen.append(len(content))
        return Score(content[-1], {part: AGGREGATES[part](content) for part in parts})

    return FunctionReward(reward, "whole"), seen


def test_best_of_n_scores_units_only_for_an_aggregate_that_the_reward_does_not_give():
    for how, parts, expected in [("last", (), [4] * 3), ("min", ("min",), [1] * 3 + [4] * 3)]:
        reward, seen = counted(parts)
        tree = search("a prompt", ScriptedGenerator(), reward, BestOfN(3, aggregate=how))
        assert seen == expected  # the first round shows whether it gives the part
        best = max(AGGREGATES[how](tree.generator.output(n)) for n in tree.finished)
        assert AGGREGATES[how](tree.best().output) == best
    reward, seen = counted()
    search("a prompt", ScriptedGenerator(), reward, BestOfN(3, aggregate="min"))
    assert seen == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


def test_a_budget_foresees_the_scores_of_every_unit():
    # One candidate: 4 forwards, 3 commits, 4 scores.
    assert search("a", ScriptedGenerator(), ScriptedReward(), BestOfN(1, aggregate="min")).spent.total.nfe == 11
    for nfe in (33, 43):
        strategy = BestOfN(9, aggregate="min")
        tree = search("a", ScriptedGenerator(), ScriptedReward(), strategy, budget=Budget(nfe=nfe))
        assert len(tree.finished) == 3 and not tree.frontier and tree.spent.total.nfe == 33


@pytest.mark.parametrize("strategy", [BestOfN(4, aggregate="min"), Beam(2, 2, aggregate="product")])
def test_the_contract_is_kept(strategy):
    check_strategy(strategy)


@pytest.mark.parametrize("make", [lambda: Beam(aggregate="median"), lambda: BestOfN(aggregate="median")])
def test_what_is_no_aggregate_is_refused(make):
    with pytest.raises(SettingError, match="aggregate = 'median' is not allowed; aggregate must be one of last, min"):
        make()


def test_stream_t1_has_a_mix_of_its_own():
    with pytest.raises(SettingError, match="aggregate = 'min'"):
        StreamT1(aggregate="min")
