"""The tree: lineages, statuses, paths, notes and backed-up values, worked out by hand."""

import math

import pytest

from prunus import Score, Status, Tree
from prunus.errors import SearchError, SettingError
from prunus.roles import Failed, Grown, View
from prunus.testing import ScriptedGenerator


def grow(tree, parent, count=1, **grown):
    """One round: ``count`` children of ``parent``."""
    asks = tree.number([tree.ask(parent)] * count)
    return tree.add(asks, [Grown({"value": 1.0}, object(), **grown) for _ in asks])


@pytest.fixture
def tree():
    return Tree("a prompt", seed=3, generator=ScriptedGenerator())


def test_branches_are_counted_on_from_the_children_that_are_there(tree):
    first = grow(tree, tree.root, 2)
    tree.settle((), revisits=True)
    second = grow(tree, tree.root, 2)
    assert [n.path for n in first + second] == [(0,), (1,), (2,), (3,)]
    assert tree.children(tree.root) == first + second
    assert [n.depth for n in grow(tree, first[1], 2)] == [2, 2]


def test_a_failed_child_keeps_its_branch_index(tree):
    asks = tree.number([tree.ask(tree.root)])
    [node] = tree.add(asks, [Failed("no memory")])
    assert (node.status, node.reason, node.path) == (Status.FAILED, "no memory", (0,))
    assert grow(tree, tree.root)[0].path == (1,)


def test_continuing_a_partial_node_opens_no_branch(tree):
    [partial] = grow(tree, tree.root, boundary=False)
    [rest] = grow(tree, partial)
    assert (partial.path, partial.depth, rest.path, rest.depth) == ((0,), 1, (0,), 1)
    assert rest.units() == [rest] and partial.units() == [partial] and rest.fork is tree.root
    assert grow(tree, rest)[0].path == (0, 0)


def test_lineage_leaves_the_root_out(tree):
    [a] = grow(tree, tree.root)
    [b] = grow(tree, a)
    assert b.lineage == [a, b]
    assert tree.root.lineage == []


ALLOWED = {
    Status.OPEN: {Status.CLOSED, Status.DONE, Status.PRUNED, Status.FAILED},
    Status.DONE: {Status.PRUNED, Status.FAILED},
    Status.CLOSED: set(),
    Status.PRUNED: set(),
    Status.FAILED: set(),
}


@pytest.mark.parametrize("start", Status)
@pytest.mark.parametrize("end", Status)
def test_statuses_only_move_forward(tree, start, end):
    [node] = grow(tree, tree.root)
    if start is not Status.OPEN:
        node.move(start)
    if end in ALLOWED[start] or end is start:
        node.move(end)
        assert node.status is end
        assert (node.state is None) == (end in (Status.CLOSED, Status.PRUNED, Status.FAILED))
    else:
        with pytest.raises(SettingError, match=f"node 1 is {start.value} and cannot become {end.value}"):
            node.move(end)
        assert node.status is start


def test_settle_closes_parents_and_frees_what_will_not_grow(tree):
    a, b = grow(tree, tree.root, 2)
    tree.settle([b])
    assert (tree.root.status, a.status, b.status) == (Status.CLOSED, Status.OPEN, Status.PRUNED)
    assert tree.root.state is None and b.state is None and a.state is not None
    [done] = grow(tree, a, done=True)
    tree.settle(())
    assert (done.status, done.state, tree.finished) == (Status.DONE, None, [done])
    assert tree.frontier == []


def test_a_strategy_that_revisits_keeps_parents_open(tree):
    tree.root.state = "state"
    grow(tree, tree.root)
    tree.settle((), revisits=True)
    assert (tree.root.status, tree.root.state) == (Status.OPEN, "state")


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (math.nan, "reward 'r' gave nan"),
        (-math.inf, "reward 'r' gave -inf"),
        (Score(1.0, {"long": math.inf, "short": 0.0}), "reward 'r' gave 1.0, long = inf"),
    ],
)
def test_a_score_that_is_not_finite_fails_its_node(tree, score, reason):
    a, b = grow(tree, tree.root, 2)
    tree.record("r", [a, b], [score, 2])
    assert (a.status, a.reason, a.scores) == (Status.FAILED, reason, {})
    assert (b.status, b.scores) == (Status.OPEN, {"r": Score(2.0)})


def test_an_expanded_node_keeps_its_status_and_score_when_scored_again_as_nan(tree):
    [node] = grow(tree, tree.root)
    tree.record("r", [node], [0.5])
    node.move(Status.CLOSED)
    tree.record("r", [node], [math.nan])
    assert (node.status, node.scores["r"].value, node.reason) == (Status.CLOSED, 0.5, "reward 'r' gave nan")


