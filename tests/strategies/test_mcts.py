"""MCTS* against the numbers of paper card 61 and on scripted chains of right and wrong steps."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from prunus import Budget, Cost, Status, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward, Generator, Grown
from prunus.strategies.mcts import MCTS, puct, uct
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy
from prunus.testing.scripted import draw


@pytest.mark.parametrize("formula", ["uct", "puct"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_it_keeps_the_contract(formula, parallel):
    check_strategy(MCTS(iterations=6, parallel=parallel, formula=formula, gate=None))


@pytest.mark.parametrize("options", [{"roll": 0}, {"branch": 1}, {"held": 2, "iterations": 9}, {"gate": 0.5}])
def test_it_keeps_the_contract_at_its_edges(options):
    check_strategy(MCTS(**{"iterations": 4, **options}), ScriptedGenerator(early=0.2))


def test_the_cards_formulas():
    """Test-time search basics, item 6: Q = 0.6, weight 1, 10 visits of the parent, 4 of the child, P = 0.3."""
    assert uct(0.6, 10, 4, 1 / math.sqrt(2)) == pytest.approx(1.358714, abs=1e-6)
    assert puct(0.6, 10, 4, 0.3) == pytest.approx(0.837277, abs=1e-6)


@dataclass
class Tree3(Generator):
    """Units whose values are written in ``values`` by path; it notes what it was asked for in every round."""

    depth: int
    asked: list = field(default_factory=list)

    def begin(self, prompt):
        return ()

    def grow(self, asks):
        self.asked.append(sorted(a.path for a in asks))
        return [Grown({"path": list(a.path)}, a.path, done=len(a.path) == self.depth) for a in asks]

    def render(self, nodes, view):
        return [n.path for n in nodes]

    def restore(self, nodes, prompt):
        return [(n.path, Cost()) for n in nodes]

    def units_left(self, node):
        return self.depth - node.depth


def test_an_iteration_by_hand():
    values = {(0,): 0.2, (1,): 0.6, (2,): 0.4, (1, 0): 0.8, (1, 0, 0): 0.5, (2, 0): 0.3, (2, 1): 0.1, (2, 2): 0.2}
    generator = Tree3(3)
    reward = FunctionReward(lambda path, _: values.get(tuple(path), 0.0), "value")
    tree = search("x", generator, reward, MCTS(iterations=2, parallel=1, roll=1, gate=None))
    note = {n.path: tree.notes[n.id] for n in tree.nodes if tree.notes.get(n.id)}
    # Iteration 1: three children; the best one is rolled ahead to the end, as nothing is finished yet.
    assert generator.asked[:3] == [[(0,), (1,), (2,)], [(1, 0)], [(1, 0, 0)]]
    assert note[(1,)] == {"value": pytest.approx(0.5 * 0.6 + 0.5 * 0.8), "visits": 1}
    # Iteration 2: (1,) stands at 0.7 + 0.7 sqrt(2 ln 1 / 1) = 0.7, so (2,) at 0.4 + 1 is the next leaf.
    assert generator.asked[3] == [(2, 0), (2, 1), (2, 2)]
    assert generator.asked[4:] == [[(2, 0, 0)]]  # one step ahead, which ends there
    assert note[(2, 0)] == {"value": pytest.approx(0.5 * 0.3 + 0.5 * 0.3), "visits": 1}
    assert note[(2,)] == {"value": pytest.approx(0.3), "visits": 1}
    assert note[()] == {"value": pytest.approx((0.7 + 0.3) / 2), "visits": 2}
    assert note[(1, 0, 0)] == {"value": 0.5, "visits": 1}
    assert tree.result.path == (1, 0, 0)


def test_steps_that_were_rolled_ahead_are_children_later():
    generator = Tree3(3)
    tree = search("x", generator, FunctionReward(lambda path, _: 0.5, "value"), MCTS(parallel=1, gate=None))
    assert len(generator.asked) > 10 and len({p for paths in generator.asked for p in paths}) == 3 + 9 + 27
    assert not tree.frontier  # it has grown all there is, each node once, and ended before its 50 iterations
    leaves = tree.finished
    assert len(leaves) == 27 and all(tree.notes[n.id] == {"value": 0.5, "visits": 1.0} for n in leaves)


def test_a_batch_of_selections_takes_different_leaves():
    generator = Tree3(4)
    search("x", generator, ScriptedReward(), MCTS(iterations=20, parallel=4, roll=0, gate=None))
    assert max(len({path[:-1] for path in paths}) for paths in generator.asked) == 4
    assert all(len(set(paths)) == len(paths) for paths in generator.asked)


def test_the_gate_ends_the_search_at_a_finished_candidate():
    open_ended = search("x", Tree3(4), FunctionReward(lambda path, _: 1.0 if len(path) == 1 else 0.5, "v"), MCTS())
    assert len(open_ended.having(Status.CLOSED)) > 1  # an unfinished node over the gate does not end it
    ended = search("x", Tree3(4), FunctionReward(lambda path, _: 0.95 if len(path) == 4 else 0.5, "v"), MCTS())
    assert len(ended.finished) == 1 and len(ended.having(Status.CLOSED)) == 1


def test_no_more_states_are_held_than_allowed():
    tree = None
    generator = ScriptedGenerator(units=6)
    strategy = MCTS(iterations=30, held=5, parallel=2, gate=None)
    most = []
    from prunus.search import stream_search

    for event in stream_search("x", generator, ScriptedReward(), strategy):
        tree = event.tree
        if event.kind == "round":
            most.append(sum(n.state is not None for n in tree.nodes))
    assert max(most) <= 5 + 1  # and the root's
    assert tree.result.status is Status.DONE


def test_siblings_of_the_same_text_are_scored_once():
    class Texts(Tree3):
        def grow(self, asks):
            grown = super().grow(asks)
            return [Grown({"text": "ab"[a.path[-1] % 2]}, g.state, g.done) for a, g in zip(asks, grown, strict=True)]

    scored = []
    reward = FunctionReward(lambda path, _: scored.append(tuple(path)) or 0.5, "value")
    tree = search("x", Texts(3), reward, MCTS(iterations=3, gate=None, parallel=1))
    assert {(0,), (1,)} <= set(scored) and (2,) not in scored
    assert next(n for n in tree.nodes if n.path == (2,)).status is Status.PRUNED


# ---- right and wrong steps -------------------------------------------------------------------------------------------

STEPS, RIGHT = 4, 0.7


def right(values):
    return [v < RIGHT for v in values]


def exact(values, _):
    """Paper 61's value: v_k = k / T while all is right, lowered by a wrong step, from which nothing recovers."""
    v, so_far = 0.0, True
    for k, ok in enumerate(right(values), start=1):
        so_far = so_far and ok
        v = max(v + (1 - v) / (STEPS - k + 1) * (1 if so_far else -1), 0.0)
    return v


