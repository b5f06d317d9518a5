"""Lookahead against a slow and obvious one: rolled text is scored, used, and grown once."""

import pytest

from prunus import Budget, Status, search
from prunus.errors import BudgetError, SettingError
from prunus.strategies import Beam, Lookahead
from prunus.testing import ScriptedGenerator, ScriptedReward, ScriptedText, check_strategy
from prunus.testing.scripted import draw


@pytest.mark.parametrize(("keep", "branch", "ahead"), [(2, 2, 0), (2, 2, 1), (1, 3, 2), (2, 2, 9), (1, 1, 2)])
def test_it_keeps_the_contract(keep, branch, ahead):
    check_strategy(Lookahead(keep, branch, ahead))


def value(seed, path):
    """What the scripted models give the candidate with this path, from their definition."""
    content = [draw(seed, "a prompt", path[: i + 1], "piece", i, 0) for i in range(len(path))]
    return draw("scripted-reward", content, "a prompt")


def slow_lookahead(keep, branch, ahead, units, seed):
    """Paths of the survivors of every step; each child's first continuation is its roll and its first child."""
    children, steps = [(i,) for i in range(keep * branch)], []
    for depth in range(1, units + 1):
        rolled = min(ahead, units - depth)
        kept = sorted(children, key=lambda path: (-value(seed, path + (0,) * rolled), path))[:keep]
        steps.append(kept)
        children = [(*path, i) for path in kept for i in range(branch)]
    return steps


@pytest.mark.parametrize(("keep", "branch", "ahead"), [(1, 3, 1), (2, 2, 1), (2, 2, 2), (3, 2, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_slow_and_obvious_lookahead(keep, branch, ahead, seed):
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Lookahead(keep, branch, ahead), seed=seed)
    steps = slow_lookahead(keep, branch, ahead, 4, seed)
    for depth in (1, 2, 3):
        assert {n.path for n in tree.nodes if n.depth == depth and n.status is Status.CLOSED} == set(steps[depth - 1])
    assert {n.path for n in tree.finished} == set(steps[-1])
    assert tree.result.path == steps[-1][0]


def test_without_looking_ahead_it_is_a_beam_search():
    for seed in range(5):
        generator = ScriptedGenerator(early=0.2)
        looked = search("a prompt", generator, ScriptedReward(), Lookahead(2, 3, 0), seed=seed)
        beam = search("a prompt", generator, ScriptedReward(), Beam(2, 3), seed=seed)
        assert [(n.path, n.status) for n in looked.nodes] == [(n.path, n.status) for n in beam.nodes]


def test_nothing_that_is_rolled_is_left_unread_or_grown_twice():
    for seed in range(5):
        tree = search("a prompt", ScriptedGenerator(units=5), ScriptedReward(), Lookahead(2, 2, 2), seed=seed)
        assert all(n.scores for n in tree.nodes[1:])
        for node in (n for n in tree.nodes if n.status is Status.CLOSED):
            children = 4 if node is tree.root else 2
            assert len(node.children) == children  # the rolled one is among them
        # Of the five steps' candidates, those rolled before cost one more unit each, the others all of theirs.
        # Step 1: 4 children and 4 x 2 rolled. Then 2 new ones rolled by 2, and one more for each of the 2 that were.
        assert len(tree.nodes) == 1 + 12 + (2 * 3 + 2) + (2 * 3 + 2) + 2 * 2 + 2


def test_rolls_are_greedy_where_the_generator_knows_how():
    writer = ScriptedText(lambda written: {} if len(written) == 3 else {"often ": 0.6, "rarely ": 0.4})
    tree = search("a prompt", writer, lambda text, prompt: draw(text), Lookahead(2, 3, 1))
    rolled = [n for n in tree.nodes[1:] if n.how["temperature"] == 0]
    sampled = [n for n in tree.nodes[1:] if n.how["temperature"] is None]
    assert {n.unit["text"] for n in rolled} == {"often "} and len({n.unit["text"] for n in sampled}) == 2
    assert len(rolled) >= 8 and all(n.path[-1] == 0 for n in rolled)


def test_candidates_that_end_inside_the_roll_are_judged_by_their_ends():
    for seed in range(20):
        generator = ScriptedGenerator(units=6, early=0.3)
        tree = search("a prompt", generator, ScriptedReward(), Lookahead(2, 2, 2), seed=seed)
        assert not tree.frontier and not any(n.children for n in tree.finished)
        assert tree.result.scores["scripted-reward"].value == max(
            n.scores["scripted-reward"].value for n in tree.finished
        )


def test_a_roll_that_fails_is_not_tried_again():
    for seed in range(10):
        generator = ScriptedGenerator(units=5, failing=0.15)
        tree = search("a prompt", generator, ScriptedReward(), Lookahead(2, 3, 2), seed=seed)
        assert tree.result.depth == 5
        assert all(len(n.children) <= (6 if n is tree.root else 4) for n in tree.nodes)


@pytest.mark.parametrize("seed", range(3))
def test_any_budget_ends_with_a_finished_candidate_or_at_once(seed):
    whole = search("a prompt", ScriptedGenerator(), ScriptedReward(), Lookahead(2, 2, 2), seed=seed)
    finished = 0
    for nfe in range(1, whole.spent.total.nfe + 1):
        try:
            strategy = Lookahead(2, 2, 2)
            tree = search(
                "a prompt", ScriptedGenerator(), ScriptedReward(), strategy, budget=Budget(nfe=nfe), seed=seed
            )
        except BudgetError as error:
            assert error.tree.spent.total.nfe == 0 and not finished
            continue
        finished += 1
        assert tree.result.depth == 4 and tree.spent.total.nfe <= nfe
    assert finished == whole.spent.total.nfe - 10  # one candidate: 4 forwards, 3 commits, 4 scores


@pytest.mark.parametrize("setting", [{"keep": 0}, {"branch": 0}, {"ahead": -1}])
def test_settings_are_checked(setting):
    [(name, value)] = setting.items()
    with pytest.raises(SettingError, match=f"{name} = {value!r}"):
        Lookahead(**setting)
