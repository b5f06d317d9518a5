"""DVTS against a slow and obvious one, and its edges."""

import pytest

from prunus import Status, search
from prunus.errors import SettingError
from prunus.strategies import DVTS, Beam
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy
from prunus.testing.scripted import draw


@pytest.mark.parametrize(("keep", "branch"), [(1, 1), (1, 4), (3, 1), (2, 3)])
def test_it_keeps_the_contract(keep, branch):
    check_strategy(DVTS(keep, branch))


def value(seed, path):
    """What the scripted models give the candidate with this path, from their definition."""
    content = [draw(seed, "a prompt", path[: i + 1], "piece", i, 0) for i in range(len(path))]
    return draw("scripted-reward", content, "a prompt")


@pytest.mark.parametrize(("keep", "branch"), [(1, 3), (2, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_each_subtree_keeps_its_own_best_and_the_last_siblings_all_stay(keep, branch, seed):
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), DVTS(keep, branch), seed=seed)
    finished = []
    for subtree in range(keep):
        children = [(subtree + i * keep,) for i in range(branch)]
        for _ in range(3):
            best = max(children, key=lambda path: value(seed, path))
            children = [(*best, i) for i in range(branch)]
        finished += children
    assert {n.path for n in tree.finished} == set(finished)
    assert tree.result.path == max(finished, key=lambda path: value(seed, path))


def test_one_subtree_is_a_beam_of_one():
    for seed in range(5):
        chosen = [
            search("a prompt", ScriptedGenerator(), ScriptedReward(), s, seed=seed) for s in (DVTS(1, 3), Beam(1, 3))
        ]
        assert chosen[0].result.path == chosen[1].result.path


def test_a_subtree_ends_with_its_best_and_takes_nothing_from_the_others():
    lengths, ended = ScriptedGenerator(units=6, early=0.4), 0
    for seed in range(20):
        strategy = DVTS(3, 2)
        tree = search("a prompt", lengths, ScriptedReward(), strategy, seed=seed)
        for subtree in range(3):
            mine = [n for n in tree.nodes[1:] if strategy.subtree(n) == subtree]
            for depth in range(1, max(n.depth for n in mine) + 1):
                assert len([n for n in mine if n.depth == depth]) == 2  # whatever the other subtrees do
            finished = [n for n in mine if n.status is Status.DONE]
            assert finished and len({n.parent for n in finished}) == 1
            last = [n for n in mine if n.parent is finished[0].parent]
            assert max(last, key=lambda n: n.scores["scripted-reward"].value) in finished
            ended += finished[0].depth < 6
    assert ended > 20


@pytest.mark.parametrize("settings", [{"keep": 0}, {"branch": 0}])
def test_keep_and_branch_are_at_least_one(settings):
    [(name, given)] = settings.items()
    with pytest.raises(SettingError, match=f"{name} = {given} is not allowed; {name} must be at least 1"):
        DVTS(**settings)