def accuracy(reward, strategy, runs=60):
    trees = [
        search("x", ScriptedGenerator(units=STEPS), FunctionReward(reward, "v"), strategy, seed=s) for s in range(runs)
    ]
    answer = [all(right(t.best().output)) for t in trees]
    oracle = [any(all(right(t.generator.output(n))) for n in t.finished) for t in trees]
    return np.mean(answer), np.mean(oracle)


def test_the_values_of_a_right_chain_and_of_a_wrong_step():
    good, bad = 0.1, 0.9
    assert [exact([good] * k, "") for k in (1, 2, 3, 4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert exact([good, bad], "") == 0.0  # 0.25 - 0.75 / 3
    assert exact([bad], "") == 0.0  # never below 0


def test_the_exact_value_finds_what_there_is_and_a_random_one_is_a_random_pick():
    one = RIGHT**STEPS  # 0.24
    found, oracle = accuracy(exact, MCTS(iterations=12, parallel=2))
    assert found == oracle >= 0.95
    guessed, _ = accuracy(lambda values, p: draw(values, p), MCTS(iterations=6, parallel=2, gate=None), 200)
    assert abs(guessed - one) < 0.1  # three deviations at 200 runs


def test_a_budget_always_leaves_an_answer():
    for nfe in (20, 40, 80):
        tree = search("x", ScriptedGenerator(units=6), ScriptedReward(), MCTS(gate=None), budget=Budget(nfe=nfe))
        assert tree.result.status is Status.DONE and tree.spent.total.nfe <= nfe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": 0}, "branch = 0"),
        ({"alpha": 2}, "alpha = 2"),
        ({"gate": 1.5}, "gate = 1.5"),
        ({"formula": "ucb"}, "uct or puct"),
        ({"roll": -1}, "roll = -1"),
    ],
)
def test_what_is_no_setting_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        MCTS(**options)
