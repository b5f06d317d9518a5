"""What an importance is: a score for each weight, **larger = keep**. A new one is one file with one method.

``scores(model, masks, task)`` returns a tensor of the weight's shape for each name in ``masks``. The pruned weights of
``model`` are zero when it is called; what it returns for them is not read by pruning. It leaves the model as it was.
``task`` is None where there are no data; an importance that needs them then raises SettingError. For the taxonomy a
class may say its ``criterion`` ("sensitivity" if it says none) and that its ``data`` are "free" ("driven").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunus.errors import SettingError
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task, evaluating

Scores = dict[str, Tensor]


class Importance(Protocol):
    def scores(self, model: nn.Module, masks: Masks, task: Task | None) -> Scores: ...


def needed(task: Task | None, who: object) -> Task:
    """The task, or a SettingError that says which importance cannot do without one."""
    if task is None:
        raise SettingError(f"{type(who).__name__} scores weights on data; give a task, or use Magnitude or SynFlow")
    return task


def mean_gradients(
    model: nn.Module,
    masks: Masks,
    task: Task,
    batches: int,
    order: int = 0,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Scores:
    """dL/dw at the weights as they are, also of pruned ones, averaged over ``batches`` batches, in evaluation mode."""
    weights = masks.weights(model)
    total = {name: torch.zeros_like(w) for name, w in weights.items()}
    with evaluating(model):
        for step in range(batches):
            value = (loss or task.loss)(model, task.batch(order, step))
            found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, found, strict=True):
                if gradient is not None:
                    total[name] += gradient / batches
    return total
