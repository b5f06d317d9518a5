"""What a method gives back, and how one that searched for masks ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.masks import Masks
from prunus.sparse.task import Evaluation, Task
from prunus.sparse.training import Recipe, constant, train

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


def finished(
    model: nn.Module, masks: Masks, task: Task, recipe: Recipe, searched: int, tune: int, rate: float, order: int
) -> Sparsified:
    """Put ``masks`` on ``model`` for good, after ``searched`` gradient steps in all, with the statistics of batch norms
    computed anew; then fine-tune what is kept for ``tune`` steps at the constant ``rate`` times the recipe's."""
    masks.apply(model)
    recompute_statistics(model, task)
    levels = [Level(masks, task.evaluate(model, "validation"), searched)]
    if tune:
        short = replace(recipe, steps=tune, learning_rate=recipe.learning_rate * rate, decay=constant)
        steps = searched + train(model, task, short, order=order, masks=masks).steps
        levels.append(Level(masks, task.evaluate(model, "validation"), steps))
    return Sparsified(model, masks, levels[-1].steps, levels)
