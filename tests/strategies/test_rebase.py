"""REBASE: the card's rounding, and its widths."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Status, search
from prunus.errors import SettingError
from prunus.strategies import REBASE
from prunus.strategies.rebase import shares
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy


@pytest.mark.parametrize("strategy", [REBASE(1), REBASE(6), REBASE(5, 0.05), REBASE(4, aggregate="mean")])
def test_it_keeps_the_contract(strategy):
    check_strategy(strategy)


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, [8, 0, 0]), (0.2, [6, 2, 0]), (1.0, [4, 3, 1])])
def test_the_cards_rounding(temperature, expected):
    assert shares(8, [0.9, 0.7, 0.3], temperature) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 64), st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 10))
def test_shares_sum_to_the_width_and_fall_with_the_scores(width, scores, temperature):
    widths = shares(width, sorted(scores, reverse=True), temperature)
    assert sum(widths) == width and min(widths) >= 0
    if width:
        assert widths[0] >= width / len(scores) - 1e-6


@pytest.mark.parametrize("scores", [[0.5] * 3, [-math.inf] * 3, [1e9, 1e9, 1e9]])
def test_equal_scores_share_alike(scores):
    assert shares(6, scores, 0.2) == [2, 2, 2]
    assert shares(7, scores, 0.2) == [3, 2, 2]


def test_a_node_that_was_not_scored_gets_nothing_beside_one_that_was():
    assert shares(4, [0.1, -math.inf], 0.2) == [4, 0]
    assert shares(4, [], 0.2) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.floats(0, 0.6), st.floats(0.05, 1), st.integers(0, 99))
def test_every_depth_grows_the_width_that_is_left(n, early, temperature, seed):
    strategy = REBASE(n, temperature)
    tree = search("a prompt", ScriptedGenerator(units=5, early=early), ScriptedReward(), strategy, seed=seed)
    left = n
    for depth in range(1, tree.round + 1):
        grown = [node for node in tree.nodes if node.depth == depth]
        assert len(grown) == left
        left -= sum(node in tree.finished for node in grown)
    assert left == 0 and len(tree.finished) == n  # each of the n ends; none that ended is pruned or grown
    assert not any(node.children for node in tree.finished)


def test_widths_follow_the_scores():
    tree = search("a prompt", ScriptedGenerator(units=3), ScriptedReward(), REBASE(8, 0.3), seed=3)
    for depth in (1, 2):
        nodes = sorted((n for n in tree.nodes if n.depth == depth), key=lambda n: -n.scores["scripted-reward"].value)
        weights = [math.exp(n.scores["scripted-reward"].value / 0.3) for n in nodes]
        left, expected = 8, []
        for i, weight in enumerate(weights):
            expected.append(math.ceil(left * weight / sum(weights[i:])))
            left -= expected[-1]
        assert [len(n.children) for n in nodes] == expected
        assert all((n.status is Status.PRUNED) == (not n.children) for n in nodes)


@pytest.mark.parametrize("setting", [{"n": 0}, {"temperature": 0.0}, {"aggregate": "best"}])
def test_settings_are_checked(setting):
    [(name, value)] = setting.items()
    with pytest.raises(SettingError, match=f"{name} = {value!r}"):
        REBASE(**setting)
