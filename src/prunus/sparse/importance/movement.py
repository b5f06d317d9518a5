"""Movement (arXiv 2005.07683): -sum over steps of g w: weights that training moves away from zero are kept.

It remembers: call ``observe`` after each backward pass of the (fine-)tuning, before the weights move, as ``train``'s
``before_step`` does: ``train(..., before_step=lambda step, hold: movement.observe(model, masks))``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.errors import SettingError
from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


class Movement:
    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self, model: nn.Module, masks: Masks) -> None:
        """Add this step's -g w; ``.grad`` must be intact."""
        for name, weight in masks.weights(model).items():
            if weight.grad is not None:
                self._sums[name] = self._sums.get(name, torch.zeros_like(weight)) - weight.grad * weight

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        if missing := [name for name in masks if name not in self._sums]:
            raise SettingError(f"Movement has observed no training step of {missing[0]}; call observe after backward")
        return {name: self._sums[name].clone() for name in masks}
