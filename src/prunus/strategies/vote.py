"""Votes: the answer that most candidates come to is chosen, whatever strategy grew them (test-time search basics, 1).

    majority    argmax_c  #{i : answer of candidate i is c}              (maj@k, self-consistency)
    weighted    argmax_c  sum of v_i over these candidates               (weighted best-of-N)

``answer(output) -> canonical answer or None`` decides what counts as the same; candidates without an answer (a text
that was cut off, say) do not vote, and if none has an answer the inner strategy chooses. A candidate that stands for
several (a particle that was drawn k times: its note ``count``) has as many votes. Of answers with equal votes the one
wins that the earliest path came to, which favours no answer; of the candidates with the winning answer the best is
returned.

v_i is the inner strategy's value. Weights should not be negative: those of logits vote against their own answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.errors import require
from prunus.roles import Ask, Strategy
from prunus.tree import Node, Tree


@dataclass(frozen=True)
class Vote(Strategy):
    """``inner`` searches, ``by`` (majority or weighted) says how its finished candidates vote."""

    inner: Strategy
    by: str = "majority"
    answer: Callable[[Any], Hashable | None] = field(kw_only=True)

    def __post_init__(self) -> None:
        require(isinstance(self.inner, Strategy), "inner", self.inner, "a strategy")
        require(self.by in ("majority", "weighted"), "by", self.by, "majority or weighted")
        require(callable(self.answer), "answer", self.answer, "a function of a candidate's output")

    def voters(self, tree: Tree) -> dict[Hashable, list[Node]]:
        """The finished candidates by their answers, both in the order of their paths."""
        voters: dict[Hashable, list[Node]] = {}
        for leaf in sorted(tree.finished, key=lambda n: n.path):
            assert tree.generator is not None
            answer = self.answer(tree.generator.output(leaf))
            if answer is not None:
                voters.setdefault(answer, []).append(leaf)
        return voters

    def votes(self, tree: Tree) -> dict[Hashable, float]:
        """How many votes each answer has, or how much they weigh."""
        return {answer: self._sum(tree, leaves) for answer, leaves in self.voters(tree).items()}

    def _sum(self, tree: Tree, leaves: Iterable[Node]) -> float:
        return math.fsum(self._weight(tree, leaf) for leaf in leaves)

    def _weight(self, tree: Tree, leaf: Node) -> float:
        count = tree.notes.get(leaf.id, {}).get("count", 1.0)
        if self.by == "majority":
            return count
        value = self.value(tree, leaf)
        return count * value if math.isfinite(value) else 0.0  # one that was not scored weighs nothing

    def choose(self, tree: Tree) -> Node:
        voters = self.voters(tree)
        if not voters:
            return self.inner.choose(tree)
        winners = max(voters.values(), key=lambda leaves: self._sum(tree, leaves))
        return self.ranked(tree, winners)[0]

    # ---- everything else is the inner strategy's ---------------------------------------------------------------

    @property
    def revisits(self) -> bool:  # type: ignore[override]
        return self.inner.revisits

    @property
    def finishes_all(self) -> bool:  # type: ignore[override]
        return self.inner.finishes_all

    @property
    def scores_units(self) -> bool:  # type: ignore[override]
        return self.inner.scores_units

    @property
    def rounds_per_unit(self) -> int:  # type: ignore[override]
        return self.inner.rounds_per_unit

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inner.reads

    def select(self, tree: Tree) -> Sequence[Ask]:
        return self.inner.select(tree)

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return self.inner.to_score(tree)

    def prune(self, tree: Tree) -> Iterable[Node]:
        return self.inner.prune(tree)

    def value(self, tree: Tree, node: Node) -> float:
        return self.inner.value(tree, node)

    def spec(self) -> dict:
        function = self.answer if hasattr(self.answer, "__qualname__") else type(self.answer)
        path = f"{function.__module__}:{function.__qualname__}"
        return {"name": "Vote", "inner": self.inner.spec(), "by": self.by, "answer": path}
