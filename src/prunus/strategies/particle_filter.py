"""Particle filter: candidates drawn in proportion to what a reward promises (arXiv 2502.01618; search basics, item 8).

All n particles take one step; then, with g a potential of the score s_t,

    log w += log g(s_t) - log g(s_{t-1}),   g(s_0) = 1;      ESS = (sum w)^2 / sum w^2

and when ESS < threshold * n the particles are drawn anew by systematic resampling: of n evenly spaced marks with one
random offset, particle i gets those in its share of the weight, and all weights are 1 again. A live particle that was
drawn k times is one node that grows k children. A finished one that was drawn k times counts k: it is neither copied
nor grown, and its weight stays for later draws. When all have finished, weights that are left become fractional counts,
n w_i / sum w: the expected number of draws without their noise. Counts sum to n; votes count them (``Vote``).

Potentials (log g): ``probability`` log s; ``odds`` log s / (1 - s); ``exponential`` s, for logits and unbounded scores;
each divided by ``temperature``. Scores of probability and odds are held 1e-7 away from 0 and 1.

``ParticleFilter.published()`` is its_hub's (e4d00d1): the weight of a particle is its last odds alone, not the ratio,
and all n, finished ones with their old weights among them, are drawn independently after every step. Particles collapse
fast: scores 0.9, 0.6, 0.2 make an ESS of 1.39 of 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from prunus.errors import SearchError, require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check, unreached
from prunus.tree import Node, Status, Tree

EDGE = 1e-7


def _log_probability(score: float) -> float:
    return math.log(max(score, EDGE))


def _log_odds(score: float) -> float:
    held = min(max(score, EDGE), 1 - EDGE)
    return math.log(held / (1 - held))


POTENTIALS: dict[str, Callable[[float], float]] = {
    "probability": _log_probability,
    "odds": _log_odds,
    "exponential": float,
}


def effective_size(weights: Sequence[float]) -> float:
    """How many equal particles these are worth: (sum w)^2 / sum w^2."""
    return math.fsum(weights) ** 2 / math.fsum(w * w for w in weights)


def systematic(weights: Sequence[float], n: int, offset: float) -> list[int]:
    """How often each is drawn by the n marks (offset + i) / n, 0 <= offset < 1; differs from n w by less than 1."""
    total = math.fsum(weights)
    ends = [end / total for end in accumulate(weights)]
    before = [0, *(math.ceil(n * end - offset) for end in ends[:-1]), n]  # marks that lie before each end
    return [after - first for first, after in pairwise(before)]


@dataclass(frozen=True)
class ParticleFilter(Stepwise):
    """``n`` particles, drawn anew when their effective number is below ``threshold`` n (None: after every step)."""

    n: int = 8
    potential: str = "probability"
    temperature: float = 1.0
    threshold: float | None = 0.5
    resampling: str = "systematic"
    absolute: bool = False
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        require(self.potential in POTENTIALS, "potential", self.potential, f"one of {', '.join(POTENTIALS)}")
        require(self.temperature > 0, "temperature", self.temperature, "positive")
        within = self.threshold is None or 0 <= self.threshold <= 1
        require(within, "threshold", self.threshold, "from 0 to 1, or None for after every step")
        known = ("systematic", "multinomial")
        require(self.resampling in known, "resampling", self.resampling, f"one of {', '.join(known)}")
        check(self.aggregate)

    @classmethod
    def published(cls, **changes: object) -> ParticleFilter:
        """its_hub's particle filtering: absolute odds as weights, drawn independently after every step."""
        settings: dict = {"potential": "odds", "absolute": True, "resampling": "multinomial", "threshold": None}
        return cls(**{**settings, **changes})

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [tree.ask(tree.root) for _ in range(self.n)]
        counts = {n: int(tree.note(n)["count"]) for n in tree.frontier}
        dearest = sorted(counts, key=lambda n: (-counts[n], n.path))
        # One child of every node before the second of any, so that a short budget thins all of them alike.
        return [tree.ask(n) for i in range(max(counts.values(), default=0)) for n in dearest if i < counts[n]]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        return {self.reward or tree.rewards[0]: tree.fresh}

    def prune(self, tree: Tree) -> Iterable[Node]:
        """Weigh the new particles and draw anew where it is time; particles that the budget did not reach are lost."""
        lost = unreached(tree)
        for node in tree.fresh:
            self._weigh(tree, node)
        alive = [n for n in tree.having(Status.OPEN, Status.DONE) if not n.children and n not in lost]
        particles = sorted(alive, key=lambda n: n.path)
        if not particles:
            return lost
        counts = [tree.note(n)["count"] for n in particles]
        weights = self.weights(tree, particles)
        copies = [w for w, count in zip(weights, counts, strict=True) for _ in range(int(count))]
        all_finished = all(n.status is Status.DONE for n in particles)
        if self.threshold is not None and all_finished:
            total = math.fsum(copies)
            drawn: Sequence[float] = [self.n * count * w / total for w, count in zip(weights, counts, strict=True)]
        elif self.threshold is None or effective_size(copies) < self.threshold * len(copies):
            drawn = self._draw(tree, [w * count for w, count in zip(weights, counts, strict=True)])
        else:
            return lost
        for node, count in zip(particles, drawn, strict=True):
            tree.note(node)["count"] = float(count)
            if not self.absolute:
                tree.note(node)["log_weight"] = 0.0
        return lost + [node for node, count in zip(particles, drawn, strict=True) if count == 0]

    def _weigh(self, tree: Tree, node: Node) -> None:
        """Note a new particle's count, potential (that of its parent if it was not scored) and log-weight."""
        assert node.fork is not None
        parent = tree.notes.get(node.fork.id, {})
        before = parent.get("potential", 0.0)
        score = self.value(tree, node)
        if self.potential != "exponential" and math.isfinite(score) and not 0 <= score <= 1:
            raise SearchError(
                f"a score of {score:.4g} is no probability, which a particle filter with potential={self.potential!r} "
                "needs; take potential='exponential' for rewards of another range"
            )
        now = POTENTIALS[self.potential](score) / self.temperature if math.isfinite(score) else before
        weight = now if self.absolute else parent.get("log_weight", 0.0) + now - before
        tree.note(node).update(count=1.0, potential=now, log_weight=weight)

    def weights(self, tree: Tree, particles: Sequence[Node]) -> list[float]:
        """The weight of one copy of each particle, the heaviest 1."""
        logs = [tree.note(n)["log_weight"] for n in particles]
        return [math.exp(log - max(logs)) for log in logs]

    def _draw(self, tree: Tree, weights: Sequence[float]) -> list[int]:
        """How often each of these is drawn; n draws in all."""
        rng = tree.rng("resampling")
        if self.resampling == "systematic":
            return systematic(weights, self.n, float(rng.random()))
        total = math.fsum(weights)
        return [int(count) for count in rng.multinomial(self.n, [w / total for w in weights])]
