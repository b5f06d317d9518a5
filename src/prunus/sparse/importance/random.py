"""Random: uniform in [0, 1). The baseline that every table needs, with the layer densities of the method under test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class Random:
    criterion: ClassVar[str] = "chance"
    data: ClassVar[str] = "free"
    seed: int = 0

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        return {n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in masks.weights(model).items()}
