"""Magnitude: |w|. No data. Layers differ in scale, so a global ranking needs a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task


@dataclass(frozen=True)
class Magnitude:
    criterion: ClassVar[str] = "magnitude"
    data: ClassVar[str] = "free"

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        return {name: weight.detach().abs() for name, weight in masks.weights(model).items()}
