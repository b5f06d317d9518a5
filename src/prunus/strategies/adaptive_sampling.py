"""Adaptive sampling: draw another sample only while it promises to be better (paper 52, arXiv 2410.02725).

The reward is a self-evaluation s = P(a fresh sample is no better than this one), see ``rewards/self_evaluation.py``.

    next    stop when max s >= tau: one more sample would help with a chance below 1 - tau    (the paper's rule)
    rest    stop when max s^k >= tau, k samples being left: all of them together would        (the card's)

The paper's rule is short-sighted: where a right answer is rare (a chance p below 1 - tau), a wrong one has s = 1 - p
and ends the search, although many more samples would find it. The answer is the sample of the highest s.

``most`` samples at most, in batches of 1, 1, 2, 4, 8, ... (``doubling``: few rounds) or of 1 (``single``: fewest
samples). ``anneal``: sample k is drawn at temperature 1 - 2^(1 - k), so that the first is greedy and diversity comes
where it is wanted. ``prune_at``: after so many units of a batch's samples are grown, their beginnings are evaluated and
the share ``keep`` goes on; samples that have ended by then are kept. The share of tokens is then f t0 / L + 1 - f,
where f = 1 - keep of the samples of length L are pruned at t0 (``share_of_tokens``).

The paper gives no schedule of batches, temperatures or pruning and no code: these are choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prunus.errors import require
from prunus.roles import Ask, Strategy
from prunus.tree import Node, Status, Tree


def annealed(sample: int) -> float:
    """The temperature of the k-th sample, from 1 on: 0, 0.5, 0.75, ..."""
    return 1 - 2.0 ** (1 - sample)


def share_of_tokens(pruned: float, at: float, length: float) -> float:
    """What pruning this share of the samples at ``at`` tokens of ``length`` leaves to be generated."""
    return pruned * at / length + 1 - pruned


@dataclass(frozen=True)
class AdaptiveSampling(Strategy):
    """``tau`` is the confidence that ends the search; a ``tau`` of 1 wants no chance left. See above for the rest."""

    revisits: ClassVar[bool] = True  # the prompt is grown again in later rounds
    finishes_all: ClassVar[bool] = True

    most: int = 16
    tau: float = 0.75
    rule: str = "next"
    batches: str = "doubling"
    anneal: bool = False
    prune_at: int | None = None
    keep: float = 0.5
    reward: str | None = None

    def __post_init__(self) -> None:
        require(self.most >= 1, "most", self.most, "at least 1")
        require(0 < self.tau <= 1, "tau", self.tau, "in (0, 1]")
        require(self.rule in ("next", "rest"), "rule", self.rule, "next or rest")
        require(self.batches in ("doubling", "single"), "batches", self.batches, "doubling or single")
        require(self.prune_at is None or self.prune_at >= 1, "prune_at", self.prune_at, "at least 1 unit, or None")
        require(0 < self.keep <= 1, "keep", self.keep, "in (0, 1]")

    @property
    def scores_units(self) -> bool:  # type: ignore[override]
        return self.prune_at is not None

    def select(self, tree: Tree) -> Sequence[Ask]:
        if begun := [n for n in tree.frontier if n is not tree.root]:
            return [tree.ask(n, **self._how(n.path[0])) for n in begun]
        drawn = len(tree.root.children)
        if drawn and self.enough(tree):
            return []
        size = 1 if self.batches == "single" else max(1, drawn)
        return [tree.ask(tree.root, **self._how(i)) for i in range(drawn, min(drawn + size, self.most))]

    def _how(self, index: int) -> dict[str, float]:
        return {"temperature": annealed(index + 1)} if self.anneal else {}

    def enough(self, tree: Tree) -> bool:
        """Whether the best sample is so good that no other should be drawn."""
        left = self.most - len(tree.root.children)
        best = max((self.value(tree, n) for n in tree.finished), default=0.0)
        return left <= 0 or best ** (left if self.rule == "rest" else 1) >= self.tau

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        wanted = [n for n in tree.fresh if n.status is Status.DONE or n.depth == self.prune_at]
        return {self.reward or tree.rewards[0]: wanted}

    def prune(self, tree: Tree) -> Iterable[Node]:
        for parent in {n.parent for n in tree.fresh}:
            if parent is not None and parent is not tree.root and parent.status is Status.OPEN:
                parent.move(Status.CLOSED)  # only the prompt is grown again
        rivals = [n for n in tree.fresh if n.depth == self.prune_at and n.status is Status.OPEN]
        return self.ranked(tree, rivals)[max(1, round(self.keep * len(rivals))) :]


def samples(tree: Tree) -> int:
    """How many samples an adaptive search has drawn."""
    return len(tree.root.children)


def rounds(tree: Tree) -> int:
    """In how many batches they were begun, one after the other: what the search's delay grows with."""
    return len({n.round for n in tree.root.children})
