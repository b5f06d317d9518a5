"""SNIP (arXiv 1810.02340): |g w| with g = dL/dw, which is |dL/dm|; usually at initialisation.

Its published normalisation by the sum over all weights does not change any ranking and is left out of ``scores``;
``normalised`` gives it. For a weight tensor right before a batch norm the *signed* sum of g w is exactly zero, so that
only the absolute value may be summed over a group.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from prunus.errors import require
from prunus.sparse.importance.importance import Scores, mean_gradients, needed
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class SNIP:
    """``batches`` are averaged before the product. (The published code reads ten examples a class.)"""

    batches: int = 2
    order: int = 0

    def __post_init__(self) -> None:
        require(self.batches >= 1, "batches", self.batches, "at least 1")

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        gradients = mean_gradients(model, masks, needed(task, self), self.batches, self.order)
        return {name: (gradients[name] * w.detach()).abs() for name, w in masks.weights(model).items()}


def normalised(scores: Scores) -> Scores:
    """Divided by their sum over all weights."""
    total = sum(float(s.sum()) for s in scores.values())
    return {name: s / total for name, s in scores.items()}
