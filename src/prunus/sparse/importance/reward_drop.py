"""Reward drop: how much a reward of the whole network falls when a unit is removed; reward-aware importance.

The reward comes in as ``reward(model) -> float``, higher is better: a world's judge on what the network generates, an
accuracy, minus a perplexity. Each unit (channel, head, layer, see ``scope.Units``) is zeroed alone, the reward asked,
and the unit put back: one call a unit, and one for the whole. Every weight of the unit gets the drop, so the scope must
reduce by ``mean``. A unit whose removal helps has a negative score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from prunus.errors import SettingError
from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Units
from prunus.sparse.task import Task


@dataclass(frozen=True)
class RewardDrop:
    reward: Callable[[nn.Module], float]
    units: Units

    def __post_init__(self) -> None:
        if self.units.reduce != "mean":
            raise SettingError(f"units reduce by {self.units.reduce!r}; RewardDrop needs reduce='mean'")

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        whole = float(self.reward(model))
        scores = {name: torch.zeros(w.shape, device=w.device) for name, w in masks.weights(model).items()}
        for group, units in self.units.groups.items():
            for place, unit in enumerate(units):
                gone = torch.zeros(len(units), dtype=torch.bool)
                gone[place] = True
                with self.units.without(masks, {group: gone}).virtual(model):
                    drop = whole - float(self.reward(model))
                for name, index in unit.items():
                    scores[name][index] = drop
        return scores
