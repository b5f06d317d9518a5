"""What a search took, in tokens: what was written, read, scored, kept and pruned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from prunus.budget import Spent
from prunus.roles import Strategy
from prunus.tree import Node, Tree


@dataclass(frozen=True)
class Amounts:
    """``generated``: tokens that were drawn, of all candidates. ``processed``: tokens that the model read. ``scored``:
    tokens that rewards read. ``nfe``: forwards, the rewards' too. Seconds are the search's share of its calls.
    """

    generated: int = 0
    processed: int = 0
    scored: int = 0
    nfe: int = 0
    generate_seconds: float = 0.0
    score_seconds: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    @property
    def tokens(self) -> int:
        """What quotas count."""
        return self.processed + self.scored


def tokens_of(node: Node) -> int:
    """Tokens that this node added: those of its unit that its parent, if it ends inside the unit, did not have."""
    if not isinstance(node.unit, dict) or "tokens" not in node.unit:
        return 0
    begun = node.parent is not None and not node.parent.boundary
    return len(node.unit["tokens"]) - (len(node.parent.unit["tokens"]) if begun and node.parent else 0)


def amounts(tree: Tree) -> Amounts:
    """What a tree has taken so far."""
    spent: Spent = tree.spent
    generating, scoring = spent.generating, spent.scoring
    return Amounts(
        sum(map(tokens_of, tree.nodes)),
        generating.tokens + spent.rendering.tokens,
        scoring.tokens,
        spent.total.nfe,
        generating.seconds,
        scoring.seconds + spent.rendering.seconds,
    )


def kept_tokens(leaves: Iterable[Node]) -> int:
    """Tokens of these candidates; what they share counts once."""
    return sum(map(tokens_of, {node for leaf in leaves for node in leaf.lineage}))


def length(leaf: Node) -> int:
    """Tokens of one candidate."""
    return sum(map(tokens_of, leaf.lineage))


def best_leaves(tree: Tree, strategy: Strategy, n: int, distinct: bool = True) -> list[Node]:
    """The chosen candidate and the best others, ``n`` or as many as there are, of different texts if ``distinct``.

    Finished candidates that better ones displaced come after those that were kept.
    """
    assert tree.result is not None and tree.generator is not None
    displaced = [n for n in tree.nodes if n.status.value == "pruned" and _is_whole(n)]
    ordered = [tree.result, *strategy.ranked(tree, tree.finished), *strategy.ranked(tree, displaced)]
    found: dict[Any, Node] = {}
    for leaf in dict.fromkeys(ordered):
        found.setdefault(str(tree.generator.output(leaf)) if distinct else leaf, leaf)
    return list(found.values())[:n]


def _is_whole(node: Node) -> bool:
    return isinstance(node.unit, dict) and node.unit.get("reason") in ("end", "length") and node.boundary


def report(tree: Tree, leaves: Sequence[Node], waited: float) -> dict[str, Any]:
    """``usage.prunus``: what one search took."""
    took = amounts(tree)
    kept = kept_tokens(leaves)
    return {
        "tokens_generated": took.generated,
        "tokens_processed": took.processed,
        "tokens_scored": took.scored,
        "tokens_pruned": took.generated - kept,
        "candidates": len(tree.nodes) - 1,
        "nfe": took.nfe,
        "flops": tree.spent.total.flops,
        "seconds": {
            "wait": round(waited, 6),
            "generate": round(took.generate_seconds, 6),
            "score": round(took.score_seconds, 6),
        },
    }
