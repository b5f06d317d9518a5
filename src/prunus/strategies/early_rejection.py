"""Early rejection: a step beam whose candidates are judged after the first tau tokens of a step (paper 41, 2508.01969).

Each round begins ``keep * branch`` steps, grows each by ``tau`` tokens, scores the unfinished steps, keeps the best
``keep`` (or ``survive``, if the beam is to choose once more among whole steps) and finishes only these. A step that
ends before its tau tokens competes with its whole score. Tokens of a round with steps of L tokens, N = keep * branch:

    N tau + keep (L - tau)    against N L of the beam; always more than 1 / branch of it

An unfinished step's score is the part ``partial`` of the reward, or its value if it has no such part. ``preview`` names
another reward for unfinished steps; a random one there is the baseline that partial scores must beat. With
``survive = keep * branch`` nothing is rejected: it is the plain beam, and logs the pairs by which tau is chosen.

``EarlyRejection()`` is the paper's method: completed steps are scored again and finished candidates are kept.
``published()`` has the official code's habits that can be had in this loop: one prompt is expanded ``branch`` times in
the first round (the baseline's N times more is where part of the reported saving comes from), and completed text is
never scored again, so that the last partial score decides (the answer itself then has no score in the tree). Left out:
a step's end mark that is written into the unfinished step, finished beams that are overwritten, scores that are shared
by equal texts, and text that is cut to 2048 characters before it is scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import require
from prunus.score import Score
from prunus.strategies.beam import Beam
from prunus.strategies.prune_inside import PruneInside
from prunus.tree import Node, Tree


def partial(score: Score) -> float:
    """What a score says of an unfinished step; of a whole one, its value."""
    return score.parts.get("partial", score.value)


@dataclass(frozen=True)
class EarlyRejection(PruneInside):
    """``keep``, ``branch``, ``first``: as Beam's. ``tau`` tokens of a step are seen before ``survive`` (None: keep)
    candidates are left. ``rescore``: score steps again when they are complete."""

    keep: int = 4
    branch: int = 4
    tau: int = 32
    survive: int | None = None
    first: int | None = None
    reward: str | None = None
    preview: str | None = None
    rescore: bool = True

    def __post_init__(self) -> None:
        keep = self.inner.keep  # a beam that can be made
        require(self.tau >= 1, "tau", self.tau, "at least 1 token")
        require(self.survive is None or self.survive >= keep, "survive", self.survive, f"at least keep = {keep}")
        if not self.rescore:
            require(self.survive is None, "survive", self.survive, "left out where whole steps are not scored")
            require(self.preview is None, "preview", self.preview, "left out where whole steps are not scored")

    @classmethod
    def published(cls, keep: int = 4, branch: int = 4, **changes: Any) -> EarlyRejection:
        """The official code's behaviour, as far as it can be had here; see above."""
        return cls(keep, branch, **{"first": branch, "rescore": False, **changes})

    @property
    def inner(self) -> Beam:  # type: ignore[override]
        return _LastScored(self.keep, self.branch, self.first, self.reward)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in (self.reward, self.preview) if name is not None))

    @property
    def ends(self) -> tuple[int, ...]:
        return (self.tau,)

    def preview_of(self, tree: Tree) -> str:
        return self.preview or self.reward or tree.rewards[0]

    def survivors(self, stage: int, candidates: int) -> int:
        return self.survive or self.keep

    def promise(self, tree: Tree, node: Node) -> float:
        return partial(node.scores[self.preview_of(tree)])

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        wanted = super().to_score(tree)
        if self.rescore:
            return wanted
        return {name: [n for n in nodes if n.piece == 1] for name, nodes in wanted.items()}


@dataclass(frozen=True)
class _LastScored(Beam):
    """A beam to which a step that was not scored again is worth what its beginning was."""

    def value(self, tree: Tree, node: Node) -> float:
        name = self.reward or tree.rewards[0]
        scores = [n.scores[name] for n in node.lineage if name in n.scores]
        return partial(scores[-1]) if scores else -math.inf
