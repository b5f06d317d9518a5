"""Early rejection against plain beam search and the paper card's numbers (41)."""

from dataclasses import dataclass

import numpy as np
import pytest

from prunus import Budget, Cost, Score, Status, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward, Generator, Grown
from prunus.strategies.beam import Beam
from prunus.strategies.choosing_tau import choose_tau, correlation, logged
from prunus.strategies.early_rejection import EarlyRejection
from prunus.testing import ScriptedGenerator, ScriptedHow, ScriptedReward, check_strategy
from prunus.testing.scripted import draw


@dataclass
class Steps(Generator):
    """``depth`` steps of 1 to ``longest`` (or always ``longest``) tokens, each a number drawn from (path, position)."""

    depth: int = 3
    longest: int = 6
    varied: bool = True
    how = ScriptedHow

    def begin(self, prompt):
        return ()

    def length(self, seed, path):
        return 1 + int(draw(seed, path, "length") * self.longest) if self.varied else self.longest

    def grow(self, asks):
        return [self.step(a) for a in asks]

    def step(self, ask):
        begun = 0 if ask.parent.boundary else len(ask.parent.unit["values"])
        length = self.length(ask.seed, ask.path)
        stop = min(length, begun + (ask.how.steps or length))
        values = [draw(ask.seed, ask.path, i) for i in range(begun, stop)]
        whole = stop == length
        done = whole and len(ask.path) == self.depth
        return Grown({"values": values}, ask.path, done, whole, cost=Cost(1, stop - begun))

    def cost(self, asks):
        left = (self.longest - (0 if a.parent.boundary else len(a.parent.unit["values"])) for a in asks)
        return Cost(len(asks), sum(min(most, a.how.steps or most) for a, most in zip(asks, left, strict=True)))

    def finish_cost(self, ask):
        return Cost(2 * self.depth, (self.depth + 1) * self.longest)

    def units_left(self, node):
        return self.depth - node.depth

    def render(self, nodes, view):
        return [([v for n in x.lineage for v in n.unit["values"]], self.last(x)) for x in nodes]

    def last(self, node):
        """The tokens of the last step, whether it is whole, and its length."""
        return [v for n in node.lineage if n.depth == node.depth for v in n.unit["values"]], node.boundary

    def restore(self, nodes, prompt):
        return [(n.path, Cost()) for n in nodes]


def mean_score(content, _):
    """The mean of all tokens so far; for an unfinished step it is the part ``partial``."""
    values, (_, whole) = content
    mean = float(np.mean(values))
    return Score(mean) if whole else Score(0.0, {"partial": mean})


MEAN = FunctionReward(mean_score, "mean")


@pytest.mark.parametrize("tau", [1, 2, 3])
def test_it_keeps_the_contract(tau):
    check_strategy(EarlyRejection(2, 3, tau), ScriptedGenerator(units=3, pieces=4, early=0.2))
    check_strategy(EarlyRejection(2, 2, tau), Steps(), [MEAN])
    check_strategy(EarlyRejection(2, 2, tau, survive=3, preview="preview", reward="mean"), Steps(), [MEAN, PREVIEW])
    check_strategy(EarlyRejection.published(2, 2, tau=tau), Steps(), [MEAN])


PREVIEW = FunctionReward(lambda content, _: float(content[0][-1]), "preview")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("generator", [ScriptedGenerator(units=3, pieces=4), Steps()])
def test_where_nothing_is_rejected_it_is_the_beam(generator, seed):
    reward = MEAN if isinstance(generator, Steps) else ScriptedReward()
    plain = search("x", generator, reward, Beam(2, 3), seed=seed)
    early = search("x", generator, reward, EarlyRejection(2, 3, tau=2, survive=6), seed=seed)
    assert early.result.path == plain.result.path
    assert {n.path for n in early.nodes if n.boundary} == {n.path for n in plain.nodes}
    assert early.spent.generating.tokens == plain.spent.generating.tokens


@pytest.mark.parametrize("seed", range(5))
def test_a_round_is_the_slow_and_obvious_one(seed):
    generator, keep, branch, tau = Steps(), 2, 3, 2
    tree = search("x", generator, MEAN, EarlyRejection(keep, branch, tau), seed=seed)

    def tokens(path, most=None):
        return [draw(seed, path, i) for i in range(min(most or 99, generator.length(seed, path)))]

    kept = [()]
    for depth in (1, 2, 3):
        width = keep * branch if depth == 1 else branch
        rivals = [(*path, i) for path in kept for i in range(width)]

        def seen(path):
            return np.mean([v for d in range(1, len(path)) for v in tokens(path[:d])] + tokens(path, tau))

        kept = sorted(rivals, key=lambda path: (-seen(path), path))[:keep]
        grown = [n for n in tree.nodes if n.depth == depth]
        assert {n.path for n in grown} == set(rivals)
        assert {n.path for n in grown if n.boundary and n.status is not Status.PRUNED} == set(kept)
        lengths = {path: generator.length(seed, path) for path in rivals}
        spent = sum(min(tau, n) for n in lengths.values()) + sum(max(0, lengths[path] - tau) for path in kept)
        assert sum(n.cost.tokens for n in grown) == spent
    whole = {path: np.mean([v for d in (1, 2, 3) for v in tokens(path[:d])]) for path in kept}
    assert tree.result.path == max(whole, key=whole.get)


