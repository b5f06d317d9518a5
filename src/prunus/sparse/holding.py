"""Keep masks in force on a model: while an optimiser trains it, or for a while only.

Masks act on the weights themselves and on the optimiser's memory of them, never on ``.grad``: what grows weights back
reads the dense gradients, which also pruned weights have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunus.sparse.masks import Masks


class Hold:
    """Pruned weights are zero after every step of the optimiser, and so is what it remembers of them.

    Momentum, Adam's moments: every tensor of a weight's shape in its state. A weight that grows back therefore starts
    at zero with no memory. Assign ``masks`` to change them; both model and optimiser obey at once.
    """

    def __init__(self, masks: Masks, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._weights = masks.weights(model)
        self._optimiser = optimiser
        self.masks = masks
        self._handle = optimiser.register_step_post_hook(lambda *_: self.enforce())

    @property
    def masks(self) -> Masks:
        return self._masks

    @masks.setter
    def masks(self, masks: Masks) -> None:
        self._masks = masks
        self._pruned = {name: ~masks[name].to(weight.device) for name, weight in self._weights.items()}
        self.enforce()

    def enforce(self) -> None:
        for name, pruned in self._pruned.items():
            self.reset(name, pruned)

    @torch.no_grad()
    def reset(self, name: str, where: Tensor) -> None:
        """Set the weight ``name`` and its optimiser state to zero ``where`` (bool, of the weight's shape)."""
        weight = self._weights[name]
        weight.masked_fill_(where, 0)
        for value in self._optimiser.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(where, 0)

    def remove(self) -> None:
        """Let go: later steps may move all weights."""
        self._handle.remove()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


class Virtual:
    """Masks that are on for a while: ``remove`` puts the pruned weights' values back, bit by bit.

    Kept weights that were trained in the meantime stay as trained.
    """

    @torch.no_grad()
    def __init__(self, masks: Masks, model: nn.Module) -> None:
        self._weights = masks.weights(model)
        self._masks = masks
        self._values = {name: w[~masks[name].to(w.device)].clone() for name, w in self._weights.items()}
        masks.apply(model)

    @torch.no_grad()
    def remove(self) -> None:
        for name, values in self._values.items():
            weight = self._weights[name]
            weight[~self._masks[name].to(weight.device)] = values
        self._values = {}

    def __enter__(self) -> Virtual:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()
