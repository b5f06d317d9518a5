"""LAMP (arXiv 2010.07611): w_i^2 / (the sum of w_j^2 over all that are no smaller), by layer; then ranked globally.

The largest weight of a layer scores 1, so no layer dies. Only kept weights count. Equal weights are ordered as
everywhere here: of equals the earlier is the larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class LAMP:
    criterion: ClassVar[str] = "magnitude"
    data: ClassVar[str] = "free"

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        return {name: lamp(w.detach(), masks[name].to(w.device)) for name, w in masks.weights(model).items()}


def lamp(weight: Tensor, mask: Tensor) -> Tensor:
    """float64, of the weight's shape; 0 where pruned."""
    squares = weight.double().square()[mask]
    order = squares.argsort(descending=True, stable=True)
    ranked = squares[order]
    shares = torch.empty_like(squares)
    shares[order] = ranked / ranked.cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.zeros_like(weight, dtype=torch.float64).masked_scatter_(mask, shares)
