"""Strategies that do at random all that a strategy may do."""

from dataclasses import dataclass
from typing import ClassVar

from prunus import Status, Strategy


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
                steps = int(rng.integers(1, 3)) if self.partial and rng.random() < 0.5 else None
                asks += [tree.ask(node, steps=steps)] * (int(rng.integers(1, 4)) if node.boundary else 1)
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
