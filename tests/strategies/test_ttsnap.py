"""TTSnap against the paper card's numbers, and against the strategy that it prunes for."""

import pytest

from prunus import Budget, Status, search
from prunus.errors import BudgetError, SettingError
from prunus.roles import FunctionReward, View
from prunus.strategies import Beam, BestOfN, PruneSchedule, TTSnap
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy

GENERATOR = ScriptedGenerator(units=2, pieces=4)
HALVES = PruneSchedule((1, 3), (0.5, 0.5))


def rewards(*names):
    return [ScriptedReward(name=name) for name in names]


def test_the_cards_costs():
    """Paper 04, FLUX: a call is 9.9 TFLOPs, a verification 1.2, 20 steps; the published code charges a call too few."""
    schedule = PruneSchedule()
    assert schedule.cost(9.9, 1.2, 20) == pytest.approx(61.764)
    assert schedule.cost(9.9, 1.2, 20, published=True) == pytest.approx(51.864)
    assert schedule.candidates_for(2000, 9.9, 1.2, 20) == 32
    assert int(2000 // schedule.cost(9.9, 1.2, 20, published=True)) == 38
    assert PruneSchedule((1,), (1.0,)).cost(1, 0, 20) == 20  # nothing pruned: a whole candidate


@pytest.mark.parametrize("inner", [BestOfN(5, reward="final"), Beam(2, 3, reward="final")])
def test_with_all_kept_it_is_the_inner_strategy(inner):
    plain = search("a prompt", GENERATOR, rewards("final"), inner)
    snapped = search(
        "a prompt", GENERATOR, rewards("final", "snap"), TTSnap(inner, PruneSchedule((1, 3), (1.0, 1.0)), "snap")
    )
    assert snapped.result.path == plain.result.path
    assert {n.path for n in snapped.nodes if n.boundary} == {n.path for n in plain.nodes}
    assert snapped.generator.output(snapped.result) == plain.generator.output(plain.result)
    assert snapped.spent.generating.nfe == plain.spent.generating.nfe
    assert snapped.spent.generating.flops == plain.spent.generating.flops


def test_each_stage_keeps_its_share_by_what_the_preview_says():
    order = FunctionReward(lambda content, _: float(content[0][0]), "snap", View(1, progress=True))
    generator = ScriptedGenerator(units=1, pieces=4)
    tree = search("a prompt", generator, [*rewards("final"), order], TTSnap(BestOfN(8, "final"), HALVES, "snap"))
    first = [n for n in tree.nodes[1:] if n.parent is tree.root]
    second = [n for n in tree.nodes[1:] if n.parent in first]
    third = [n for n in tree.nodes[1:] if n.parent in second]
    assert [len(s) for s in (first, second, third)] == [8, 4, 2]
    best = sorted(first, key=lambda n: -n.unit["values"][0])[:4]  # continuing shows the same first number
    assert {n.parent for n in second} == set(best) and {n.parent for n in third} <= set(second)
    assert [len(n.unit["values"]) for n in tree.result.lineage] == [1, 2, 1]
    assert tree.spent.generating.nfe == 8 * 1 + 4 * 2 + 2 * 1
    assert all(n.status is Status.PRUNED for n in first if n not in best)


def test_one_candidate_is_never_pruned():
    tree = search("a prompt", GENERATOR, rewards("final", "snap"), TTSnap(BestOfN(1, "final"), HALVES, "snap"))
    assert tree.result.depth == 2 and not tree.having(Status.PRUNED)


@pytest.mark.parametrize("inner", [BestOfN(6, reward="final"), Beam(2, 3, reward="final")])
def test_it_keeps_the_contract(inner):
    generator = ScriptedGenerator(units=3, pieces=4, early=0.2)
    check_strategy(TTSnap(inner, HALVES, "snap"), generator, rewards("final", "snap"))


def test_a_budget_finishes_what_it_began_or_is_refused_at_once():
    strategy, finished = TTSnap(BestOfN(6, reward="final"), HALVES, "snap"), []
    for nfe in range(1, 60):
        try:
            tree = search("a prompt", GENERATOR, rewards("final", "snap"), strategy, budget=Budget(nfe=nfe))
        except BudgetError as error:
            assert error.tree.spent.total.nfe == 0 and not finished
            continue
        finished.append(nfe)
        assert tree.result.depth == 2 and tree.spent.total.nfe <= nfe
    # 2 units of 4 calls and a commit; each of the 3 rounds of a unit keeps both rewards' forwards in reserve.
    assert finished[0] == 2 * 4 + 1 + 2 * 3 * 2


@pytest.mark.parametrize(
    ("after", "keep", "message"),
    [
        ((), (), "after = \\(\\)"),
        ((2, 2), (0.5, 0.5), "rising numbers of steps"),
        ((0,), (0.5,), "rising"),
        ((1, 2), (0.5,), "one share for each"),
        ((1,), (0.0,), "shares in"),
        ((1,), (1.5,), "shares in"),
    ],
)
def test_what_is_no_schedule_is_refused(after, keep, message):
    with pytest.raises(SettingError, match=message):
        PruneSchedule(after, keep)
