"""Process reward agent: a beam of a frozen policy, pruned by what an agent says of each step (paper 38, 2604.09482).

    R(trace) = sum of r_1 ... r_t        r_t: the agent's P(step t is right), see ``rewards/retrieval.py``

Each round grows ``branch`` next steps of every kept trace (``keep * branch`` of the prompt; 4 and 16 in the paper, as
many traces as 64 votes) and keeps the traces with the largest R. A trace that has ended keeps its R and its place; the
search is over when all that are kept have ended. Steps of the same text are scored and kept once.

A sum favours long traces: 0.9 + 0.9 + 0.2 beats 0.7 + 0.7, although its mean is lower; where traces differ in length
take ``aggregate="mean"``. How ended traces compete and that equal steps are merged is not told in the paper: choices. A
scorer gives copies the same score, so that one lucky wrong step would otherwise fill the whole beam.

``post_hoc(n)`` is the baseline with the same scorer: it samples ``n`` whole traces, prunes none, and then chooses by
the sum, mean, min, max or last of the same scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from prunus.errors import require
from prunus.strategies.beam import Beam
from prunus.strategies.duplicates import duplicates
from prunus.tree import Node, Tree

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": fmean,
    "min": min,
    "max": max,
    "last": lambda scores: scores[-1],
}


@dataclass(frozen=True)
class ProcessRewardAgent(Beam):
    """``keep`` traces, ``branch`` next steps of each. ``merge``: score and keep equal steps of one trace once."""

    keep: int = 4
    branch: int = 16
    aggregate: str = "sum"
    merge: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.aggregate in AGGREGATES, "aggregate", self.aggregate, f"one of {', '.join(AGGREGATES)}")

    @classmethod
    def post_hoc(cls, n: int = 64, aggregate: str = "mean", reward: str | None = None) -> ProcessRewardAgent:
        """``n`` whole traces, scored step by step and ranked at the end."""
        return cls(keep=n, branch=1, aggregate=aggregate, merge=False, reward=reward)

    def value(self, tree: Tree, node: Node) -> float:
        name = self.reward or tree.rewards[0]
        scores = [n.scores[name].value for n in node.units() if name in n.scores]
        return AGGREGATES[self.aggregate](scores) if name in node.scores else -math.inf

    def merged(self, tree: Tree) -> list[Node]:
        return duplicates(tree.fresh) if self.merge else []

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        again = self.merged(tree)
        return {self.reward or tree.rewards[0]: [n for n in tree.fresh if n not in again]}

    def prune(self, tree: Tree) -> Iterable[Node]:
        again, grown = self.merged(tree), {n.parent for n in tree.fresh}
        rivals = [n for n in (*tree.frontier, *tree.finished) if n not in again and n not in grown]
        return [*again, *self.ranked(tree, rivals)[self.keep :]]
