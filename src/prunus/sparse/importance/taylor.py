"""First-order Taylor: (g w)^2, or |g w|: the change of the loss if a weight is set to zero (arXiv 1906.10771).

For a group, ``Units(reduce="sum")`` adds the scores of its weights; |sum g w| is another method and is not this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from prunus.errors import require
from prunus.sparse.importance.importance import Scores, mean_gradients, needed
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class Taylor:
    criterion: ClassVar[str] = "loss_change"
    data: ClassVar[str] = "driven"
    squared: bool = True
    batches: int = 8
    order: int = 0

    def __post_init__(self) -> None:
        require(self.batches >= 1, "batches", self.batches, "at least 1")

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        gradients = mean_gradients(model, masks, needed(task, self), self.batches, self.order)
        products = {name: gradients[name] * w.detach() for name, w in masks.weights(model).items()}
        return {name: p.square() if self.squared else p.abs() for name, p in products.items()}
