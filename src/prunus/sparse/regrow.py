"""Regrowing: swap the weakest kept weights for pruned ones, count for count.

Growth scores are read at the pruned places: of ``gradient`` |dL/dw| of the current batch (dense gradients are already
there, hence "zero cost"), of ``momentum`` |the optimiser's momentum|, of ``random`` a draw. What to do with a weight
that is dropped in the same event in which it would grow again is a choice that the papers make silently:

- ``keep``: it may grow again and then keeps its value (GraNet's code; the default);
- ``zero``: it may grow again and restarts at zero (RigL);
- ``bar``: it may not grow again in this event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.errors import require
from prunus.sparse.exact import largest
from prunus.sparse.masks import Masks

DROPPED = ("keep", "zero", "bar")


@dataclass(frozen=True)
class Regrown:
    """The new masks, and by name which weights grew (bool): they start at zero, without optimiser state."""

    masks: Masks
    grown: dict[str, Tensor]


def regrow(
    weights: Mapping[str, Tensor],
    masks: Masks,
    growth: Mapping[str, Tensor],
    fraction: float,
    dropped: str = "keep",
) -> Regrown:
    """In each layer with n active weights drop the k = ceil(fraction n) of the smallest |w| and grow the k with the
    largest ``growth`` among the inactive. Counts are conserved, layer by layer; k is at most what can grow.
    """
    require(0 <= fraction <= 1, "fraction", fraction, "from 0 to 1")
    require(dropped in DROPPED, "dropped", dropped, ", ".join(DROPPED))
    new, grown = {}, {}
    for name, mask in masks.items():
        active = int(mask.sum())
        k = math.ceil(fraction * active - 1e-9)
        if dropped == "bar":
            k = min(k, mask.numel() - active)
        kept = largest(weights[name].detach().abs(), active - k, mask, name)
        places = ~mask if dropped == "bar" else ~kept
        fresh = largest(growth[name].detach().abs(), k, places, f"growth of {name}")
        new[name] = kept | fresh
        grown[name] = fresh & ~mask if dropped == "keep" else fresh
    return Regrown(masks.changed(new), grown)


def random_growth(masks: Masks, seed: int) -> dict[str, Tensor]:
    """Uniform growth scores: SET grows at random."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(mask.shape, generator=generator).to(mask.device) for name, mask in masks.items()}


def annealed(progress: float, start: float, end: float = 0.0) -> float:
    """A fraction that falls from ``start`` to ``end`` by half a cosine: (start - end)/2 (1 + cos(pi progress)) + end.

    GraNet: .5 to .005 over all steps. RigL and SET: .3 to 0 over the first three quarters.
    """
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
