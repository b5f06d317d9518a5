"""Learned masks: scores that are trained by gradient, and projected onto masks. What cards 22, 36, 42 and 53 share.

Three parts make such a method: the **initial** scores, the **rule** that turns the gradient dL/dz at the product
z = m * w into one of the scores, and the **projection** from scores to masks. The gradient is taken at *all* places,
also where m = 0: differentiating by w would give m * dL/dz, and no pruned weight could ever come back.

``Masked`` trains the weights under masks (card 22's lower level), ``Scored`` the scores of frozen weights (card 42);
``gradients_at_product`` is dL/dz itself, and ``ScoreDescent`` moves scores that no optimiser holds (card 22's upper
level).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunus.errors import ModelError
from prunus.sparse.allocation import Allocation
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Scope, Weights


class Masked(nn.Module):
    """``network`` with z = m * w for its masked weights in each forward; pruned weights keep their values.

    A gradient step on it moves w by m * dL/dz. ``masks`` may be assigned; they are part of the module's state.
    """

    def __init__(self, network: nn.Module, masks: Masks) -> None:
        super().__init__()
        masks.weights(network)  # they are of this network
        self.network, self._names = network, tuple(masks)
        for place, mask in enumerate(masks.values()):
            self.register_buffer(f"mask{place}", mask.clone())

    @property
    def masks(self) -> Masks:
        return Masks({name: self.get_buffer(f"mask{place}") for place, name in enumerate(self._names)})

    @masks.setter
    def masks(self, masks: Masks) -> None:
        for place, mask in enumerate(self.masks.changed(masks).values()):
            self.register_buffer(f"mask{place}", mask)

    def effective(self) -> dict[str, Tensor]:
        """The weights that the forward uses in the place of the network's own."""
        weights = self.masks.weights(self.network)
        return {name: weights[name] * mask for name, mask in self.masks.items()}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return functional_call(self.network, self.effective(), inputs, named)


class Scored(Masked):
    """The same on frozen weights, with real ``scores`` of the weights' shapes as all that a gradient reaches.

    Straight-through: dL/ds = w dL/dz, as if the mask were the score. Biases and norms are frozen as well; running
    statistics of batch norms move while training.
    """

    def __init__(self, network: nn.Module, masks: Masks, scores: Mapping[str, Tensor]) -> None:
        super().__init__(network, masks)
        self._scores = nn.ParameterList(nn.Parameter(scores[name].clone()) for name in self._names)

    @property
    def scores(self) -> dict[str, nn.Parameter]:
        return dict(zip(self._names, self._scores, strict=True))

    def effective(self) -> dict[str, Tensor]:
        frozen = {name: value.detach() for name, value in self.network.named_parameters()}
        masks = self.masks
        gates = {name: masks[name] + (score - score.detach()) for name, score in self.scores.items()}
        return frozen | {name: frozen[name] * gate for name, gate in gates.items()}


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


@dataclass
class ScoreDescent:
    """Scores by name, and gradient descent on them with momentum v <- mu v + g, s <- s - rate v; with ``box`` they are
    clipped to [0, 1] afterwards. Its state is what a journal has to keep."""

    scores: dict[str, Tensor]
    momentum: float = 0.9
    box: bool = True
    velocity: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.velocity = {name: torch.zeros_like(s) for name, s in self.scores.items()}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        for name, score in self.scores.items():
            score.sub_(rate * self.velocity[name].mul_(self.momentum).add_(gradients[name]))
            if self.box:
                score.clamp_(0, 1)

    def state_dict(self) -> dict[str, Tensor]:
        kinds = {"score": self.scores, "velocity": self.velocity}
        return {f"{kind} {name}": value for kind, values in kinds.items() for name, value in values.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for key, value in self.state_dict().items():
            value.copy_(state[key])


def keep_best(
    density: float,
    allocation: Allocation,
    scope: Scope = Weights(),  # noqa: B008 - frozen
) -> Callable[[Mapping[str, Tensor]], Masks]:
    """The projection onto masks of the given density: the largest scores, chosen afresh among all weights.

    A scope of ``Units`` reduces the scores of a channel's weights to one (``norm``: card 22's filters).
    """

    def project(scores: Mapping[str, Tensor]) -> Masks:
        dense = Masks({name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()})
        return scope.select(scores, dense, density, allocation)

    return project
