"""Beam search against a slow and obvious one, and its edges."""

import pytest

from prunus import Budget, Status, search
from prunus.errors import SettingError
from prunus.strategies import Beam
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy
from prunus.testing.scripted import draw


@pytest.mark.parametrize(("keep", "branch"), [(1, 1), (1, 4), (3, 1), (2, 3)])
def test_it_keeps_the_contract(keep, branch):
    check_strategy(Beam(keep, branch))


def value(seed, path):
    """What the scripted models give the candidate with this path, from their definition."""
    content = [draw(seed, "a prompt", path[: i + 1], "piece", i, 0) for i in range(len(path))]
    return draw("scripted-reward", content, "a prompt")


def slow_beam(keep, branch, units, seed):
    """Paths of the kept candidates after every unit."""
    beams = [[(i,) for i in range(keep * branch)]]
    rounds = []
    for _ in range(units):
        kept = sorted(beams[-1], key=lambda path: (-value(seed, path), path))[:keep]
        rounds.append(kept)
        beams.append([(*path, i) for path in kept for i in range(branch)])
    return rounds


@pytest.mark.parametrize(("keep", "branch"), [(1, 1), (1, 3), (2, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_slow_and_obvious_beam_search(keep, branch, seed):
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam(keep, branch), seed=seed)
    for depth, kept in enumerate(slow_beam(keep, branch, 4, seed), start=1):
        survivors = [n.path for n in tree.nodes if n.depth == depth and n.status is not Status.PRUNED]
        assert sorted(survivors) == sorted(kept)
        assert len([n for n in tree.nodes if n.depth == depth]) == keep * branch
    assert tree.result.path == slow_beam(keep, branch, 4, seed)[-1][0]


def test_the_first_unit_may_have_more_candidates_than_later_ones():
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam(2, 3, first=10), seed=1)
    assert [len([n for n in tree.nodes if n.depth == d]) for d in (1, 2, 3, 4)] == [10, 6, 6, 6]
    best = sorted(((i,) for i in range(10)), key=lambda path: (-value(1, path), path))[:2]
    assert {n.path for n in tree.nodes if n.depth == 1 and n.status is not Status.PRUNED} == set(best)
    with pytest.raises(SettingError, match="first = 0"):
        Beam(first=0)


def test_ties_go_to_the_earlier_path():
    tree = search("a prompt", ScriptedGenerator(units=3), ScriptedReward(levels=1), Beam(2, 2))
    kept = [[n.path for n in tree.nodes if n.depth == d and n.status is not Status.PRUNED] for d in (1, 2, 3)]
    assert kept == [[(0,), (1,)], [(0, 0), (0, 1)], [(0, 0, 0), (0, 0, 1)]]
    assert tree.result.path == (0, 0, 0)


def test_finished_candidates_leave_and_take_no_live_ones_place():
    lengths, shared = ScriptedGenerator(units=8, early=0.3), 0
    for seed in range(20):
        tree = search("a prompt", lengths, ScriptedReward(), Beam(2, 2), seed=seed)
        for round in range(tree.round):
            grown = [n for n in tree.nodes[1:] if n.round == round]
            live = [n for n in grown if not ended(tree, n)]
            kept = [n for n in live if n.children]
            assert len(kept) == min(2, len(live))  # two go on while two live, whoever finishes beside them
            finished = [n for n in grown if n in tree.finished]
            shared += bool(kept and finished)
            best = sorted(grown, key=lambda n: (-n.scores["scripted-reward"].value, n.path))
            for node in finished:  # it is better than all but one of those that it leaves with
                better = [n for n in best[: best.index(node)] if n in kept + finished]
                assert len(better) < 2
        best = max(tree.finished, key=lambda n: n.scores["scripted-reward"].value)
        assert tree.result is best
    assert shared > 5


def ended(tree, node):
    """Whether a candidate is finished, pruned or not, from the scripted models' definition."""
    units = tree.generator.units
    return node.depth == units or draw(tree.seed, "a prompt", node.path, "early", node.depth) < tree.generator.early


def test_a_short_budget_thins_all_parents_alike():
    # Two survivors of round 0; the budget pays for two more nodes and finishing.
    full = search("a prompt", ScriptedGenerator(units=2), ScriptedReward(), Beam(2, 4))
    survivors = [n for n in full.nodes if n.depth == 1 and n.children]
    # Round 0: 8 forwards and 8 scores. Then each of two: one commit, one forward, one score.
    tree = search("a prompt", ScriptedGenerator(units=2), ScriptedReward(), Beam(2, 4), budget=Budget(nfe=16 + 6))
    grown = [n for n in tree.nodes if n.depth == 2]
    assert sorted(n.path for n in grown) == sorted((*n.path, 0) for n in survivors)
    assert tree.spent.total.nfe == 22


@pytest.mark.parametrize("settings", [{"keep": 0}, {"branch": 0}, {"keep": -2}])
def test_keep_and_branch_are_at_least_one(settings):
    [(name, given)] = settings.items()
    with pytest.raises(SettingError, match=f"{name} = {given} is not allowed; {name} must be at least 1"):
        Beam(**settings)
