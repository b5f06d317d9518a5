"""Wanda (arXiv 2306.11695): |W_ij| ||X_j||, X_j the layer's j-th input feature over all calibration rows and tokens.

To be ranked inside each output row, i.e. with ``scope.InRows``; survivors are not updated. Linear layers as in the
paper; convolutions by unfolding their input, one feature for each place of the kernel. All layers are scored on the
dense network's activations; ``methods.Wanda`` prunes layer by layer, as the paper does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunus.errors import ModelError, require
from prunus.sparse.calibration import gathered
from prunus.sparse.importance.importance import Scores, needed
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task, evaluating


@dataclass(frozen=True)
class Wanda:
    batches: int = 8
    order: int = 0

    def __post_init__(self) -> None:
        require(self.batches >= 1, "batches", self.batches, "at least 1")

    @torch.no_grad()
    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        task = needed(task, self)
        weights = masks.weights(model)
        with gathered(model, list(weights), squares) as sums, evaluating(model):
            for step in range(self.batches):
                task.loss(model, task.batch(self.order, step))
        if silent := [name for name in weights if name not in sums]:
            raise ModelError(f"{silent[0]} was not called as a layer of its own; exclude it from Wanda's masks")
        return {name: score(weight, sums[name]) for name, weight in weights.items()}


def squares(x: Tensor) -> Tensor:
    """||X_j||^2 of each feature: (rows, features) -> (features,)."""
    return x.square().sum(0)


def score(weight: Tensor, squares: Tensor) -> Tensor:
    """|W_ij| ||X_j|| of the weight's shape."""
    return weight.detach().abs() * squares.sqrt().to(weight.dtype).view(1, *weight.shape[1:])
