"""Budgets: what they read, what they admit, and that a search never spends more."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Budget, Cost, PrunusError, search
from prunus.budget import Spent
from prunus.errors import BudgetError, SettingError
from prunus.roles import WHOLE, View
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, ScriptedReward, differences


def test_costs_add_up():
    assert Cost(1, 2, 3, 0.5) + Cost(10, 20, 30, 1.0) == Cost(11, 22, 33, 1.5)
    assert Cost(1, 2, 3) * 4 == Cost(4, 8, 12)
    assert Cost.most([Cost(1, 5, 0), Cost(2, 1, 0)]) == Cost(2, 5, 0)
    assert Cost.most([]) == Cost()


def test_rebuilding_is_reported_but_not_charged():
    spent = Spent()
    for purpose in ("generating", "scoring", "rendering", "rebuilding"):
        spent.charge(purpose, Cost(nfe=1))
    assert spent.total.nfe == 3
    assert Spent.from_dict(spent.as_dict()) == spent


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("nfe=500", Budget(nfe=500)),
        (" nfe = 500 , seconds=1.5", Budget(nfe=500, seconds=1.5)),
        ("flops=1e15,tokens=2e3", Budget(flops=1e15, tokens=2000)),
    ],
)
def test_parse(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nfe", "'' is not a number"),
        ("nfe=many", "'many' is not a number"),
        ("nfe=1e999", "'1e999' is not a number"),
        ("nfe=nan", "'nan' is not a number"),
        ("steps=3", "'steps' is unknown; limits are nfe, tokens, flops, seconds"),
        ("", "'' is unknown"),
        ("nfe=0", "must be a positive number"),
        ("seconds=-1", "must be a positive number"),
        ("seconds=nan", "must be a positive number"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(PrunusError, match=message):
        Budget.parse(text)


def test_a_budget_is_written_as_it_is_read():
    assert str(Budget(nfe=500, seconds=1.5)) == "nfe=500,seconds=1.5"
    assert str(Budget()) == "no limit"


def sums(head):
    return Cost(nfe=sum(head))


@pytest.mark.parametrize(
    ("limit", "admitted"),
    [(14, [5, 4, 3, 2]), (13, [5, 4, 3]), (9, [5, 4]), (5, [5]), (4, [4]), (2, [2]), (1, [])],
)
def test_the_longest_head_of_what_fits_alone_is_admitted(limit, admitted):
    assert Budget(nfe=limit).admit([5, 4, 3, 2], Cost(), sums) == admitted
    assert Budget(nfe=limit + 7).admit([5, 4, 3, 2], Cost(nfe=7), sums) == admitted


def test_seconds_are_foreseen_at_the_pace_so_far():
    # 10 forwards took 2 s; 1 s is left, which is 5 forwards.
    assert Budget(seconds=3).admit([2, 2, 2], Cost(nfe=10, seconds=2.0), sums) == [2, 2]
    assert Budget(seconds=3).admit([2, 2, 2], Cost(), sums) == [2, 2, 2]  # the pace is not known yet


class Meter(ScriptedGenerator):
    """Counts forwards, tokens and FLOPs as they are run, without a look at reported costs."""

    def forward(self, rows):
        for kind in (row[-3] if len(row) == 6 else "commit" for row in rows):
            self.meter["nfe"] += 1
            self.meter["tokens"] += kind == "piece"
        return super().forward(rows)

    def render(self, nodes, view):
        self.meter["flops"] += 7 * sum(n.rendering is None for n in {m for x in nodes for m in self._viewed(x, view)})
        return super().render(nodes, view)

    def _grow(self, ask, pays):
        done = sum(len(n.unit["values"]) for n in ask.parent.lineage)
        count = min(self.pieces - ask.parent.state.inside, ask.how.steps or self.pieces)
        self.meter["flops"] += sum(10 * position for position in range(done + 1, done + count + 1))
        return super()._grow(ask, pays)


class MeteredReward(ScriptedReward):
    def score(self, contents, prompts):
        self.meter["nfe"] += len(contents)
        self.meter["flops"] += 3 * sum(map(len, contents))  # one number is one unit here
        return super().score(contents, prompts)


def metered(generator, reward):
    meter = dict.fromkeys(("nfe", "tokens", "flops"), 0)
    for model in (generator, reward):
        object.__setattr__(model, "meter", meter)
    return generator, reward, meter


class Late(BestOfN):
    """Scores finished candidates only, but does not say so: renderings pile up until then."""

    finishes_all = False


STRATEGIES = st.one_of(
    st.builds(Late, n=st.integers(1, 6)),
    st.builds(BestOfN, n=st.integers(1, 6)),
    st.builds(Beam, keep=st.integers(1, 3), branch=st.integers(1, 3)),
)


@settings(max_examples=300, deadline=None)
@given(
    strategy=STRATEGIES,
    units=st.integers(1, 5),
    early=st.sampled_from([0.0, 0.3]),
    view=st.sampled_from([View(1), View(2), WHOLE]),
    limits=st.fixed_dictionaries(
        {}, optional={"nfe": st.integers(1, 80), "tokens": st.integers(1, 40), "flops": st.integers(10, 1200)}
    ),
    seed=st.integers(0, 99),
)
def test_budgets_are_never_exceeded_and_are_counted_exactly(strategy, units, early, view, limits, seed):
    generator, reward, meter = metered(Meter(units=units, early=early), MeteredReward(view=view))
    try:
        tree = search("a prompt", generator, reward, strategy, budget=Budget(**limits), seed=seed)
    except BudgetError:
        assert meter == {"nfe": 0, "tokens": 0, "flops": 0}
        return
    total = tree.spent.total
    assert dataclasses.asdict(total) == {**meter, "seconds": total.seconds}
    assert tree.spent.generating.nfe == sum(n.cost.nfe for n in tree.nodes)
    assert all(meter[name] <= limit for name, limit in limits.items())
    assert tree.result.status.value == "done"


def test_renderings_that_piled_up_are_paid_for():
    """Two of four units, grown for 10 + 20 + 30 + 40 FLOPs each; the last round renders all 4 x 7 at once."""
    for n in (2, 3, 4):
        for limit in range(160, 600, 15):
            budget = Budget(flops=limit)
            tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Late(n), budget=budget)
            assert tree.spent.total.flops <= limit and tree.finished


def test_older_nodes_are_scored_again_only_while_the_budget_pays_for_it():
    class Again(Beam):
        def to_score(self, tree):
            return {tree.rewards[0]: tree.nodes[1:]}

    free = search("a prompt", ScriptedGenerator(), ScriptedReward(), Again(1, 2))
    assert free.spent.scoring.nfe == 2 + 4 + 6 + 8
    spent = set()
    for limit in range(11, 35):
        tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Again(1, 2), budget=Budget(nfe=limit))
        assert tree.spent.total.nfe <= limit and tree.finished
        assert all(n.scores for n in tree.nodes[1:])
        spent.add(tree.spent.scoring.nfe)
    assert max(spent) > 8  # the new ones alone take eight


def test_a_budget_of_exactly_what_a_search_takes_changes_nothing():
    for strategy in (BestOfN(4), Beam(2, 2), Beam(3, 1)):
        free = search("a prompt", ScriptedGenerator(), ScriptedReward(), strategy)
        total = free.spent.total
        exact = Budget(nfe=total.nfe, tokens=total.tokens, flops=total.flops)
        paid = search("a prompt", ScriptedGenerator(), ScriptedReward(), strategy, budget=exact)
        assert list(differences(free, paid)) == []


def test_best_of_n_begins_as_many_as_the_budget_finishes():
    # One candidate of 4 units: 4 pieces, 3 commits, 1 score = 8 forwards.
    tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), BestOfN(100), budget=Budget(nfe=31))
    assert (len(tree.finished), tree.spent.total.nfe, len(tree.nodes)) == (3, 24, 1 + 3 * 4)


def test_what_one_candidate_takes_is_the_least_budget():
    # A beam scores every unit: 4 pieces + 3 commits + 4 scores = 11 forwards.
    for strategy, least in ((BestOfN(3), 8), (Beam(2, 2), 11)):
        tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), strategy, budget=Budget(nfe=least))
        assert tree.spent.total.nfe == least
        generator, reward, meter = metered(Meter(), MeteredReward())
        with pytest.raises(
            BudgetError, match=f"nfe={least - 1} does not pay for one candidate, which needs nfe={least}"
        ):
            search("a prompt", generator, reward, strategy, budget=Budget(nfe=least - 1))
        assert meter["nfe"] == 0


def test_a_candidate_that_the_budget_left_behind_does_not_keep_another_from_finishing():
    """A short budget leaves some of the beam behind; they may rank first, but only those ahead can be finished."""
    for seed in range(5):
        for limit in range(11, 40, 2):
            budget = Budget(nfe=limit)
            tree = search("a prompt", ScriptedGenerator(), ScriptedReward(), Beam(3, 1), budget=budget, seed=seed)
            assert tree.finished and tree.spent.total.nfe <= limit


def test_seconds_are_overshot_by_one_call_at_most(monkeypatch):
    clock = [0.0]
    began = []

    class Slow(ScriptedGenerator):
        def grow(self, asks):
            began.append(clock[0])
            clock[0] += 1.0 * len(asks)
            return super().grow(asks)

    monkeypatch.setattr(sys.modules["prunus.search"], "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    tree = search("a prompt", Slow(units=6), ScriptedReward(), Beam(2, 2), budget=Budget(seconds=20))
    assert max(began) < 20
    assert tree.spent.total.seconds == clock[0] <= 24
    began.clear()
    clock[0] = 0.0
    with pytest.raises(BudgetError, match="seconds=3 does not pay for one candidate") as caught:
        search("a prompt", Slow(units=6), ScriptedReward(), Beam(2, 2), budget=Budget(seconds=3))
    assert len(began) == 1 and len(caught.value.tree.nodes) == 5


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(value):
    with pytest.raises(SettingError, match="budget nfe"):
        Budget(nfe=value)
