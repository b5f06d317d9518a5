"""Rewinding: put a network back to how it was at some step, with only the surviving weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.errors import ModelError
from prunus.sparse.masks import Masks

State = dict[str, Tensor]
"""Everything that a network remembers: weights, biases, norms and their running statistics. Never changed in place."""


def snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def rewind(model: nn.Module, state: State, masks: Masks | None = None) -> None:
    """Set ``model`` to m * ``state``: biases, norms and running statistics go back with the weights."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"the state was taken from another model: {error}") from error
    if masks is not None:
        masks.apply(model)


@torch.no_grad()
def redrawn_from_own_values(state: State, masks: Masks, seed: int) -> State:
    """A control of card 12: the survivors' values drawn anew from their own distribution, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    new = dict(state)
    for name, mask in masks.items():
        values = state[name][mask]
        if len(values):
            picks = torch.randint(len(values), (len(values),), generator=generator).to(values.device)
            new[name] = state[name].masked_scatter(mask, values[picks])
    return new
