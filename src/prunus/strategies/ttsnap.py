"""TTSnap: prune candidates inside a unit by what they promise to become (paper 04, arXiv 2511.22242).

After some denoising steps every candidate shows its clean estimate x0; a reward that was trained to read such estimates
scores them, and only the best share goes on. On images ``inner`` is best-of-n, which is the paper's method. With any
other strategy, such as Stream-T1, the same happens inside each of its units (a video's chunks), and the strategy sees
the survivors: what they are does not depend on the others, so with all kept it is the strategy itself.

Default schedule, paper 04 for FLUX in 20 steps: estimates 2, 6 and 11 (counted from 0), of which 0.4, 0.4 and 0.5 are
kept. Estimate s takes s + 1 network calls; ``PruneSchedule.after`` counts calls. The published code charges one call
less, for each candidate and for the whole: ``cost(..., published=True)``.

Of the candidates of a stage round(share * n) are kept, at least one; of equal scores the earlier path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prunus.errors import require
from prunus.roles import Strategy
from prunus.strategies.best_of_n import BestOfN
from prunus.strategies.prune_inside import PruneInside
from prunus.tree import Node, Tree


@dataclass(frozen=True)
class PruneSchedule:
    """After so many steps of a unit (``after``, rising) this share of the candidates is kept (``keep``, in (0, 1])."""

    after: tuple[int, ...] = (3, 7, 12)
    keep: tuple[float, ...] = (0.4, 0.4, 0.5)

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.after), self.after))
        require(len(self.after) > 0 and rising, "after", self.after, "rising numbers of steps, from 1 on")
        require(len(self.keep) == len(self.after), "keep", self.keep, f"one share for each of after = {self.after}")
        require(all(0 < share <= 1 for share in self.keep), "keep", self.keep, "shares in (0, 1]")

    def survivors(self, stage: int, candidates: int) -> int:
        """How many of a stage's candidates go on; stages count from 0."""
        return max(1, round(self.keep[stage] * candidates))

    def cost(self, call: float, verification: float, steps: int, published: bool = False) -> float:
        """What one initial candidate takes on average: network calls and verifications, the final one included.

        ``published`` counts as the published code: one call too few.
        """
        total, alive, done = 0.0, 1.0, int(published)
        for after, keep in zip(self.after, self.keep, strict=True):
            total += alive * ((after - done) * call + verification)
            alive, done = alive * keep, after
        return total + alive * ((steps - done) * call + verification)

    def candidates_for(self, budget: float, call: float, verification: float, steps: int) -> int:
        """How many initial candidates a budget pays for."""
        return int(budget // self.cost(call, verification, steps))


@dataclass(frozen=True)
class TTSnap(PruneInside):
    """``inner`` chooses between units, ``preview`` names the reward that prunes inside them."""

    inner: Strategy = field(default_factory=lambda: BestOfN(32))
    schedule: PruneSchedule = field(default_factory=PruneSchedule)
    preview: str = "noise-aware-reward"

    def __post_init__(self) -> None:
        require(not self.inner.revisits, "inner", type(self.inner).__name__, "a strategy that grows each node once")

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.inner.reads, self.preview)

    @property
    def ends(self) -> tuple[int, ...]:
        return self.schedule.after

    def preview_of(self, tree: Tree) -> str:
        return self.preview

    def survivors(self, stage: int, candidates: int) -> int:
        return self.schedule.survivors(stage, candidates)

    def promise(self, tree: Tree, node: Node) -> float:
        return node.scores[self.preview].value

    def spec(self) -> dict:
        schedule = {"after": list(self.schedule.after), "keep": list(self.schedule.keep)}
        return {"name": "TTSnap", "inner": self.inner.spec(), "schedule": schedule, "preview": self.preview}
