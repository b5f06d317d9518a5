"""Stream-T1: a beam search over the chunks of a streaming video (paper 01, arXiv 2605.04461).

Three units, each on its own switch:

noise propagation   x_n = beta x_{n-1} + sqrt(1 - beta^2) eps; the first child of a parent reuses its parent's seed.
reward pruning      a S + (1 - a) G with a = min(progress, cap): S scores the new chunk (short), G the last W chunks
                    (long). The K best of all children survive.
memory sinking      a chunk that is better than its history (S - mean S > tau_short) is kept when it leaves the
                    attention window: appended as a sink if the long score fell (G_{b-1} - G_b > tau_long, read as a
                    scene boundary), else mixed into the last sink; any other chunk is discarded.

``StreamT1.published()`` is the published code's behaviour. ``StreamT1()`` mends the faults that the paper card found:

- reusing a seed keeps unit variance (published: the noise shrinks to 0.90 of its size);
- S and G are standardised over the round's candidates before they are mixed (published: raw scales, so the reward
  with the larger spread decides);
- the history of S is the last W - 1 chunks (published: all of them, by a slice that starts at zero);
- EMA keeps 0.9 of the sink (published: 0.999, which changes nothing that can be seen);
- a single-chunk video has a = 0 (published: a division by zero);
- seeds depend on the branch (published: on the parent's rank).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.beam import Beam
from prunus.tree import Node, Status, Tree

NOISES = ("fresh", "ar1", "seed-reuse")


@dataclass(frozen=True)
class StreamT1(Beam):
    """Hyper-parameters; defaults are the published code's unless the module's list of mended faults says otherwise.

    ``short`` and ``long`` name the two rewards; ``final`` names the one that chooses among finished videos (None: the
    long one, which has seen all of a video of at most ``window`` chunks). ``window`` must be the long reward's own.
    """

    short: str = "frame-reward"
    long: str = "clip-reward"
    final: str | None = None
    noise: str = "seed-reuse"
    beta: float = -0.1
    unit_variance: bool = True
    cap: float = 0.4
    standardise: bool = True
    per_parent: int | None = None
    memory: bool = True
    window: int = 10
    history: str = "window"
    tau_short: float = 0.0
    tau_long: float = 0.2
    ema: float = 0.9
    first_seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise in NOISES, "noise", self.noise, f"one of {', '.join(NOISES)}")
        require(-1 < self.beta < 1, "beta", self.beta, "between -1 and 1")
        require(0 <= self.cap <= 1, "cap", self.cap, "from 0 to 1")
        require(self.per_parent is None or self.per_parent >= 1, "per_parent", self.per_parent, "at least 1")
        require(self.window >= 1, "window", self.window, "at least 1 chunk")
        require(self.history in ("window", "all"), "history", self.history, "window or all")
        require(0 <= self.ema <= 1, "ema", self.ema, "from 0 to 1")
        require(self.reward is None, "reward", self.reward, "left out: Stream-T1 has a short and a long reward")
        require(self.aggregate == "last", "aggregate", self.aggregate, "left out: Stream-T1 weighs a round's scores")

    @classmethod
    def published(cls, **changes: object) -> StreamT1:
        """The official code's behaviour and defaults, faults included; seeds start at 42."""
        settings: dict = {
            "unit_variance": False,
            "standardise": False,
            "history": "all",
            "ema": 0.999,
            "first_seed": 42,
        }
        return cls(**{**settings, **changes})

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in (self.short, self.long, self.final) if name is not None)

    def select(self, tree: Tree) -> Sequence[Ask]:
        ranks = {parent: rank for rank, parent in enumerate(self.ranked(tree, tree.frontier))}
        return [tree.ask(parent, **self._how(tree, parent, ranks[parent], i)) for parent, i in self.wishes(tree)]

    def _how(self, tree: Tree, parent: Node, rank: int, child: int) -> dict:
        """How the generator grows this child: its noise, and what becomes of the chunk that leaves the window."""
        first = parent is tree.root
        reuse = self.noise == "seed-reuse" and child == 0 and not first
        how: dict = {"reuse_seed": reuse}
        if self.noise != "fresh" and not first:
            how |= {"noise_mix": self.beta, "unit_variance": self.unit_variance}
        if self.first_seed is not None and not reuse:
            how["seed"] = self.first_seed + child + (0 if first else 1000 * parent.depth + 100 * rank)
        if self.memory:
            how |= {"gates": tuple(self.gate(tree, node) for node in parent.units()), "ema": self.ema}
        return how

    def gate(self, tree: Tree, node: Node) -> str:
        """What becomes of this chunk when it leaves the window: append, ema or discard."""
        chunk = node.depth - 1
        chunks = node.units()
        if chunk == 0:
            return "discard"  # the first chunk is the sink; it never leaves
        earlier = chunks[:-1] if self.history == "all" else chunks[-self.window : -1]
        if not earlier:
            return "discard"
        short_high = self._s(node) - statistics.fmean(self._s(n) for n in earlier) > self.tau_short
        long_low = self._g(chunks[-2]) - self._g(node) > self.tau_long
        if not short_high:
            return "discard"
        return "append" if long_low else "ema"

    def _s(self, node: Node) -> float:
        return node.scores[self.short].value

    def _g(self, node: Node) -> float:
        return node.scores[self.long].value

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        wanted = {self.short: tree.fresh, self.long: tree.fresh}
        if self.final is not None:
            wanted[self.final] = [n for n in tree.fresh if n.status is Status.DONE]
        return wanted

    def prune(self, tree: Tree) -> Iterable[Node]:
        self._mix(tree)
        return self.losers(tree, self.per_parent)

    def _mix(self, tree: Tree) -> None:
        """Note ``value`` = a S + (1 - a) G for the candidates of this round."""
        fresh = tree.fresh
        if not fresh:
            return
        short, long = [self._s(n) for n in fresh], [self._g(n) for n in fresh]
        if self.standardise:
            short, long = _standard(short), _standard(long)
        for node, s, g in zip(fresh, short, long, strict=True):
            last = node.depth + (tree.generator.units_left(node) if tree.generator else 0)
            progress = (node.depth - 1) / (last - 1) if last > 1 else 0.0
            a = min(progress, self.cap)
            tree.note(node).update(value=a * s + (1 - a) * g, alpha=a)

    def value(self, tree: Tree, node: Node) -> float:
        return tree.note(node).get("value", -math.inf)

    def choose(self, tree: Tree) -> Node:
        name = self.final or self.long
        return min(tree.finished, key=lambda n: (-n.scores[name].value, n.path))


def _standard(values: Sequence[float]) -> list[float]:
    """Zero mean and unit variance; all zero where they do not differ."""
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(v - mean) / spread if spread > 1e-12 else 0.0 for v in values]