def test_a_step_that_ends_early_competes_with_its_whole_score():
    class Mixed(Steps):
        def length(self, seed, path):
            return 1 if path[-1] == 0 else 4

    def score(content, _):  # the short one is praised, then the others by their number
        values, (last, whole) = content
        return Score(1.0) if whole and len(last) == 1 else Score(0.5 + 0.01 * len(values), {"partial": 0.4})

    tree = search("x", Mixed(depth=2), FunctionReward(score, "r"), EarlyRejection(2, 2, tau=2))
    first = [n for n in tree.nodes if n.depth == 1 and n.status is not Status.PRUNED and n.boundary]
    assert sorted(n.path for n in first) == [(0,), (1,)]
    assert tree.result.path == (0, 0)


def test_the_published_code_ranks_by_the_last_partial_score():
    last_partial = FunctionReward(
        lambda c, _: Score(0.0) if c[1][1] else Score(0.0, {"partial": c[0][-1]}), "r"
    )  # whole steps would score 0
    generator = Steps(depth=2, longest=4, varied=False)
    tree = search("x", generator, last_partial, EarlyRejection.published(2, 3, tau=2))
    assert [len([n for n in tree.nodes if n.depth == d and n.piece == 1]) for d in (1, 2)] == [3, 6]  # one prompt first
    assert all(("r" in n.scores) == (n.piece == 1) for n in tree.nodes[1:])
    begun = {n.parent: n for n in tree.finished}
    best = max(begun, key=lambda n: n.scores["r"].parts["partial"])
    assert tree.result is begun[best] and len(tree.finished) == 2


# ---- a scorer that can judge beginnings, and one that cannot ---------------------------------------------------------


def run(reward, strategy, seeds=range(40)):
    """The mean over all tokens of the answers, their tokens generated, and the trees."""
    generator = Steps(depth=2, longest=8, varied=False)
    trees = [search("x", generator, reward, strategy, seed=s) for s in seeds]
    return [reward.function(t.best().output, "").value for t in trees], trees


def last_token(content, _):
    """A step is as good as its last token: nothing can be seen before."""
    values, (_, whole) = content
    return Score(float(values[-1])) if whole else Score(0.5, {"partial": float(values[-1])})


def test_fewer_tokens_for_almost_the_same_where_beginnings_tell_and_a_loss_where_they_do_not():
    random = FunctionReward(lambda c, _: draw("random", tuple(c[0])), "random")
    for function, tells in ((mean_score, True), (last_token, False)):
        reward = FunctionReward(function, "r")
        full, plain = run(reward, EarlyRejection(2, 4, tau=4, survive=8))
        early, trees = run(reward, EarlyRejection(2, 4, tau=4))
        by_chance = [
            reward.function(search("x", Steps(2, 8, False), [reward, random], strategy, seed=s).best().output, "").value
            for strategy in [EarlyRejection(2, 4, tau=4, reward="r", preview="random")]
            for s in range(40)
        ]
        groups = [g for tree in plain for g in logged(tree, "r")]
        assert len(groups) == 80 and all(len(g) == 8 for g in groups)
        tokens = [sum(t.spent.generating.tokens for t in some) for some in (trees, plain)]
        assert tokens[0] / tokens[1] == pytest.approx((8 * 4 + 2 * 4) / (8 * 8))
        if tells:
            assert correlation(groups) > 0.6 and choose_tau({4: groups}, rho=0.6) == 4
            assert np.mean(full) - np.mean(early) < 0.5 * (np.mean(full) - np.mean(by_chance))
        else:
            assert abs(correlation(groups)) < 0.15 and choose_tau({4: groups}, rho=0.6) is None
            assert np.mean(early) < np.mean(full) - 0.1
            assert abs(np.mean(early) - np.mean(by_chance)) < 0.15


def test_a_budget_is_kept_and_leaves_an_answer():
    for tokens in (60, 90, 120):
        tree = search("x", Steps(), MEAN, EarlyRejection(2, 3, tau=2), budget=Budget(tokens=tokens))
        assert tree.result.status is Status.DONE and tree.spent.total.tokens <= tokens


@pytest.mark.parametrize("seed", range(6))
def test_what_a_budget_leaves_behind_takes_no_ones_place(seed):
    """Three are to be finished and the budget pays for fewer: the beam weighs those alone."""
    generator, reward = ScriptedGenerator(units=4, pieces=3), FunctionReward(lambda c, _: draw(c[-1]), "r")
    strategy = EarlyRejection(2, 2, tau=1, survive=3)
    for nfe in range(15, 45, 2):
        tree = search("x", generator, reward, strategy, seed=seed, budget=Budget(nfe=nfe))
        assert tree.result.status is Status.DONE and tree.spent.total.nfe <= nfe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "tau = 0"),
        ({"keep": 0}, "keep = 0"),
        ({"survive": 1}, "at least keep = 4"),
        ({"rescore": False, "survive": 8}, "survive = 8"),
        ({"rescore": False, "preview": "p"}, "preview = 'p'"),
    ],
)
def test_what_is_no_setting_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        EarlyRejection(**options)
