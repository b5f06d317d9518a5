"""Every way in which a search can fail, with scripted models: the culprit is named and the tree can go on."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wild import Wild

from prunus import Budget, PrunusError, Status, Tree, search, search_many
from prunus.budget import Cost
from prunus.errors import BudgetError, PromptError, SearchError
from prunus.roles import Failed, Reward, View
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, ScriptedReward, assert_same_tree


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


class OnlyTheFirst(ScriptedGenerator):
    """Its first candidate is done after a unit; the others' second unit cannot be grown."""

    def grow(self, asks):
        grown = super().grow(asks)
        ends = [replace(g, done=True) if ask.path == (0,) else g for ask, g in zip(asks, grown, strict=True)]
        return [Failed("no server", g.cost) if len(ask.path) > 1 else g for ask, g in zip(asks, ends, strict=True)]


def test_when_all_that_is_left_fails_the_search_ends_with_what_is_finished():
    tree = search("a prompt", OnlyTheFirst(units=3), ScriptedReward(), BestOfN(3))
    assert tree.result.path == (0,) and {n.reason for n in tree.having(Status.FAILED)} == {"no server"}

    class Again(BestOfN):
        revisits = True  # it might ask for ever

        def select(self, tree):
            return super().select(tree) if tree.round == 0 else [tree.ask(n) for n in tree.frontier if n.depth]

    with pytest.raises(SearchError, match="all 2 candidates of round 1 failed: no server"):
        search("a prompt", OnlyTheFirst(units=3), ScriptedReward(), Again(3))


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
    ("method", "does", "message"),
    [
        ("select", lambda self, tree: [tree.ask(tree.root)] if tree.round < 2 else [], "node 0, which is closed"),
        ("select", lambda self, tree: [tree.ask(n, steps=1) for n in tree.frontier for _ in "12"], "continued once"),
        ("select", lambda self, tree: {}["x"], "strategy Broken raised KeyError in round 0: 'x'"),
        ("prune", lambda self, tree: [tree.root] if tree.round else (), "node 0 is closed and cannot become pruned"),
        ("prune", lambda self, tree: tree.fresh, "ended the search before a candidate was finished"),
        ("to_score", lambda self, tree: {"taste": tree.fresh}, "reward = 'taste' is not allowed"),
    ],
)
def test_a_strategy_that_breaks_a_rule_is_told_which(method, does, message):
    broken = type("Broken", (Beam,), {method: does})
    with pytest.raises(PrunusError, match=message) as caught:
        search("a prompt", ScriptedGenerator(pieces=3), ScriptedReward(), broken())
    assert caught.value.tree.nodes


def test_a_generator_must_answer_every_ask():
    class Lazy(ScriptedGenerator):
        def grow(self, asks):
            return super().grow(asks)[:-1]

    with pytest.raises(SearchError, match="generator 'scripted-generator' returned 3 candidates for 4 candidates"):
        search("a prompt", Lazy(), ScriptedReward(), Beam())


class Peek(Reward):
    """Scores by what the generator's state holds."""

    name = "peek"
    view = View(1, state=True)

    def score(self, contents, prompts):
        return [state.blocks[-1][0] for _, state in contents]


def test_a_reward_may_read_the_generators_state():
    tree = search("a prompt", ScriptedGenerator(units=2), Peek(), Beam(2, 2))
    assert all(n.scores["peek"].value == n.unit["values"][0] for n in tree.nodes[1:])


class Counting(ScriptedReward):
    """Tells afterwards what it took: a token for each unit that it had not read; it remembers what it was told of."""

    def took(self, contents, prompts, read):
        self.__dict__.setdefault("told", []).append([(len(c), units) for c, units in zip(contents, read, strict=True)])
        return Cost(tokens=sum(len(c) - units for c, units in zip(contents, read, strict=True)))


def test_a_reward_may_tell_what_its_scores_took():
    reward = Counting()
    tree = search("a prompt", ScriptedGenerator(units=3), reward, Beam(2, 2))
    assert reward.__dict__["told"] == [[(1, 0)] * 4, [(2, 1)] * 4, [(3, 2)] * 4]
    assert (tree.spent.scoring.tokens, tree.spent.scoring.nfe) == (12, 0)
    every = Counting()
    tree = search("a prompt", ScriptedGenerator(units=3), every, BestOfN(2))
    assert every.__dict__["told"] == [[(3, 0)] * 2]
    assert tree.spent.scoring.tokens == 6


def test_a_reward_that_reads_on_keeps_each_unit_once_in_reserve():
    """Three units are to come: 1 + 2 + 3 read anew each time, 3 if each is read once, behind what was read."""

    class Reader(ScriptedReward):
        def cost(self, units):
            return Cost(tokens=sum(units))

    class OnReader(Reader):
        reads_on = True

    generator = ScriptedGenerator(units=3)  # three tokens of its own
    for reader, scoring in ((Reader, 6), (OnReader, 3)):
        search("a prompt", generator, reader(), Beam(1, 1), budget=Budget(tokens=3 + scoring))
        with pytest.raises(BudgetError, match=f"needs nfe=5, tokens={3 + scoring}"):
            search("a prompt", generator, reader(), Beam(1, 1), budget=Budget(tokens=2 + scoring))
