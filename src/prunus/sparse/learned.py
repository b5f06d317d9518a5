"""Learned masks: scores that are trained, and projected onto masks. What cards 22, 36, 42 and 53 have in common.

Three parts make a method: the **initial** scores, the **rule** that turns a gradient into a change of the scores, and
the **projection** from scores to what multiplies the weights. The gradient is taken at the product z = m * w, at *all*
places, also where m = 0: differentiating by w would give m * dL/dz and no pruned weight could ever come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunus.errors import ModelError
from prunus.sparse.allocation import Allocation
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Scope, Weights
from prunus.sparse.task import Task

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(weight, dL/dz, gate) -> dL/dscore, all of the weight's shape."""


def gradients_at_product(
    model: nn.Module, gates: Mapping[str, Tensor], loss: Callable[[Callable[..., Any]], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """``loss(network)`` of the network with weights z = gate * w, and dL/dz by name. The model is not changed.

    ``gates`` are bool masks or numbers in [0, 1], of any shape that multiplies the weight (a row: (out, 1)).
    """
    parameters = dict(model.named_parameters())
    if missing := [name for name in gates if name not in parameters]:
        raise ModelError(f"{type(model).__name__} has no weight {missing[0]!r} for a gate")
    products = {
        name: (parameters[name].detach() * gate.to(parameters[name].dtype)).requires_grad_()
        for name, gate in gates.items()
    }
    value = loss(lambda *inputs, **named: functional_call(model, products, inputs, named))
    gradients = torch.autograd.grad(value, list(products.values()), allow_unused=True)
    return value.detach(), {
        name: torch.zeros_like(product) if g is None else g
        for (name, product), g in zip(products.items(), gradients, strict=True)
    }


def straight_through(weight: Tensor, gradient: Tensor, gate: Tensor) -> Tensor:
    """dL/dm = w dL/dz, passed to the score as if the projection were not there (card 42)."""
    return weight * gradient


def keep_best(
    density: float,
    allocation: Allocation,
    scope: Scope = Weights(),  # noqa: B008 - frozen
) -> Callable[[dict[str, Tensor], Masks], Masks]:
    """The projection onto masks of the given density: the largest scores, chosen afresh among all weights.

    A scope of ``Units`` reduces the scores of a channel's weights to one (``norm``: card 22's filters).
    """

    def project(scores: dict[str, Tensor], masks: Masks) -> Masks:
        dense = Masks({name: torch.ones_like(mask) for name, mask in masks.items()})
        return scope.select(scores, dense, density, allocation)

    return project


@dataclass
class LearnedMask:
    """The scores of a model's weights, its masks, and one step of their training. The weights are not touched."""

    scores: dict[str, Tensor]
    masks: Masks
    rule: Rule
    project: Callable[[dict[str, Tensor], Masks], Masks]

    def step(self, model: nn.Module, task: Task, batch: Any, optimiser: torch.optim.Optimizer) -> float:
        """Move the scores by the optimiser that holds them, project; returns the loss before the step."""
        loss, gradients = gradients_at_product(model, self.masks, lambda network: task.loss(network, batch))
        weights = self.masks.weights(model)
        for name, score in self.scores.items():
            score.grad = self.rule(weights[name].detach(), gradients[name], self.masks[name])
        optimiser.step()
        self.masks = self.project(self.scores, self.masks)
        return float(loss)
