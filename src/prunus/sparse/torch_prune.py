"""Masks to and from ``torch.nn.utils.prune``, which keeps ``weight_orig`` and ``weight_mask`` on each module."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import prune

from prunus.errors import ModelError
from prunus.sparse.masks import Masks, prunable


def to_torch_prune(masks: Masks, model: nn.Module) -> None:
    """Hang the masks on ``model``'s modules as torch's own; the pruned values are kept in ``weight_orig``."""
    for name, weight in masks.weights(model).items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, masks[name].to(weight.device))


def from_torch_prune(model: nn.Module) -> Masks:
    """The masks that hang on ``model``'s modules; prunable weights without one are wholly kept.

    Their names are those of the plain model, without ``_orig``. Raises ModelError if nothing hangs there.
    """
    buffers = dict(model.named_buffers())
    found = {}
    for name, weight in prunable(model).items():
        plain = name.removesuffix("_orig")
        mask = buffers.get(f"{plain}_mask") if plain != name else None
        found[plain] = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    if not any(name.endswith("_orig") for name in prunable(model)):
        raise ModelError(f"no module of {type(model).__name__} is pruned by torch.nn.utils.prune")
    return Masks(found)
