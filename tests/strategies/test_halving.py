"""Successive halving: the card's token counts, cuts in units and inside them."""

import pytest

from prunus import Score, Status, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward, View
from prunus.strategies import SuccessiveHalving
from prunus.testing import ScriptedGenerator, ScriptedReward, ScriptedText, check_strategy
from prunus.testing.scripted import draw

LINES = ScriptedText(lambda written: {} if len(written) == 4 else {"a line\n": 0.5, "a longer line\n": 0.5})


@pytest.mark.parametrize(
    "strategy",
    [SuccessiveHalving(8), SuccessiveHalving(7, (1,), 3), SuccessiveHalving(4, (2, 3, 9), aggregate="min")],
)
def test_it_keeps_the_contract(strategy):
    check_strategy(strategy)


@pytest.mark.parametrize(
    "strategy", [SuccessiveHalving(8, (5, 9, 30), inside=True), SuccessiveHalving(3, (8,), 3.0, inside=True)]
)
def test_it_keeps_the_contract_inside_units(strategy):
    check_strategy(strategy, LINES)


@pytest.mark.parametrize(
    ("cuts", "eta", "tokens"),
    [((64, 128, 256, 384), 2, 2432), ((64,), 2, 8192 * 0.5625), ((128,), 4, 8192 * 0.4375)],
)
def test_the_cards_token_counts(cuts, eta, tokens):
    alphabet = {chr(ord("a") + i) * 512: 1 / 16 for i in range(16)}
    writer = ScriptedText(lambda written: {} if written else alphabet, most=512)
    reward = FunctionReward(lambda text, prompt: draw(text), "reward")
    strategy = SuccessiveHalving(16, cuts, eta, inside=True)
    assert search("a prompt", writer, reward, strategy).spent.generating.tokens == tokens


def test_the_best_of_those_at_the_cut_go_on():
    tree = search("a prompt", ScriptedGenerator(units=4), ScriptedReward(), SuccessiveHalving(8, (1, 2)), seed=2)
    for depth, kept in ((1, 4), (2, 2)):
        nodes = [n for n in tree.nodes if n.depth == depth]
        best = sorted(nodes, key=lambda n: -n.scores["scripted-reward"].value)[:kept]
        assert {n for n in nodes if n.children} == set(best)
    assert [len([n for n in tree.nodes if n.depth == d]) for d in (1, 2, 3, 4)] == [8, 4, 2, 2]


def test_only_what_stands_at_a_cut_or_has_finished_is_scored():
    tree = search("a prompt", ScriptedGenerator(units=6, early=0.1), ScriptedReward(), SuccessiveHalving(8, (2, 4)))
    scored = [n for n in tree.nodes[1:] if n.scores]
    assert all(n.depth in (2, 4) or n.status is Status.DONE for n in scored)
    assert {n.depth for n in scored} >= {2, 4, 6}


def test_finished_candidates_hold_no_place():
    for seed in range(10):
        generator = ScriptedGenerator(units=6, early=0.3)
        tree = search("a prompt", generator, ScriptedReward(), SuccessiveHalving(8, (1, 3)), seed=seed)
        for cut, kept in ((1, 4), (3, 2)):
            live = [n for n in tree.nodes[1:] if n.depth == cut and n.status is not Status.DONE]
            assert len([n for n in live if n.children]) == min(kept, len(live))
        assert not [n for n in tree.having(Status.PRUNED) if n.depth not in (1, 3)]


def test_cuts_inside_units_stand_at_their_tokens():
    progress = FunctionReward(lambda content, prompt: draw(content[0]), "reward", View(None, progress=True))
    tree = search("a prompt", LINES, progress, SuccessiveHalving(8, (10, 20), inside=True))
    for cut, kept in ((10, 4), (20, 2)):
        at = [n for n in tree.nodes[1:] if len(LINES.render([n], View(None))[0]) == cut and n.scores]
        assert len(at) == {10: 8, 20: 4}[cut]
        assert len([n for n in at if n.children]) == kept
    assert any(not n.boundary for n in tree.nodes) and len(tree.finished) == 2


def test_an_unfinished_unit_is_judged_by_its_partial_score():
    """The last whole step says one thing, the beginning of the next another."""

    def reward(text, prompt):
        value = draw("whole", text.steps[:-1])
        return Score(value, {} if text.whole else {"partial": draw("part", text)})

    tree = search("a prompt", LINES, FunctionReward(reward, "reward"), SuccessiveHalving(8, (10,), inside=True))
    at = [n for n in tree.nodes[1:] if not n.boundary]
    judged = {n: draw("part", LINES.render([n], View(None))[0]) for n in at}
    assert len(at) > 2
    worst_kept = min(v for n, v in judged.items() if n.children)
    assert all(v <= worst_kept for n, v in judged.items() if not n.children)


def test_generators_without_tokens_are_told_so():
    with pytest.raises(SettingError, match="units do not list their tokens; give cuts in units"):
        search("a prompt", ScriptedGenerator(), ScriptedReward(), SuccessiveHalving(4, (2,), inside=True))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"cuts": ()}, "cuts = \\(\\)"),
        ({"cuts": (2, 2)}, "rising"),
        ({"cuts": (0,)}, "rising"),
        ({"eta": 1}, "eta = 1"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(SettingError, match=message):
        SuccessiveHalving(**setting)
