"""Many searches from one pool of candidates: best-of-n for each n, and the chunk beam for each number of first chunks.

A candidate's draws depend on its prompt, seed and path alone, so searches of one prompt and seed share candidates: the
beam with ``first`` F, ``keep`` 2 and ``branch`` 1 finishes the two of its F first chunks that the reward likes best and
returns the one that it likes best when finished; best-of-n finishes the first n. The pool grows the most first chunks,
and finishes those that any of these searches would. What each search chooses is then read off, the same as if it had
been run; what it costs is measured by running it once (costs depend on shapes only).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunus.budget import Cost
from prunus.errors import require
from prunus.reproductions.comparison import Judge
from prunus.roles import WHOLE, Ask, Generator, Reward, Strategy
from prunus.search import search_many
from prunus.strategies import Beam, BestOfN
from prunus.tree import Node, Status, Tree

KEEP = 2


@dataclass(frozen=True)
class FirstChunks(Strategy):
    """Grows ``first`` first chunks and finishes the first ``whole``, and for each of ``beams`` (numbers of first
    chunks) the KEEP best of so many."""

    first: int = 32
    whole: int = 4
    beams: tuple[int, ...] = (4, 8, 16, 32)
    reward: str | None = None

    def __post_init__(self) -> None:
        require(1 <= self.whole <= self.first, "whole", self.whole, f"from 1 to the {self.first} first chunks")
        fine = all(KEEP <= beam <= self.first for beam in self.beams)
        require(fine, "beams", self.beams, f"from {KEEP} to the {self.first} first chunks")

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [tree.ask(tree.root) for _ in range(self.first)]
        return [tree.ask(node) for node in tree.frontier]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        """First chunks and finished candidates; nothing is decided between them."""
        return {self.reward or tree.rewards[0]: [n for n in tree.fresh if n.depth == 1 or n.status is Status.DONE]}

    def prune(self, tree: Tree) -> Iterable[Node]:
        fresh = [n for n in tree.fresh if n.depth == 1]
        if not fresh:
            return []
        values = [self.value(tree, n) for n in sorted(fresh, key=lambda n: n.path)]
        kept = set(range(self.whole)).union(*(best(values[:beam]) for beam in self.beams))
        return [n for n in fresh if n.path[0] not in kept]


def best(values: Sequence[float], keep: int = KEEP) -> list[int]:
    """The places of the largest; of equals the earlier."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:keep]


@dataclass(frozen=True)
class Candidates:
    """The pool of one prompt and seed: the reward of each first chunk, and of finished ones the final reward and what
    the judge says."""

    prompt: str
    seed: int
    first: Sequence[float]
    finished: Mapping[int, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidates:
        """From JSON, whose keys are strings."""
        finished = {int(place): (reward, verdict) for place, (reward, verdict) in data["finished"].items()}
        return cls(data["prompt"], data["seed"], data["first"], finished)

    def value(self, kind: str, width: int) -> float:
        """``kind``: beam or best_of, of so many candidates; the latter among as many as the pool has finished of the
        first."""
        if kind == "beam":
            return self.beam(width)
        return self.best_of(width, next(i for i in range(len(self.first) + 1) if i not in self.finished))

    def beam(self, first: int) -> float:
        """The judge's score of what the beam with so many first chunks returns."""
        place = max(best(self.first[:first]), key=lambda i: (self.finished[i][0], -i))
        return self.finished[place][1]

    def best_of(self, n: int, whole: int) -> float:
        """That of best-of-n, on average over all choices of n of the first ``whole`` candidates."""
        order = sorted(range(whole), key=lambda i: (-self.finished[i][0], i))
        share = [math.comb(whole - 1 - rank, n - 1) / math.comb(whole, n) for rank in range(whole)]
        return sum(p * self.finished[i][1] for p, i in zip(share, order, strict=True))


def grow_pools(
    keys: Sequence[tuple[str, int]], generator: Generator, reward: Reward, strategy: FirstChunks, judge: Judge
) -> list[Candidates]:
    """The pools of these prompts and seeds, grown together."""
    trees = search_many([p for p, _ in keys], generator, [reward], strategy, seeds=[s for _, s in keys])
    pools = []
    for tree in trees:
        first = {n.path[0]: n.scores[reward.name].value for n in tree.nodes if n.depth == 1}
        done = tree.finished
        videos = generator.render(done, WHOLE)
        finished = {
            node.path[0]: (node.scores[reward.name].value, judge(video, tree.prompt))
            for node, video in zip(done, videos, strict=True)
        }
        pools.append(Candidates(tree.prompt, tree.seed, [first[i] for i in range(len(first))], finished))
    return pools


@dataclass(frozen=True)
class Price:
    """What a search costs with its fewest candidates, and what each further one adds: in all, and in the generator's
    own forwards."""

    fewest: int
    total: tuple[Cost, Cost]
    generating: tuple[Cost, Cost]

    def flops(self, width: int, generating: bool = False) -> int:
        first, more = self.generating if generating else self.total
        return first.flops + (width - self.fewest) * more.flops

    def nfe(self, width: int) -> int:
        return self.generating[0].nfe + (width - self.fewest) * self.generating[1].nfe


def prices(prompt: str, generator: Generator, reward: Reward) -> dict[str, Price]:
    """Those of the beam and of best-of-n; runs the two smallest searches of both."""

    def price(fewest: int, strategies: Sequence[Strategy]) -> Price:
        one, two = (search_many([prompt], generator, [reward], s, seeds=[0])[0].spent for s in strategies)
        pairs = (one.total, two.total), (one.generating, two.generating)
        total, generating = ((a, Cost(b.nfe - a.nfe, b.tokens - a.tokens, b.flops - a.flops)) for a, b in pairs)
        return Price(fewest, total, generating)

    beams = [Beam(keep=KEEP, branch=1, first=KEEP + more, reward=reward.name) for more in (0, 1)]
    return {
        "beam": price(KEEP, beams),
        "best_of": price(1, [BestOfN(n=1 + more, reward=reward.name) for more in (0, 1)]),
    }


def mean_by_prompt(pools: Sequence[Candidates], kind: str, width: int) -> list[float]:
    """What the search finds, one value a prompt, in the order of their first appearance."""
    groups: dict[str, list[float]] = {}
    for pool in pools:
        groups.setdefault(pool.prompt, []).append(pool.value(kind, width))
    return [float(np.mean(group)) for group in groups.values()]
