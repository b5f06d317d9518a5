"""What a method gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from prunus.sparse.masks import Masks
from prunus.sparse.task import Evaluation

Build = Callable[[], nn.Module]
"""Makes the network with fresh initial weights; ``networks.drawn`` calls it under a seed."""


@dataclass
class Level:
    """One state on the way: its masks, validation after training with them, gradient steps so far, early-stop step."""

    masks: Masks | None
    validation: Evaluation
    steps: int
    early_stop: int | None = None

    @property
    def density(self) -> float:
        return 1.0 if self.masks is None else self.masks.density


@dataclass
class Sparsified:
    """The trained sparse model, its masks (None: units were removed for good), **all** gradient steps that it took,
    search and pre-training included, the levels on the way, and whether a cap on the steps cut it short."""

    model: nn.Module
    masks: Masks | None
    steps: int
    levels: list[Level] = field(default_factory=list)
    capped: bool = field(default=False, kw_only=True)
    average_macs: float | None = field(default=None, kw_only=True)
    """MACs of one row on average, where they depend on the input; None: they do not, count them."""
