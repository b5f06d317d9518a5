"""SynFlow (arXiv 2006.05467): |w dR/dw| with R = sum of f(1; |theta|), the network with all parameters positive.

No data, only the shape of an input. Made to be iterated, with ``Iterative(100)`` in the paper: one round alone empties
layers. Evaluation mode and float64, in which the product of deep nets does not overflow.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from prunus.sparse.importance.importance import Scores, needed
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class SynFlow:
    criterion: ClassVar[str] = "sensitivity"
    data: ClassVar[str] = "free"

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        example = needed(task, self).example
        positive = copy.deepcopy(model).double().eval()
        with torch.no_grad():
            for value in (*positive.parameters(), *positive.buffers()):
                if value.is_floating_point():
                    value.abs_()
        weights = masks.weights(positive)
        flow = positive(torch.ones_like(example, dtype=torch.float64)).sum()
        found = torch.autograd.grad(flow, list(weights.values()))
        return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), found, strict=True)}
