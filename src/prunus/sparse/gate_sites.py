"""Where a gate can sit on a channel: a number that multiplies the channel and can be folded into weights afterwards.

The gate of a row of ``weight`` multiplies the output of its layer, or of the batch norm behind it (before the norm,
the norm would undo it, and a removed channel would still give the norm's bias). Gated with s is therefore the same as
s * weight and s * bias: biases are gated as well.

A layer qualifies if the network without one of its channels computes what the network with that channel gated off
does, which is *tried* on an example: output layers, channels that are added to others, and activations that are not 0
at 0 fail it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from prunus.errors import ModelError, SettingError
from prunus.sparse.masks import Masks
from prunus.sparse.removal import remove_channels
from prunus.sparse.task import evaluating


def channel_sites(model: nn.Module, example: Any, exclude: Iterable[str] = ()) -> dict[str, str]:
    """The weight's name -> the module whose output its gates multiply, for all layers that qualify.

    ``exclude`` are shell patterns of weights' names. Raises SettingError if no layer qualifies.
    """
    masks = Masks.of(model, exclude)
    found = {name: site for name in masks if (site := _site(model, masks, name, example)) is not None}
    if not found:
        raise SettingError(
            f"{type(model).__name__} has no channels that could be gated and removed one by one: "
            "only hidden channels that are not added to others qualify; prune whole blocks or single weights instead"
        )
    return found


def _site(model: nn.Module, masks: Masks, name: str, example: Any) -> str | None:
    layer = name.rpartition(".")[0]
    if type(model.get_submodule(layer)) not in (nn.Linear, nn.Conv2d) or len(masks[name]) == 1:
        return None
    try:
        smaller = remove_channels(model, without_rows(masks, {name: torch.arange(len(masks[name])) > 0}), example)
    except ModelError:
        return None
    norms = [
        other
        for other, module in model.named_modules()
        if isinstance(module, _BatchNorm) and smaller.get_submodule(other).num_features != module.num_features
    ]
    site = norms[0] if norms else layer
    if len(norms) > 1 or model.get_submodule(site).weight is None:
        return None
    off = torch.ones(len(masks[name]), device=masks[name].device)
    off[0] = 0
    handle = multiply(model.get_submodule(site), lambda: off)
    try:
        with evaluating(model), evaluating(smaller), torch.no_grad():
            gated, removed = tree_leaves(model(example)), tree_leaves(smaller(example))
    except (RuntimeError, ValueError):  # a reshape that counts on the channel
        return None
    finally:
        handle.remove()
    pairs = [(a, b) for a, b in zip(gated, removed, strict=True) if isinstance(a, Tensor)]
    return site if all(a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-5) for a, b in pairs) else None


def multiply(site: nn.Module, gate: Callable[[], Tensor]) -> Any:
    """Multiply the output of ``site`` by ``gate()``, (channels) or (rows, channels); returns the hook's handle."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        value, last = gate(), isinstance(module, nn.Linear)  # channels are last, elsewhere the second dimension
        shape = [1] * output.ndim
        shape[-1 if last else 1] = value.shape[-1]
        shape[0] = len(value) if value.ndim == 2 else shape[0]
        return output * value.reshape(shape)

    return site.register_forward_hook(hook)


def rows(site: nn.Module) -> Tensor:
    """What the gates of ``site`` multiply, a row a channel, its bias among it: (channels, numbers)."""
    parts = [part.reshape(len(part), -1) for part in (site.weight, site.bias) if isinstance(part, Tensor)]
    return torch.cat(parts, 1)


@torch.no_grad()
def fold(site: nn.Module, values: Tensor) -> None:
    """Multiply the weights and biases of ``site`` by its gates ``values`` (channels), for good."""
    for part in (site.weight, site.bias):
        if isinstance(part, Tensor):
            part.mul_(values.view(-1, *[1] * (part.ndim - 1)))


def without_rows(masks: Masks, kept: dict[str, Tensor]) -> Masks:
    """``masks`` with only the rows that are True in ``kept``: the weight's name -> bool (rows)."""
    return masks.changed({n: masks[n] & k.view(-1, *[1] * (masks[n].ndim - 1)) for n, k in kept.items()})


def removed(model: nn.Module, kept: dict[str, Tensor], example: Any) -> nn.Module:
    """A smaller copy with only the channels that are True in ``kept``."""
    if all(bool(k.all()) for k in kept.values()):
        return copy.deepcopy(model)
    return remove_channels(model, without_rows(Masks.of(model), kept), example)
