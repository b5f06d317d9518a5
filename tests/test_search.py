"""The drivers of a search, with scripted models: properties over random strategies and budgets."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wild import Returning, Wild

from prunus import Budget, PrunusError, Status, Tree, search, search_many, stream_search
from prunus.errors import BudgetError, SearchError, SettingError
from prunus.roles import View
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, ScriptedReward, assert_same_tree

ENDS = (Status.CLOSED, Status.PRUNED, Status.FAILED)


class Blind(BestOfN):
    """Keeps the first candidate, unseen."""

    def prune(self, tree):
        return tree.fresh[1:]


STRATEGIES = st.one_of(
    st.builds(Blind, n=st.integers(1, 3)),
    st.builds(BestOfN, n=st.integers(1, 5)),
    st.builds(Beam, keep=st.integers(1, 3), branch=st.integers(1, 3)),
    st.builds(Wild, partial=st.booleans(), again=st.booleans()),
    st.builds(Returning, again=st.booleans()),
)
GENERATORS = st.builds(
    ScriptedGenerator,
    units=st.integers(1, 4),
    pieces=st.integers(1, 3),
    early=st.sampled_from([0.0, 0.3]),
    failing=st.sampled_from([0.0, 0.15]),
)
REWARDS = st.builds(
    ScriptedReward,
    levels=st.sampled_from([0, 2]),
    failing=st.sampled_from([0.0, 0.15]),
    view=st.sampled_from([View(1), View(2), View(None)]),
)
BUDGETS = st.builds(
    Budget,
    nfe=st.sampled_from([None, None, 40, 90]),
    flops=st.sampled_from([None, None, 250, 500, 3000]),
)
CASES = {
    "strategy": STRATEGIES,
    "generator": GENERATORS,
    "reward": REWARDS,
    "budget": BUDGETS,
    "seed": st.integers(0, 10**6),
}


def run(generator, reward, strategy, **options):
    """The tree of a search, finished or not."""
    try:
        return search("a prompt", generator, reward, strategy, **options)
    except (SearchError, BudgetError) as error:
        return error.tree


class Backwards(ScriptedGenerator):
    """Works on its rows in the reverse order."""

    def grow(self, asks):
        return super().grow(asks[::-1])[::-1]

    def render(self, nodes, view):
        return super().render(nodes[::-1], view)[::-1]


@settings(max_examples=200, deadline=None)
@given(**CASES)
def test_the_tree_is_always_a_tree(strategy, generator, reward, budget, seed):
    statuses = {}
    try:
        for event in stream_search("a prompt", generator, reward, strategy, budget=budget, seed=seed):
            for node in event.tree.nodes:
                before = statuses.get(node.id, Status.OPEN)
                assert node.status is before or before in (Status.OPEN, Status.DONE)
                assert node.status is not Status.OPEN or before is Status.OPEN
                statuses[node.id] = node.status
        tree = event.tree
    except PrunusError as error:
        tree = error.tree
    grown_in = {}
    for i, node in enumerate(tree.nodes):
        assert node.id == i
        if node.parent is None:
            assert i == 0
            continue
        assert node.parent is tree.nodes[node.parent.id] and node.parent.id < i
        assert node.depth == node.parent.depth + node.parent.boundary
        assert node in node.parent.children
        grown_in.setdefault(node.parent.id, []).append(node.round)
        if node.parent.boundary:
            assert node.path[:-1] == node.parent.path
        else:
            assert node.path == node.parent.path and len(node.parent.children) == 1
    forks = [n.path for n in tree.nodes[1:] if n.parent.boundary]
    assert len(set(forks)) == len(forks)
    for node in tree.nodes:
        assert sorted(c.path for c in node.children) == [c.path for c in node.children]
        if node.status in ENDS:
            assert node.state is None
    assert tree.spent.generating.nfe == sum(n.cost.nfe for n in tree.nodes)


@settings(max_examples=150, deadline=None)
@given(**CASES)
def test_an_ended_node_never_grows_and_its_state_is_gone(strategy, generator, reward, budget, seed):
    ended = {}
    try:
        for event in stream_search("a prompt", generator, reward, strategy, budget=budget, seed=seed):
            if event.kind != "round":
                continue
            for node in event.tree.nodes:
                if node.status in ENDS:
                    assert len(node.children) == ended.setdefault(node.id, len(node.children))
            held = {n.state for n in event.tree.frontier}
            assert set(generator.states) == held, "a state outlives its node's end"
    except PrunusError as error:
        assert error.tree is not None


@settings(max_examples=150, deadline=None)
@given(batch=st.integers(1, 3), **CASES)
def test_batch_size_and_order_of_siblings_change_nothing(batch, strategy, generator, reward, budget, seed):
    options = {"budget": budget, "seed": seed}
    whole = run(generator, reward, strategy, **options)
    assert_same_tree(whole, run(generator, reward, strategy, batch=batch, **options), "batch")
    turned = Backwards(generator.units, generator.pieces, generator.early, generator.failing)
    assert_same_tree(whole, run(turned, reward, strategy, **options), "order of rows")


@settings(max_examples=50, deadline=None)
@given(batch=st.sampled_from([None, 4]), **CASES)
def test_sharing_a_driver_changes_nothing(batch, strategy, generator, reward, budget, seed):
    prompts, seeds = ["a", "b", "a", "c"], [seed, seed, seed, seed + 1]
    together = search_many(prompts, generator, reward, strategy, budget=budget, seeds=seeds, batch=batch)
    for prompt, own, tree in zip(prompts, seeds, together, strict=True):
        try:
            alone = search(prompt, generator, reward, strategy, budget=budget, seed=own)
            assert tree.error == ""
        except PrunusError as error:
            alone = error.tree
            assert tree.error == str(error)
        assert_same_tree(alone, tree, "search_many")


@settings(max_examples=50, deadline=None)
@given(**CASES)
def test_saved_in_any_round_a_search_goes_on_as_if_it_had_not_stopped(
    tmp_path_factory, strategy, generator, reward, budget, seed
):
    folder = tmp_path_factory.mktemp("saved")
    models = (generator, reward, strategy)
    whole, stop = run(*models, budget=budget, seed=seed), 0
    while True:
        try:
            for event in stream_search("a prompt", *models, budget=budget, seed=seed, save_to=folder):
                if event.kind in ("begun", "round") and event.tree.round == stop:
                    break
            else:
                break
        except PrunusError:
            break
        try:
            went_on = search(Tree.load(folder), *models, budget=budget)
        except PrunusError as error:
            went_on = error.tree
        assert_same_tree(whole, went_on, f"stopped after round {stop}")
        stop += 1
    if whole.result:
        assert_same_tree(whole, search(Tree.load(folder), *models, budget=budget), "finished")


@settings(max_examples=150, deadline=None)
@given(**CASES)
def test_what_is_settled_is_the_answers_beginning_each_unit_once(strategy, generator, reward, budget, seed):
    played = []
    try:
        for event in stream_search("a prompt", generator, reward, strategy, budget=budget, seed=seed):
            if event.kind == "settled":
                assert event.nodes
                played += event.nodes
    except PrunusError:
        return
    assert played == event.tree.result.units()


def test_a_beam_of_one_settles_every_unit_as_it_is_grown():
    kinds = [
        (e.kind, [n.depth for n in e.nodes])
        for e in stream_search("a prompt", ScriptedGenerator(units=3), ScriptedReward(), Beam(1, 2))
    ]
    assert kinds == [
        ("begun", []), ("settled", [1]), ("round", [1, 1]), ("settled", [2]), ("round", [2, 2]), ("settled", [3]),
        ("round", [3, 3]), ("finished", [3]),
    ]  # fmt: skip


def test_early_rejection_and_plain_search_see_the_same_candidates():
    @dataclass(frozen=True)
    class Halves(BestOfN):
        def select(self, tree):
            return [tree.ask(a.parent, steps=2) for a in super().select(tree)]

    generator = ScriptedGenerator(units=3, pieces=4)
    plain, halves = (search("a prompt", generator, ScriptedReward(), s(n=3)) for s in (BestOfN, Halves))
    assert [len(n.lineage) for n in plain.finished] == [3, 3, 3]
    assert [len(n.lineage) for n in halves.finished] == [6, 6, 6] and [n.depth for n in halves.finished] == [3, 3, 3]
    assert [plain.generator.output(n) for n in plain.finished] == [halves.generator.output(n) for n in halves.finished]
    assert plain.spent.generating.nfe == halves.spent.generating.nfe


def test_settings_of_a_search():
    models = (ScriptedGenerator(), ScriptedReward())
    with pytest.raises(SettingError, match="batch = 0"):
        search("a prompt", *models, Beam(), batch=0)
    with pytest.raises(
        SettingError, match="reward = 'taste' is not allowed; reward must be one of this search's: scri"
    ):
        search("a prompt", *models, Beam(reward="taste"))
    with pytest.raises(SettingError, match="one or more rewards of different names"):
        search("a prompt", models[0], [models[1], models[1]], Beam())
    with pytest.raises(SettingError, match="one seed for each of the 2 prompts"):
        search_many(["a", "b"], *models, Beam(), seeds=[1, 2, 3])
    with pytest.raises(SettingError, match="a list of prompts"):
        search_many("a prompt", *models, Beam())
    tree = search("a prompt", *models, Beam())
    with pytest.raises(SettingError, match="what the tree was scored by"):
        search(tree, models[0], ScriptedReward(name="other"), Beam())


def test_plain_functions_are_rewards():
    tree = search("a prompt", ScriptedGenerator(), lambda content, prompt: max(content), BestOfN(5))
    assert max(tree.best().output) == max(max(tree.generator.output(n)) for n in tree.finished)


def test_a_select_that_leads_to_no_round_leaves_no_trace():
    class Counting(Beam):
        def select(self, tree):
            tree.note(tree.root)["selects"] = tree.note(tree.root).get("selects", 0.0) + 1
            tree.rng("x").random()
            return super().select(tree)

    tree = search("a prompt", ScriptedGenerator(units=3), ScriptedReward(), Counting())
    assert tree.notes == {0: {"selects": 3.0}}
    fresh = Tree("a prompt").rng("x")
    assert tree.rng("x").random() == [fresh.random() for _ in range(4)][-1]


def test_a_larger_budget_goes_on_from_a_finished_search():
    models = (ScriptedGenerator(units=6), ScriptedReward(), Beam(2, 2))
    tree = search("a prompt", *models, budget=Budget(nfe=30))
    before = len(tree.nodes)
    assert len(search(tree, *models).nodes) > before


def test_importing_prunus_is_light():
    code = (
        "import sys, time; began = time.process_time(); import prunus, prunus.strategies; "
        "seconds = time.process_time() - began; "
        "print(seconds, *({'torch', 'diffusers', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, *heavy = min((r.stdout.split() for r in runs), key=lambda words: float(words[0]))
    assert heavy == [] and float(seconds) < 0.5
