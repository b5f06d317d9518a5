"""GraSP (arXiv 2002.07376): w * (H g), H the Hessian of the loss, at initialisation; the largest are kept.

H g is the gradient of <stopped g, g>. The published code divides the logits by a temperature of 200. (The sign that
keeps the gradient flow is the one used here; the paper's first version prints the other.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import SettingError, require
from prunus.sparse.importance.importance import Scores, mean_gradients, needed
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task, evaluating


@dataclass(frozen=True)
class GraSP:
    temperature: float = 200.0
    batches: int = 2
    order: int = 0

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "positive")
        require(self.batches >= 1, "batches", self.batches, "at least 1")

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        task = needed(task, self)

        def loss(model: nn.Module, batch: Any) -> Tensor:
            return task.loss(self._cooled(model), batch)

        gradients = mean_gradients(model, masks, task, self.batches, self.order, loss)
        weights = masks.weights(model)
        total = {name: torch.zeros_like(w) for name, w in weights.items()}
        with evaluating(model):
            for step in range(self.batches):
                value = loss(model, task.batch(self.order, step))
                found = torch.autograd.grad(value, list(weights.values()), create_graph=True)
                flow = torch.stack([(gradients[name] * g).sum() for name, g in zip(weights, found, strict=True)]).sum()
                for name, hg in zip(weights, torch.autograd.grad(flow, list(weights.values())), strict=True):
                    total[name] += hg / self.batches
        return {name: w.detach() * total[name] for name, w in weights.items()}

    def _cooled(self, model: nn.Module) -> Callable[..., Any]:
        def logits(*inputs: Any) -> Tensor:
            found = model(*inputs)
            if not isinstance(found, Tensor):
                raise SettingError("GraSP's temperature divides logits; this model returns none: use temperature=1")
            return found / self.temperature

        return model if self.temperature == 1 else logits
