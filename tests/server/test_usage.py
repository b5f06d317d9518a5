"""Tokens of a tree by hand: what was written, kept and pruned; the best leaves."""

from server_engine import LIKING, held

from prunus import search
from prunus.roles import FunctionReward
from prunus.server.usage import amounts, best_leaves, kept_tokens, length, report, tokens_of
from prunus.strategies import Beam, BestOfN
from prunus.strategies.early_rejection import EarlyRejection

# ``held`` writes three lines of two characters, and a token is a character.


def test_each_token_counts_once():
    tree = search("p", held(), LIKING, Beam(keep=2, branch=2))
    assert len(tree.nodes) == 1 + 3 * 4
    took = amounts(tree)
    assert took.generated == 12 * 2 == tree.spent.generating.tokens == took.processed
    leaves = best_leaves(tree, Beam(keep=2, branch=2), 1)
    assert leaves == [tree.result] and kept_tokens(leaves) == length(tree.result) == 6
    assert report(tree, leaves, 0.5)["tokens_pruned"] == 24 - 6


def test_what_two_answers_share_is_kept_once():
    tree = search("p", held(), LIKING, Beam(keep=2, branch=2))
    leaves = best_leaves(tree, Beam(keep=2, branch=2), 2)
    nodes = {n for leaf in leaves for n in leaf.lineage}
    assert len(leaves) == 2 and kept_tokens(leaves) == 2 * len(nodes) < 12


def test_a_unit_that_is_grown_in_pieces_counts_once():
    tree = search("p", held(), LIKING, EarlyRejection(keep=2, branch=2, tau=1))
    assert any(not n.boundary for n in tree.nodes[1:])
    assert amounts(tree).generated == sum(map(tokens_of, tree.nodes)) == tree.spent.generating.tokens
    assert length(tree.result) == 6


def test_the_best_leaves_are_in_order_and_distinct():
    """Worked out here from all finished candidates of best-of-n, which has them all."""
    strategy = BestOfN(n=12)
    tree = search("p", held(), LIKING, strategy)
    texts = {}
    for node in sorted(tree.finished, key=lambda n: (-n.scores["liking"].value, n.path)):
        texts.setdefault(str(tree.generator.output(node)), node)
    assert 3 < len(texts) < 12
    assert best_leaves(tree, strategy, 100) == list(texts.values())
    assert best_leaves(tree, strategy, 3) == list(texts.values())[:3]
    assert len(best_leaves(tree, strategy, 100, distinct=False)) == 12


def test_displaced_ones_come_last():
    """Of a beam's last round the finished ones that were pruned are answers too, after those that were kept."""
    strategy = Beam(keep=1, branch=6)
    tree = search("q", held(), FunctionReward(lambda t, p: -float(sum(map(ord, t))), "low"), strategy)
    leaves = best_leaves(tree, strategy, 3)
    assert leaves[0] is tree.result and len(leaves) == 3
    assert [n.status.value for n in leaves] == ["done", "pruned", "pruned"]
    values = [n.scores["low"].value for n in leaves]
    assert values == sorted(values, reverse=True)
