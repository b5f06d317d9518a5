"""Lookahead: a beam search that judges a step by where it leads (test-time search basics, item 5; arXiv 2408.03314).

Every child is rolled ``ahead`` more units, greedily where the generator has a ``temperature``; it is ranked by the
score at the end of its roll. The ``keep`` best go on by their first unit alone.

What was rolled ahead is nodes like any other: scored, and the next unit of a child that wins is one of its ``branch``
children in the next step, already rolled all but one unit, so that only the losers' rolls are given up. (Published
code, search-and-learn: the beam search scores the committed text only, so that the roll is thrown away unread; its DVTS
reads the roll and then generates the next step anew.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check
from prunus.tree import Node, Status, Tree

LIVE = (Status.OPEN, Status.DONE)


@dataclass(frozen=True)
class Lookahead(Stepwise):
    """``keep`` survivors of each step, ``branch`` children of each, all judged ``ahead`` units later."""

    revisits: ClassVar[bool] = True

    keep: int = 2
    branch: int = 2
    ahead: int = 1
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.keep >= 1, "keep", self.keep, "at least 1")
        require(self.branch >= 1, "branch", self.branch, "at least 1")
        require(self.ahead >= 0, "ahead", self.ahead, "at least 0")
        check(self.aggregate)

    def parents(self, tree: Tree) -> list[Node]:
        """The nodes whose children are being judged: the root, then the survivors of the last step."""
        return [n for n in tree.frontier if n is tree.root or "kept" in tree.notes.get(n.id, {})]

    def children(self, tree: Tree) -> list[Node]:
        return [c for parent in self.parents(tree) for c in parent.children if c.status in LIVE]

    def tip(self, node: Node) -> Node:
        """The end of the roll that begins with this child."""
        while rolled := [n for n in node.children if n.status in LIVE]:
            node = rolled[0]
        return node

    def _rolls(self, tree: Tree, child: Node) -> bool:
        """Whether a child is to be rolled on; a roll that failed is not tried again."""
        tip = self.tip(child)
        return tip.status is Status.OPEN and not tip.children and tip.depth - child.depth < self.ahead

    def select(self, tree: Tree) -> Sequence[Ask]:
        knows = tree.generator is not None and any(f.name == "temperature" for f in fields(tree.generator.how))
        greedy = {"temperature": 0.0} if knows else {}
        asks = [tree.ask(self.tip(c), **greedy) for c in self._best_first(tree) if self._rolls(tree, c)]
        missing = {}
        for parent in self._ranked_by_tip(tree, self.parents(tree)):
            if "branched" not in tree.note(parent):
                children = self.branch * (self.keep if parent is tree.root else 1)
                missing[parent] = children - sum(c.status in LIVE for c in parent.children)
                tree.note(parent)["branched"] = 1.0
        asks += [tree.ask(p) for i in range(max(missing.values(), default=0)) for p, k in missing.items() if i < k]
        tree.note(tree.root)["wished"] = float(len(asks))
        return asks

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return {self.reward or tree.rewards[0]: tree.fresh}

    def _ranked_by_tip(self, tree: Tree, nodes: Sequence[Node]) -> list[Node]:
        return sorted(nodes, key=lambda n: (-self.value(tree, self.tip(n)), n.path))

    def _best_first(self, tree: Tree) -> list[Node]:
        return self._ranked_by_tip(tree, self.children(tree))

    def prune(self, tree: Tree) -> Iterable[Node]:
        """Once all children are rolled out, or as far as the budget reaches, keep the best."""
        ranked = self._best_first(tree)
        grown = sum(n.round == tree.round for n in tree.nodes[1:])
        if grown == tree.note(tree.root)["wished"]:
            if any(self._rolls(tree, c) for c in ranked):
                return []
        else:  # the budget is short: those that it reached are compared, each can be finished
            ranked = [c for c in ranked if self.tip(c).round == tree.round or not self._rolls(tree, c)]
        kept: list[Node] = []
        for child in ranked:  # a finished child takes no live one's place
            before = [k for k in kept if child.status is Status.DONE or k.status is Status.OPEN]
            if len(before) < self.keep:
                kept.append(child)
        losers = [c for c in self.children(tree) if c not in kept]
        for parent in self.parents(tree):
            parent.move(Status.CLOSED)
        for child in kept:
            if child.status is Status.OPEN:
                tree.note(child)["kept"] = 1.0
        return [n for child in losers for n in _subtree(child)]


def _subtree(node: Node) -> list[Node]:
    """A node and what grew from it, as far as it is live."""
    below = [n for child in node.children for n in _subtree(child)]
    return [node, *below] if node.status in LIVE else below
