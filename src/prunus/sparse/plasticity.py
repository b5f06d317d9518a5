"""Pruning plasticity (card 25): how well a network recovers from being pruned in the middle of its training.

Train to a share ``at`` of the recipe, prune to ``density`` by magnitude over all layers, go on for ``further`` steps
with the schedule continued. ``regrow_rate`` > 0 swaps that share of what is left for the inactive weights with the
largest gradients right after pruning, count for count (neuroregeneration). The claims to check: plasticity falls with
the learning rate, and regenerating raises it.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunus.errors import require
from prunus.sparse.allocation import Global
from prunus.sparse.importance import Magnitude
from prunus.sparse.importance.importance import mean_gradients
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune
from prunus.sparse.regrow import regrow
from prunus.sparse.task import Task
from prunus.sparse.training import Recipe, train


@dataclass(frozen=True)
class Plasticity:
    """Validation scores before pruning, right after it, and after training on."""

    before: float
    pruned: float
    recovered: float

    @property
    def gain(self) -> float:
        """How much of the score training brought back."""
        return self.recovered - self.pruned


def plasticity(
    build: Build,
    task: Task,
    recipe: Recipe,
    density: float,
    *,
    at: float = 0.5,
    further: int | None = None,
    regrow_rate: float = 0.0,
    seed: int = 0,
) -> Plasticity:
    require(0 <= at < 1, "at", at, "a share of the training, below 1")
    middle = round(at * recipe.steps)
    stop = recipe.steps if further is None else min(recipe.steps, middle + further)
    model = drawn(build, seed)
    train(model, task, recipe, order=seed, stop=middle)
    before = task.evaluate(model, "validation").score
    masks = prune(model, Masks.of(model), density, Magnitude(), Global())
    masks.apply(model)
    if regrow_rate:
        gradients = mean_gradients(model, masks, task, batches=1, order=seed)
        masks = regrow(masks.weights(model), masks, gradients, regrow_rate).masks
        masks.apply(model)
    pruned = task.evaluate(model, "validation").score
    train(model, task, recipe, order=seed, start=middle, stop=stop, masks=masks)
    return Plasticity(before, pruned, task.evaluate(model, "validation").score)
