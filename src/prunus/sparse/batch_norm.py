"""Running statistics of batch norms after pruning, mask search or interpolation: computed anew before evaluation."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunus.sparse.task import Task


@torch.no_grad()
def recompute_statistics(model: nn.Module, task: Task, batches: int = 20, order: int = 0) -> None:
    """Reset every batch norm and average the statistics of ``batches`` training batches, all alike."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
            norm.train()
        for step in range(batches):
            task.loss(model, task.batch(order, step))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
