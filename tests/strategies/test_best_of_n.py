"""Best-of-N against choosing by hand among the same candidates."""

import pytest

from prunus import Score, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy


@pytest.mark.parametrize("n", [1, 2, 7])
def test_it_keeps_the_contract(n):
    check_strategy(BestOfN(n))


def test_the_best_of_all_whole_candidates_is_chosen():
    tree = search("a prompt", ScriptedGenerator(units=3), ScriptedReward(), BestOfN(6), seed=4)
    assert [n.path for n in tree.finished] == [(i, 0, 0) for i in range(6)]
    scores = [n.scores["scripted-reward"].value for n in tree.finished]
    assert tree.result is tree.finished[scores.index(max(scores))]


def test_only_finished_candidates_are_scored_each_once():
    seen = []
    reward = FunctionReward(lambda content, prompt: seen.append(len(content)) or 0.0)
    search("a prompt", ScriptedGenerator(units=3), reward, BestOfN(4))
    assert seen == [3, 3, 3, 3]


def test_candidates_that_end_early_wait_for_the_others():
    tree = search("a prompt", ScriptedGenerator(units=6, early=0.4), ScriptedReward(), BestOfN(8))
    assert len(tree.finished) == 8 and len({n.depth for n in tree.finished}) > 1
    assert all(n.scores for n in tree.finished)


def test_it_costs_n_times_one_candidate():
    one, five = (search("a prompt", ScriptedGenerator(), ScriptedReward(), BestOfN(n)).spent.total for n in (1, 5))
    # 4 units: 4 forwards, 3 commits, 1 score. FLOPs: 10 (1 + 2 + 3 + 4) grown, 4 x 7 rendered, 3 x 4 scored.
    assert (one.nfe, one.tokens, one.flops) == (8, 4, 140)
    assert (five.nfe, five.tokens, five.flops) == (40, 20, 700)


def test_of_equal_candidates_the_earliest_is_chosen():
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(levels=1), BestOfN(5))
    assert tree.result.path == (0, 0, 0, 0)
    tree = search("a prompt", ScriptedGenerator(), lambda c, p: float(c[0] > 0.5), BestOfN(9))
    passed = [n for n in tree.finished if tree.generator.output(n)[0] > 0.5]
    assert 1 < len(passed) < 9 and tree.result is min(passed, key=lambda n: n.path)


def test_the_named_reward_decides():
    rewards = [FunctionReward(lambda c, p: Score(c[0]), "first"), FunctionReward(lambda c, p: -c[0], "second")]
    chosen = {}
    for name in ("first", "second"):
        tree = search("a prompt", ScriptedGenerator(), rewards, BestOfN(5, reward=name))
        assert set(tree.result.scores) == {name}
        chosen[name] = tree.best().output[0]
    heads = [tree.generator.output(n)[0] for n in tree.finished]
    assert chosen == {"first": max(heads), "second": min(heads)}


def test_best_of_one_is_the_first_candidate_of_every_search():
    plain = search("a prompt", ScriptedGenerator(), ScriptedReward(), BestOfN(1))
    beam = search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam(1, 1))
    assert plain.best().output == beam.best().output


def test_n_is_at_least_one():
    with pytest.raises(SettingError, match="n = 0 is not allowed; n must be at least 1"):
        BestOfN(0)
