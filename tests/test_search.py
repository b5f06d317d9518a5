"""The loop and its drivers, with scripted models: properties over random strategies, and every way to fail."""

import math
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Budget, PrunusError, Status, Strategy, Tree, search, search_many, stream_search
from prunus.errors import BudgetError, PromptError, SearchError, SettingError
from prunus.roles import Failed, Reward, View
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, ScriptedReward, assert_same_tree

ENDS = (Status.CLOSED, Status.PRUNED, Status.FAILED)


@dataclass(frozen=True)
class Wild(Strategy):
    """Selects, scores, notes and prunes at random; with ``partial`` it also stops inside units."""

    partial: bool = False
    again: bool = False

    def select(self, tree):
        rng = tree.rng("select")
        asks = []
        for node in tree.frontier:
            tree.note(node)["offers"] = tree.note(node).get("offers", 0.0) + 1
            if rng.random() < 0.8 or node is tree.root:
                pieces = int(rng.integers(1, 3)) if self.partial and rng.random() < 0.5 else None
                asks += [tree.ask(node, pieces=pieces)] * (int(rng.integers(1, 4)) if node.boundary else 1)
        return [asks[i] for i in rng.permutation(len(asks))] or [tree.ask(n) for n in tree.frontier]

    def to_score(self, tree):
        older = [n for n in tree.nodes[1:] if n.round < tree.round and tree.rng("again").random() < 0.2]
        return {tree.rewards[0]: tree.fresh + (older if self.again else [])}

    def prune(self, tree):
        candidates = tree.having(Status.OPEN, Status.DONE)
        if len(candidates) < 2:
            return []
        tree.backup({n: n.scores[tree.rewards[0]].value for n in tree.fresh if n.scores})
        keep = {n.id for n in self.ranked(tree, candidates)[:4]}
        return [n for n in candidates if n is not tree.root and n.id not in keep | {n.parent.id for n in tree.fresh}]


@dataclass(frozen=True)
class Returning(Wild):
    """Grows the same nodes again in later rounds, three children each at most."""

    revisits: ClassVar[bool] = True

    def select(self, tree):
        wishes = [n for n in tree.frontier if len(n.children) < (3 if n.boundary else 1)]
        return [tree.ask(n) for n in wishes if tree.rng("select").random() < 0.6][:4] or [
            tree.ask(n) for n in wishes[:1]
        ]

    def prune(self, tree):
        return [n for n in tree.fresh if tree.rng("prune").random() < 0.2 and len(tree.finished) > 1]


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
        assert node.depth == node.parent.depth + 1
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
    assert played == event.tree.result.lineage


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
            return [tree.ask(a.parent, pieces=2) for a in super().select(tree)]

    generator = ScriptedGenerator(units=3, pieces=4)
    plain, halves = (search("a prompt", generator, ScriptedReward(), s(n=3)) for s in (BestOfN, Halves))
    assert [n.depth for n in plain.finished] == [3, 3, 3] and [n.depth for n in halves.finished] == [6, 6, 6]
    assert [plain.generator.output(n) for n in plain.finished] == [halves.generator.output(n) for n in halves.finished]
    assert plain.spent.generating.nfe == halves.spent.generating.nfe


# ---- failures --------------------------------------------------------------------------------


class Marks(Reward):
    """Gives the listed values, call by call."""

    name = "marks"

    def __init__(self, *calls):
        self.calls = list(calls)

    def score(self, contents, prompts):
        values = self.calls.pop(0)
        if isinstance(values, BaseException):
            raise values
        return values


class Breaking(ScriptedGenerator):
    """Raises in its n-th call."""

    def grow(self, asks):
        calls = self.__dict__.get("calls", 0)
        object.__setattr__(self, "calls", calls + 1)
        if calls == self.breaks_at:
            raise RuntimeError("out of memory")
        return super().grow(asks)

    @classmethod
    def at(cls, call, **settings):
        generator = cls(**settings)
        object.__setattr__(generator, "breaks_at", call)
        return generator


def test_candidates_whose_score_is_not_finite_fail_and_the_others_go_on():
    reward = Marks([math.nan, 0.2, math.inf, 0.1], [0.5, 0.4, 0.3, 0.2])
    tree = search("a prompt", ScriptedGenerator(units=2), reward, Beam(2, 2))
    failed = tree.having(Status.FAILED)
    assert [(n.path, n.reason) for n in failed] == [
        ((0,), "reward 'marks' gave nan"),
        ((2,), "reward 'marks' gave inf"),
    ]
    assert [n.scores for n in failed] == [{}, {}]
    assert tree.result.path == (1, 0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([math.nan] * 4, "all 4 candidates of round 1 failed: reward 'marks' gave nan"),
        ([0.1] * 3, "reward 'marks' returned 3 scores for 4 candidates; it must return one for each"),
        ([0.1] * 5, "reward 'marks' returned 5 scores for 4 candidates"),
        (["good"] * 4, "reward 'marks' gave 'good'; a score is a number"),
        (ValueError("no weights"), "reward 'marks' raised ValueError while scoring: no weights"),
    ],
)
def test_a_reward_that_fails_a_whole_round_is_named_and_the_tree_kept(scores, message, tmp_path):
    generator = ScriptedGenerator(units=3)
    with pytest.raises(SearchError, match=message) as caught:
        search("a prompt", generator, Marks([0.1, 0.2, 0.3, 0.4], scores), Beam(2, 2))
    tree = caught.value.tree
    assert tree.error == str(caught.value)
    assert [len([n for n in tree.nodes if n.depth == d]) for d in range(3)] == [1, 4, 4]
    tree.save(tmp_path)
    saved = Tree.load(tmp_path)
    assert len(saved.nodes) == 5 and saved.error == tree.error
    went_on = search(saved, generator, Marks([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]), Beam(2, 2))
    # Kept are 3 and 2; their children in the order asked for are (3,0) (2,0) (3,1) (2,1), so (2,1) and (3,1) are kept.
    assert went_on.result.path == (3, 1, 1) and went_on.error == ""


