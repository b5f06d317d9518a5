"""Step beam search: of all children of the kept candidates, keep the K best by the reward on what has grown so far.

Each round grows ``branch`` children of every kept candidate; the first round grows ``keep * branch`` from the prompt
(as Stream-T1 does, paper 01), so that every round weighs the same number of candidates, or ``first`` if that is given:
where the first unit decides most, the compute belongs there. Finished candidates leave and take no live one's place: of
the live ones K go on, a finished one stays if it is among the K best of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class Beam(Stepwise):
    """``keep`` survivors of each round, ``branch`` children of each, ``first`` candidates of the first unit (None:
    keep * branch); ``reward`` scores every node.

    ``aggregate`` says how the scores of a candidate's steps are taken together.
    """

    keep: int = 2
    branch: int = 2
    first: int | None = None
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        check(self.aggregate)
        require(self.keep >= 1, "keep", self.keep, "at least 1")
        require(self.branch >= 1, "branch", self.branch, "at least 1")
        require(self.first is None or self.first >= 1, "first", self.first, "at least 1, or None for keep * branch")

    def wishes(self, tree: Tree) -> list[tuple[Node, int]]:
        """(parent, index of the child) for the next round, the best parent's first."""
        if tree.root.status is Status.OPEN:
            return [(tree.root, i) for i in range(self.first or self.keep * self.branch)]
        parents = self.ranked(tree, tree.frontier)
        # One child of every parent before the second of any, so that a short budget thins all of them alike.
        return [(parent, i) for i in range(self.branch) for parent in parents]

    def select(self, tree: Tree) -> Sequence[Ask]:
        return [tree.ask(parent) for parent, _ in self.wishes(tree)]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return {self.reward or tree.rewards[0]: tree.fresh}

    def prune(self, tree: Tree) -> Iterable[Node]:
        return self.losers(tree)

    def losers(self, tree: Tree, per_parent: int | None = None) -> list[Node]:
        """All but the ``keep`` best candidates of this round, at most ``per_parent`` of one parent but the root.

        A finished candidate holds no place, neither in this round nor later; an open one that the budget did not reach
        does.
        """
        grown = {n.parent for n in tree.fresh}
        rivals = [n for n in tree.frontier if n not in grown] + [n for n in tree.fresh if n.status is Status.DONE]
        kept: list[Node] = []
        for node in self.ranked(tree, rivals):
            siblings = 0 if node.fork is tree.root else sum(k.fork is node.fork for k in kept)
            before = [k for k in kept if node.status is Status.DONE or k.status is Status.OPEN]
            if len(before) < self.keep and (per_parent is None or siblings < per_parent):
                kept.append(node)
        return [n for n in rivals if n not in kept]
