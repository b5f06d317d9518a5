"""Reward drop: how much a reward of the whole network falls when a unit is removed; reward-aware importance.

The reward comes in as ``reward(model) -> float``, higher is better: a world's judge on what the network generates, an
accuracy, minus a perplexity. Each unit (channel, head, layer, see ``scope.Units``) is zeroed alone, its rows with their
biases, the reward asked, and the unit put back: one call a unit, and one for the whole. Every weight of the unit gets
the drop, so the scope must reduce by ``mean``. A unit whose removal helps has a negative score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import SettingError
from prunus.sparse.importance.importance import Scores
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Unit, Units
from prunus.sparse.task import Task


@dataclass(frozen=True)
class RewardDrop:
    criterion: ClassVar[str] = "loss_change"
    data: ClassVar[str] = "driven"
    reward: Callable[[nn.Module], float]
    units: Units

    def __post_init__(self) -> None:
        if self.units.reduce != "mean":
            raise SettingError(f"units reduce by {self.units.reduce!r}; RewardDrop needs reduce='mean'")

    def scores(self, model: nn.Module, masks: Masks, task: Task | None = None) -> Scores:
        whole = float(self.reward(model))
        scores = {name: torch.zeros(w.shape, device=w.device) for name, w in masks.weights(model).items()}
        for units in self.units.groups.values():
            for unit in units:
                drop = whole - self._without(model, unit)
                for name, index in unit.items():
                    scores[name][index] = drop
        return scores

    @torch.no_grad()
    def _without(self, model: nn.Module, unit: Unit) -> float:
        """The reward with the unit at zero; its values are back afterwards."""
        parameters = dict(model.named_parameters())
        gone = {**unit, **_biases(unit, parameters)}
        values = {name: parameters[name][index].clone() for name, index in gone.items()}
        try:
            for name, index in gone.items():
                parameters[name][index] = 0
            return float(self.reward(model))
        finally:
            for name, index in gone.items():
                parameters[name][index] = values[name]


def _biases(unit: Unit, parameters: Mapping[str, Tensor]) -> dict[str, tuple]:
    """The biases of the unit's whole rows: a removed row has none, and a layer without them adds nothing."""
    rows = {f"{name.removesuffix('weight')}bias": index for name, index in unit.items() if len(index) == 1}
    return {name: index for name, index in rows.items() if name in parameters}