@settings(max_examples=40, deadline=None)
@given(call=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_generator_that_raises_leaves_a_tree_that_goes_on(tmp_path_factory, call, seed):
    folder, strategy, reward = tmp_path_factory.mktemp("saved"), Wild(partial=True, again=True), ScriptedReward()
    whole = search("a prompt", ScriptedGenerator(units=6), reward, strategy, seed=seed)
    raised = "generator 'scripted-generator' raised RuntimeError while generating: out of memory"
    for other in (False, True):
        with pytest.raises(SearchError, match=raised) as caught:
            search("a prompt", generator := Breaking.at(call, units=6), reward, strategy, seed=seed)
        tree = caught.value.tree
        tree.save(folder)
        assert_same_tree(whole, search(Tree.load(folder), ScriptedGenerator(units=6), reward, strategy), "loaded")
        generator = ScriptedGenerator(units=6) if other else generator
        assert_same_tree(whole, search(tree, generator, reward, strategy), "in memory")


@pytest.mark.parametrize("call", range(4))
def test_interrupted_in_mid_round_a_search_goes_on_to_the_same_choices(call, tmp_path):
    class Interrupted(ScriptedReward):
        def score(self, contents, prompts):
            if len(contents[0]) == call + 1:
                raise KeyboardInterrupt
            return super().score(contents, prompts)

    models = (ScriptedGenerator(), ScriptedReward(), Beam(2, 3))
    whole = search("a prompt", *models)
    with pytest.raises(KeyboardInterrupt):
        search("a prompt", models[0], Interrupted(), models[2], save_to=tmp_path)
    tree = Tree.load(tmp_path)
    assert tree.round == call
    assert_same_tree(whole, search(tree, *models), "after an interruption")


class Picky(ScriptedGenerator):
    """Breaks down on one prompt; refuses another; fails a third candidate by candidate."""

    def begin(self, prompt):
        if prompt == "gibberish":
            raise PromptError("gibberish is not understood")
        return super().begin(prompt)

    def grow(self, asks):
        if any(a.prompt == "poison" and a.parent.depth == 1 for a in asks):
            raise RuntimeError("poisoned")
        grown = super().grow(asks)
        return [Failed("no server", g.cost) if a.prompt == "unlucky" else g for a, g in zip(asks, grown, strict=True)]


def test_a_search_that_fails_does_not_stop_the_others():
    class Choosy(ScriptedReward):
        def score(self, contents, prompts):
            scores = super().score(contents, prompts)
            return scores[1:] if "short" in prompts else scores

    prompts = ["good", "poison", "unlucky", "short", "good"]
    trees = search_many(prompts, Picky(), Choosy(), Beam())
    alone = search("good", ScriptedGenerator(), ScriptedReward(), Beam())
    assert [t.error for t in trees] == [
        "",
        "generator 'scripted-generator' raised RuntimeError while generating: poisoned",
        "all 4 candidates of round 0 failed: no server",
        "reward 'scripted-reward' returned 3 scores for 4 candidates; it must return one for each",
        "",
    ]
    for tree in (trees[0], trees[4]):
        assert_same_tree(alone, tree, "beside others that failed")
    assert [t.result is None for t in trees] == [False, True, True, True, False]


def test_a_prompt_that_is_not_understood_is_refused_before_anything_is_grown():
    generator = Breaking.at(0)
    object.__setattr__(generator, "begin", Picky().begin)
    with pytest.raises(PromptError, match="gibberish"):
        search_many(["good", "gibberish"], generator, ScriptedReward(), Beam())
    assert "calls" not in vars(generator)


def test_a_budget_too_small_is_refused_in_each_search_of_many():
    trees = search_many(["a", "b"], Breaking.at(0), ScriptedReward(), Beam(), budget=Budget(nfe=5))
    assert all("nfe=5 does not pay for one candidate" in t.error and len(t.nodes) == 1 for t in trees)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("select = lambda self, tree: [tree.ask(tree.root)] if tree.round < 2 else []", "node 0, which is closed"),
        ("select = lambda self, tree: [tree.ask(n, pieces=1) for n in tree.frontier for _ in '12']", "continued once"),
        ("select = lambda self, tree: {}['x']", "strategy Broken raised KeyError in round 0: 'x'"),
        (
            "prune = lambda self, tree: [tree.nodes[0]] if tree.round else ()",
            "node 0 is closed and cannot become pruned",
        ),
        ("prune = lambda self, tree: tree.fresh", "ended the search before a candidate was finished"),
        ("to_score = lambda self, tree: {'taste': tree.fresh}", "reward = 'taste' is not allowed"),
    ],
)
def test_a_strategy_that_breaks_a_rule_is_told_which(change, message):
    space = {}
    exec(change, {}, space)
    broken = dataclass(frozen=True)(type("Broken", (Beam,), space))
    with pytest.raises(PrunusError, match=message) as caught:
        search("a prompt", ScriptedGenerator(pieces=3), ScriptedReward(), broken())
    assert caught.value.tree.nodes


def test_a_generator_must_answer_every_ask():
    class Lazy(ScriptedGenerator):
        def grow(self, asks):
            return super().grow(asks)[:-1]

    with pytest.raises(SearchError, match="generator 'scripted-generator' returned 3 candidates for 4 candidates"):
        search("a prompt", Lazy(), ScriptedReward(), Beam())


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