def test_none_leaves_a_node_unscored_and_words_are_no_score(tree):
    [node] = grow(tree, tree.root)
    tree.record("r", [node], [None])
    assert (node.scores, node.status) == ({}, Status.OPEN)
    with pytest.raises(SearchError, match="reward 'r' gave 'good'; a score is a number"):
        tree.record("r", [node], ["good"])


def test_unknown_fields_of_how_are_refused(tree):
    with pytest.raises(SettingError, match="'scripted-generator' does not know how to grow by heat; it knows: steps"):
        tree.ask(tree.root, heat=1.0)
    with pytest.raises(SettingError, match="no generator"):
        Tree("a prompt").ask(Tree("a prompt").root)


def test_a_view_holds_at_least_one_unit():
    with pytest.raises(SettingError, match="units = 0 is not allowed"):
        View(0)


def test_backup_carries_values_to_all_ancestors(tree):
    a, b = grow(tree, tree.root, 2)
    [c] = grow(tree, a)
    tree.backup({c: 1.0, b: 4.0, a: -2.0}, "mean")
    assert tree.notes[0] == {"visits": 3, "value": 1.0}  # (1 + 4 - 2) / 3
    assert tree.notes[a.id] == {"visits": 2, "value": -0.5}
    assert tree.notes[c.id] == {"visits": 1, "value": 1.0}
    tree.backup({c: 1.0, b: 4.0}, "sum", "total")
    tree.backup({a: -3.0, b: -4.0}, "max", "peak")
    assert tree.notes[0]["total"] == 5.0
    assert (tree.notes[0]["peak"], tree.notes[a.id]["peak"]) == (-3.0, -3.0)
    with pytest.raises(SettingError, match="how must be sum, mean or max"):
        tree.backup({a: 1.0}, "median")


def test_random_streams_depend_on_seed_and_purpose():
    def draws(seed, purpose):
        return Tree("a prompt", seed).rng(purpose).random(3).tolist()

    assert draws(0, "x") == draws(0, "x")
    assert len({tuple(draws(s, p)) for s in (0, 1) for p in ("x", "y")}) == 4


def test_rewind_undoes_a_round_that_was_not_settled(tree):
    a, b = grow(tree, tree.root, 2)
    tree.record("r", [a, b], [1.0, 2.0])
    tree.note(a)["visits"] = 1.0
    first = tree.rng("x").random()
    tree.settle(())
    tree.begin_round()
    tree.note(a)["visits"] = 9.0
    tree.note(b)["visits"] = 9.0
    second = tree.rng("x").random()
    tree.rng("y").random()
    grow(tree, a, 2)
    tree.record("r", [b], [math.nan])
    a.move(Status.PRUNED)
    tree.rewind()
    assert tree.nodes == [tree.root, a, b] and a.children == []
    assert (a.status, b.status, b.reason) == (Status.OPEN, Status.OPEN, "")
    assert tree.notes == {a.id: {"visits": 1.0}}
    assert first != second == tree.rng("x").random()
    fresh = Tree("a prompt", seed=3)
    assert tree.rng("y").random() == fresh.rng("y").random()


def test_units_that_all_live_candidates_share_are_settled_once(tree):
    [a] = grow(tree, tree.root)
    tree.settle(())
    b, c = grow(tree, a, 2)
    tree.settle(())
    assert tree.newly_settled() == [a]
    d, e = grow(tree, b, 2)
    tree.settle([c, e])
    assert tree.newly_settled() == [b, d]
    assert tree.newly_settled() == []


def test_nothing_is_settled_while_the_root_may_still_fork(tree):
    grow(tree, tree.root)
    tree.settle((), revisits=True)
    assert tree.newly_settled() == []


def test_a_tree_from_given_units():
    tree = Tree.from_units("a prompt", [{"text": "7+5=12"}, {"text": "answer 12"}])
    assert [n.unit["text"] for n in tree.best().node.lineage] == ["7+5=12", "answer 12"]
    assert [n.status for n in tree.nodes] == [Status.CLOSED, Status.CLOSED, Status.DONE]
    assert [n.path for n in tree.nodes] == [(), (0,), (0, 0)]


def test_a_tree_without_result_or_generator_says_so():
    with pytest.raises(SettingError, match="no result yet"):
        Tree("a prompt").best()
    with pytest.raises(SettingError, match="without its generator"):
        _ = Tree.from_units("a prompt", [{}]).best().output
