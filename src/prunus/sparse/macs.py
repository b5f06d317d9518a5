"""Counting: multiply-adds (MACs) of one row, as torch's FlopCounterMode / 2, and of the masked network.

A masked layer's MACs are its density times the dense ones: what a perfect sparse kernel would do. Masks alone make
nothing faster on ordinary libraries. Linear layers, convolutions and attention count; norms and activations do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunus.sparse.masks import Masks
from prunus.sparse.task import evaluating


def macs_by_module(
    model: nn.Module, example: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> dict[str, int]:
    """A module's name -> the MACs inside it for ``example`` (one row; a mapping: named inputs); ``""`` is all of it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter knows products of matrices, not all fused kernels of attention: these are taken apart.
    with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        (forward or _run)(model, example)
    root = type(model).__name__
    found = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    whole = found.get("Global", 0)
    inside = {name.removeprefix(f"{root}."): n for name, n in found.items() if name.startswith(f"{root}.")}
    return {"": whole, **inside}


def _run(model: nn.Module, example: Any) -> Any:
    return model(**example) if isinstance(example, Mapping) else model(example)


def macs(model: nn.Module, example: Any, masks: Masks | None = None) -> float:
    """MACs of one row; with ``masks`` each masked layer counts by its density."""
    by_module = macs_by_module(model, example)
    if masks is None:
        return by_module[""]
    saved = {name.rpartition(".")[0]: 1 - density for name, density in masks.densities().items()}
    return by_module[""] - sum(by_module.get(module, 0) * share for module, share in saved.items())


@dataclass(frozen=True)
class LayerCost:
    """A prunable weight: its shape, how many are kept of how many, and the MACs of its layer, masked and dense."""

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    macs: float
    dense_macs: int

    @property
    def density(self) -> float:
        return self.kept / self.weights


def layer_costs(model: nn.Module, example: Any, masks: Masks) -> list[LayerCost]:
    """One row for each weight of ``masks``, in the model's order."""
    by_module, counts = macs_by_module(model, example), masks.counts()
    rows = []
    for name, mask in masks.items():
        dense = by_module.get(name.rpartition(".")[0], 0)
        share = counts[name] / mask.numel()
        rows.append(LayerCost(name, tuple(mask.shape), mask.numel(), counts[name], dense * share, dense))
    return rows


def parameters(model: nn.Module, masks: Masks | None = None) -> int:
    """How many numbers the model has; with ``masks``, without the pruned ones."""
    return sum(p.numel() for p in model.parameters()) - (masks.total - masks.kept if masks is not None else 0)
