"""REBASE: children in proportion to what a node promises (arXiv 2408.00724; test-time search basics, item 7).

At each depth the remaining width B = n - (finished candidates) is shared over the live nodes by softmax(score / T):
best first, n_j = ceil(B_left w_j / W_left), so that the widths sum to B exactly. A node that gets none is pruned. A
finished candidate takes one of the n for good and is never pruned. Published defaults: T = 0.2, weighted vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check, unreached
from prunus.tree import Node, Status, Tree


def shares(width: int, scores: Sequence[float], temperature: float) -> list[int]:
    """How many of ``width`` children each node gets; ``scores`` fall. They sum to ``width`` if there are any scores."""
    finite = [s for s in scores if math.isfinite(s)]
    top = max(finite, default=0.0)
    weights = [math.exp((s - top) / temperature) for s in scores] if finite else [1.0] * len(scores)
    given, left = [], width
    for i, weight in enumerate(weights):
        rest = math.fsum(weights[i:])
        exact = left * weight / rest if rest else 0.0
        given.append(min(left, math.ceil(exact - 1e-9)))  # not a child more for a rounding error
        left -= given[-1]
    return given


@dataclass(frozen=True)
class REBASE(Stepwise):
    """``n`` candidates in all; the lower the ``temperature``, the more of them the best nodes get."""

    n: int = 16
    temperature: float = 0.2
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        require(self.temperature > 0, "temperature", self.temperature, "positive")
        check(self.aggregate)

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [tree.ask(tree.root) for _ in range(self.n)]
        widths = {node: int(tree.note(node)["width"]) for node in self.ranked(tree, tree.frontier)}
        # One child of every node before the second of any, so that a short budget thins all of them alike.
        return [tree.ask(n) for i in range(max(widths.values(), default=0)) for n, w in widths.items() if i < w]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return {self.reward or tree.rewards[0]: tree.fresh}

    def prune(self, tree: Tree) -> Iterable[Node]:
        """Share the width over the new nodes; what the budget did not reach is given up."""
        live = self.ranked(tree, [n for n in tree.fresh if n.status is Status.OPEN])
        widths = shares(self.n - len(tree.finished), [self.value(tree, n) for n in live], self.temperature)
        for node, width in zip(live, widths, strict=True):
            if width:
                tree.note(node)["width"] = float(width)
        return unreached(tree) + [n for n, width in zip(live, widths, strict=True) if not width]
