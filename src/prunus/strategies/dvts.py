"""DVTS, diverse verifier tree search: a beam search whose beams do not compete (test-time search basics, item 4).

``keep`` subtrees stand side by side; in each, ``branch`` children are grown and the best one goes on. No subtree
displaces another, which keeps candidates diverse. A subtree ends when its best child is finished; those of its siblings
that are finished stay as candidates of the final choice, so that ``keep`` times up to ``branch`` of them can vote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class DVTS(Stepwise):
    """``keep`` subtrees, ``branch`` children a step in each; ``reward`` scores every node."""

    keep: int = 2
    branch: int = 2
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.keep >= 1, "keep", self.keep, "at least 1")
        require(self.branch >= 1, "branch", self.branch, "at least 1")
        check(self.aggregate)

    def subtree(self, node: Node) -> int:
        """Which of the subtrees a node belongs to: the first children are dealt out in turn."""
        return node.path[0] % self.keep

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [tree.ask(tree.root) for _ in range(self.keep * self.branch)]
        parents = self.ranked(tree, tree.frontier)
        return [tree.ask(parent) for _ in range(self.branch) for parent in parents]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return {self.reward or tree.rewards[0]: tree.fresh}

    def prune(self, tree: Tree) -> Iterable[Node]:
        subtrees: dict[int, list[Node]] = defaultdict(list)
        for node in self.ranked(tree, [n for n in tree.frontier if not n.children] + tree.fresh):
            if node not in subtrees[self.subtree(node)]:
                subtrees[self.subtree(node)].append(node)
        losers: list[Node] = []
        for best, *others in subtrees.values():
            ended = best.status is Status.DONE
            losers += [n for n in others if not (ended and n.status is Status.DONE)]
        return losers
