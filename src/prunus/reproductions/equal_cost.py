"""Methods at exactly equal mean cost, although each can only be run at a few widths.

A method that is run at width a for a share p of the problems and at width b for the others, drawn by lot, costs
p c_a + (1 - p) c_b on average and is right in p r_a + (1 - p) r_b of them. So a budget between the costs of two widths
is met exactly by a mixture, and what the mixture scores on a problem, on average over the lot, is a mean of two values.
Its differences to another method are paired by problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prunus.errors import require
from prunus.reproductions.comparison import Interval, bootstrap


@dataclass(frozen=True)
class Point:
    """A method at one width: what each problem cost, and how it was judged, in the same order for all methods."""

    width: int | None
    costs: Sequence[float]
    values: Sequence[float]

    def __post_init__(self) -> None:
        require(
            len(self.costs) == len(self.values) > 0, "values", len(self.values), f"one for each of {len(self.costs)}"
        )

    @property
    def cost(self) -> float:
        return float(np.mean(self.costs))

    @property
    def accuracy(self) -> Interval:
        return bootstrap([[v] for v in self.values])


def at_cost(points: Sequence[Point], budget: float) -> list[float] | None:
    """Each problem's value under the mixture of widths whose mean cost is the budget.

    None if even the cheapest width costs more; the dearest one where the budget is beyond it.
    """
    rising = sorted(points, key=lambda p: p.cost)
    if budget < rising[0].cost * (1 - 1e-9):
        return None
    for low, high in pairwise(rising):
        if low.cost <= budget < high.cost:
            share = (budget - low.cost) / (high.cost - low.cost)
            return [(1 - share) * a + share * b for a, b in zip(low.values, high.values, strict=True)]
    return list(rising[-1].values if budget >= rising[-1].cost else rising[0].values)


@dataclass(frozen=True)
class Standing:
    """A method at a budget: its accuracy, the paired difference to the baseline, and what it spent of the budget."""

    method: str
    budget: float
    spent: float
    accuracy: Interval
    against: Interval | None


def standings(methods: dict[str, list[Point]], baseline: str) -> list[Standing]:
    """All methods at each of the baseline's own costs, which it meets exactly; those that cost more are left out."""
    found = []
    for base in sorted(methods[baseline], key=lambda p: p.cost):
        for method, points in methods.items():
            values = base.values if method == baseline else at_cost(points, base.cost)
            if values is None:
                continue
            against = None
            if method != baseline:
                against = bootstrap([[a - b] for a, b in zip(values, base.values, strict=True)])
            spent = min(base.cost, max(p.cost for p in points))
            found.append(Standing(method, base.cost, spent, bootstrap([[v] for v in values]), against))
    return found
