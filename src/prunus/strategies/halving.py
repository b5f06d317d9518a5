"""Successive halving over partial candidates: cut the worst when all have come so far (test-time search basics, 9).

n candidates grow to the first cut; there 1/eta of them are kept (rounded down, at least one), and so on to the last
cut; the survivors are finished. Candidates of length L take

    n c_1 + (n / eta) (c_2 - c_1) + ... + (n / eta^R) (L - c_R)

For n = 16, eta = 2, L = 512 and cuts 64, 128, 256, 384 that is 2432 tokens of 8192. They are scored at cuts and at
their ends only, unless the aggregate needs every unit. Finished candidates leave the race and hold no place in it.

Cuts count units, or with ``inside`` tokens, wherever in a unit they fall: such generators declare ``steps`` in their
``how`` and list a unit's ``tokens``, all of them also where a node goes on with it. An unfinished unit is judged by the
part ``partial`` of its score, if it has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import SettingError, require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check, unreached
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class SuccessiveHalving(Stepwise):
    """``n`` candidates at first, of which 1 / ``eta`` are kept at each of the ``cuts``."""

    n: int = 16
    cuts: tuple[int, ...] = (1, 2, 4)
    eta: float = 2.0
    inside: bool = False
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        rising = all(a < b for a, b in zip((0, *self.cuts), self.cuts))
        require(len(self.cuts) > 0 and rising, "cuts", self.cuts, "rising numbers from 1 on")
        require(self.eta > 1, "eta", self.eta, "more than 1")
        check(self.aggregate)

    @property
    def rounds_per_unit(self) -> int:  # type: ignore[override]
        return len(self.cuts) + 1 if self.inside else 1

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [self._ask(tree, tree.root) for _ in range(self.n)]
        return [self._ask(tree, n) for n in self.ranked(tree, tree.frontier) if not self._waits(tree, n)]

    def _ask(self, tree: Tree, node: Node) -> Ask:
        cut = self._cut(tree)
        if not self.inside or cut == math.inf:
            return tree.ask(node)
        return tree.ask(node, steps=int(cut) - self.position(node))

    def _stage(self, tree: Tree) -> int:
        """How many cuts have been made."""
        return int(tree.note(tree.root).get("cuts", 0))

    def _cut(self, tree: Tree) -> float:
        """Where the next cut is made; infinity after the last."""
        stage = self._stage(tree)
        return self.cuts[stage] if stage < len(self.cuts) else math.inf

    def _waits(self, tree: Tree, node: Node) -> bool:
        """Whether a candidate has come to the next cut."""
        return self.position(node) >= self._cut(tree)

    def position(self, node: Node) -> int:
        """How far a candidate has come, in units or tokens. Raises SettingError for units that list no tokens."""
        if not self.inside:
            return node.depth
        try:
            return sum(len(n.unit["tokens"]) for n in node.units())
        except (KeyError, TypeError):
            raise SettingError(
                "inside = True is not allowed for a generator whose units do not list their tokens; give cuts in units"
            ) from None

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        due = [n for n in tree.fresh if n.status is Status.DONE or self._waits(tree, n)]
        return {self.reward or tree.rewards[0]: tree.fresh if self.needs_steps(tree) else due}

    def value(self, tree: Tree, node: Node) -> float:
        score = node.scores.get(self.reward or tree.rewards[0])
        if score is not None and not node.boundary and "partial" in score.parts:
            return score.parts["partial"]
        return super().value(tree, node)

    def prune(self, tree: Tree) -> Iterable[Node]:
        """Cut when all that live have come to the cut; candidates that the budget did not reach are given up."""
        losers = [n for n in unreached(tree) if not self._waits(tree, n)]
        live = [n for n in tree.frontier if not n.children and n not in losers]
        while self._cut(tree) < math.inf and all(self._waits(tree, n) for n in live):
            stage = self._stage(tree) + 1
            kept = self.n
            for _ in range(stage):
                kept = max(1, int(kept / self.eta))
            live = self.ranked(tree, live)
            losers, live = losers + live[kept:], live[:kept]
            tree.note(tree.root)["cuts"] = float(stage)
        return losers
