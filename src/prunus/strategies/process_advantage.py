"""Process-advantage beam: steps are ranked by what they will achieve and by their progress (paper 24, 2410.08146).

    Q_pi(s_h) + alpha A_mu(s_h)        A_mu(s_h) = Q_mu(s_h) - Q_mu(s_{h-1})

Q_pi is the base policy's chance of success after step h, A_mu the change of the chance under another policy, the
prover. Without a reward of its own the prover is the best of K samples of the base: Q_mu = 1 - (1 - Q_pi)^K (K = 4 is
the paper's best in search). Too weak or too strong a prover tells no steps apart. Each step is credited with its own
progress only; summed up over later steps it telescopes to a mere baseline. Beam of B states with 3 children each, alpha
0.5 (0.2 to 0.6 is robust); among finished candidates ``final`` (an outcome reward) chooses, or Q_pi if it is None.

``start`` is Q_mu of the bare prompt, which is the same for all first steps, so it seldom matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prunus.errors import require
from prunus.strategies.beam import Beam
from prunus.tree import Node, Status, Tree

if TYPE_CHECKING:
    import numpy as np

Chance = TypeVar("Chance", float, "np.ndarray")


def best_of_k(q: Chance, k: int) -> Chance:
    """Q under the best of ``k`` samples: 1 - (1 - q)^k."""
    return 1 - (1 - q) ** k


def progress(q: np.ndarray, q0: np.ndarray) -> np.ndarray:
    """A (n, t) = Q_h - Q_{h-1} for chances ``q`` (n, t) after each step and ``q0`` (n) of the prompt."""
    import numpy as np

    return np.diff(q, axis=1, prepend=q0[:, None])


@dataclass(frozen=True)
class ProcessAdvantage(Beam):
    """``reward`` is Q_pi, ``prover`` names the reward that is Q_mu (None: the best of ``k`` of the base)."""

    keep: int = 4
    branch: int = 3
    alpha: float = 0.5
    prover: str | None = None
    k: int = 4
    start: float = 0.0
    final: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "alpha", self.alpha, "at least 0")
        require(self.k >= 1, "k", self.k, "at least 1 sample")
        require(self.aggregate == "last", "aggregate", self.aggregate, "last: a step's own success and progress count")

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in (self.reward, self.prover, self.final) if name is not None)

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        wanted = {self.final: [n for n in tree.fresh if n.status is Status.DONE]} if self.final is not None else {}
        steps = [self.reward or tree.rewards[0], *([self.prover] if self.prover is not None else [])]
        return wanted | dict.fromkeys(steps, tree.fresh)

    def base(self, tree: Tree, node: Node) -> float:
        """Q_pi of a node; one that was not scored comes last."""
        name = self.reward or tree.rewards[0]
        return node.scores[name].value if name in node.scores else -math.inf

    def advantage(self, tree: Tree, node: Node) -> float:
        """A_mu of a node's last step."""
        before = node.fork
        earlier = self.start if before is None or before.parent is None else self._proved(tree, before)
        return self._proved(tree, node) - earlier

    def _proved(self, tree: Tree, node: Node) -> float:
        if self.prover is not None:
            return node.scores[self.prover].value
        return best_of_k(self.base(tree, node), self.k)

    def value(self, tree: Tree, node: Node) -> float:
        q = self.base(tree, node)
        return q + self.alpha * self.advantage(tree, node) if math.isfinite(q) else q

    def choose(self, tree: Tree) -> Node:
        def outcome(node: Node) -> float:
            return node.scores[self.final].value if self.final is not None else self.base(tree, node)

        return min(tree.finished, key=lambda n: (-outcome(n), n.path))
