"""Wanda (arXiv 2306.11695): |W_ij| ||X_j||, X_j the layer's j-th input feature over all calibration rows and tokens.

To be ranked inside each output row, i.e. with ``scope.InRows``; survivors are not updated. Linear layers as in the
paper; convolutions by unfolding their input, one feature for each place of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import ModelError, require
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
        squares: dict[str, Tensor] = {}

        def listen(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
                squares[name] = squares.get(name, 0) + _squares(module, inputs[0])

            return model.get_submodule(name.rpartition(".")[0]).register_forward_hook(hook)

        handles = [listen(name) for name in weights]
        try:
            with evaluating(model):
                for step in range(self.batches):
                    task.loss(model, task.batch(self.order, step))
        finally:
            for handle in handles:
                handle.remove()
        if silent := [name for name in weights if name not in squares]:
            raise ModelError(f"{silent[0]} was not called as a layer of its own; exclude it from Wanda's masks")
        return {n: w.abs() * squares[n].sqrt().to(w.dtype).view(1, *w.shape[1:]) for n, w in weights.items()}


def _squares(module: nn.Module, x: Tensor) -> Tensor:
    """The sum of squares of each input feature, over rows and tokens, in float32."""
    if isinstance(module, nn.Linear):
        return x.float().flatten(0, -2).square().sum(0)
    if isinstance(module, nn.Conv2d) and module.groups == 1 and not isinstance(module.padding, str):
        kernel, *rest = module.kernel_size, module.dilation, module.padding, module.stride
        return functional.unfold(x.float(), kernel, *rest).square().sum((0, 2))
    raise ModelError(f"Wanda scores linear layers and ungrouped 2-D convolutions, not {type(module).__name__}")
