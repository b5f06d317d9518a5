"""Best-of-N: grow N whole candidates, keep the one that the reward likes best. N = 1 is plain generation.

Only finished candidates are scored, unless ``aggregate`` takes the scores of all steps together and the reward does not
give that as a part of its score: then every unit is. Cost: N times that of one candidate (test-time search basics,
item 1). A budget that does not pay for N begins fewer, and finishes them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prunus.errors import require
from prunus.roles import Ask
from prunus.strategies.aggregate import Stepwise, check
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class BestOfN(Stepwise):
    """``n`` candidates, all grown together; ``reward`` names the reward that decides (None: the only one).

    ``aggregate`` says how its scores of a candidate's steps are taken together.
    """

    finishes_all: ClassVar[bool] = True

    n: int = 4
    reward: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        check(self.aggregate)

    @property
    def scores_units(self) -> bool:  # type: ignore[override]
        return self.aggregate != "last"

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tree.root.status is Status.OPEN:
            return [tree.ask(tree.root) for _ in range(self.n)]
        return [tree.ask(node) for node in tree.frontier]

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        finished = [n for n in tree.fresh if n.status is Status.DONE]
        return {self.reward or tree.rewards[0]: tree.fresh if self.needs_steps(tree) else finished}
