"""Prune inside a unit: grow every candidate a little, score what is there, give up the losers, finish the survivors.

The shape that TTSnap (denoising steps, paper 04) and early rejection (tokens of a step, paper 41) share. ``inner``
chooses between units and sees whole ones only. A unit has stages that end after so many of its steps; at the end of
each, ``promise`` ranks the candidates and ``survivors`` says how many go on. A candidate whose unit was complete before
its stage ended competes with the others and, if it is kept, waits for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from prunus.roles import Ask, Strategy
from prunus.tree import Node, Status, Tree


class PruneInside(Strategy):
    """A strategy around ``inner``; subclasses give ``ends``, ``preview_of``, ``survivors`` and ``promise``."""

    inner: Strategy

    @property
    def ends(self) -> tuple[int, ...]:
        """After how many steps of a unit each stage ends, rising."""
        raise NotImplementedError

    def preview_of(self, tree: Tree) -> str:
        """The reward that scores candidates inside a unit."""
        raise NotImplementedError

    def survivors(self, stage: int, candidates: int) -> int:
        """How many of a stage's candidates go on; stages count from 0."""
        raise NotImplementedError

    def promise(self, tree: Tree, node: Node) -> float:
        """The number by which candidates are ranked inside a unit."""
        raise NotImplementedError

    @property
    def rounds_per_unit(self) -> int:  # type: ignore[override]
        return (len(self.ends) + 1) * self.inner.rounds_per_unit

    def select(self, tree: Tree) -> Sequence[Ask]:
        begun = sorted(_unfinished(tree.frontier), key=lambda n: self._rank(tree, n))
        if begun:
            return [tree.ask(n, **{**n.how, "steps": self._steps(n.piece)}) for n in begun]
        return [tree.ask(a.parent, **{**asdict(a.how), "steps": self._steps(0)}) for a in self.inner.select(tree)]

    def _steps(self, stage: int) -> int | None:
        """Steps from one stage's end to the next; after the last one, all that are left."""
        ends = (0, *self.ends)
        return ends[stage + 1] - ends[stage] if stage + 1 < len(ends) else None

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        whole = {name: [n for n in nodes if n.boundary] for name, nodes in self.inner.to_score(tree).items()}
        return {**whole, self.preview_of(tree): tree.fresh} if _unfinished(tree.fresh) else whole

    def prune(self, tree: Tree) -> Iterable[Node]:
        grown, begun = {n.parent for n in tree.fresh}, _unfinished(tree.fresh)
        # What the budget did not reach is left behind.
        lost = [n for n in _unfinished(tree.frontier) if n.round < tree.round and n not in grown]
        if begun:
            kept = self.survivors(begun[0].piece - 1, len(tree.fresh))
            lost += sorted(tree.fresh, key=lambda n: self._rank(tree, n))[kept:]
        for node in lost:
            node.move(Status.PRUNED)  # the inner strategy weighs only those that are left
        return lost if set(begun) - set(lost) else [*lost, *self.inner.prune(tree)]

    def _rank(self, tree: Tree, node: Node) -> tuple:
        return (-self.promise(tree, node), node.path)

    def value(self, tree: Tree, node: Node) -> float:
        return self.inner.value(tree, node)

    def choose(self, tree: Tree) -> Node:
        return self.inner.choose(tree)


def _unfinished(nodes: Iterable[Node]) -> list[Node]:
    return [n for n in nodes if not n.boundary]
