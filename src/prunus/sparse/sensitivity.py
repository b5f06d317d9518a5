"""Sensitivity: how much the network loses when one layer alone is pruned, layer by layer.

The scan says where weights can be spared before anything is trained: a layer that loses much at half of its weights
wants a higher density (``allocation.Given``), one that loses nothing at a tenth has room. It looks at validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from prunus.errors import require
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import Importance, Magnitude, Scores
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Scope, Units, Weights
from prunus.sparse.task import Evaluation, Task

DENSITIES = (0.5, 0.2, 0.1, 0.05)


def sensitivity(
    model: nn.Module,
    task: Task,
    masks: Masks,
    densities: Sequence[float] = DENSITIES,
    importance: Importance = Magnitude(),  # noqa: B008 - frozen
    scope: Scope = Weights(),  # noqa: B008
    say: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Evaluation]]:
    """A weight's name -> validation with that weight alone pruned to each of ``densities``; the model is not changed.

    ``scope`` may be one of units whose groups are weights or layers: then a group's name -> the same.
    """
    for density in densities:
        require(0 < density < 1, "densities", density, "above 0 and below 1")
    scores = importance.scores(model, masks, task)
    found: dict[str, list[Evaluation]] = {}
    for name in scope.groups if isinstance(scope, Units) else masks:
        say(name)
        found[name] = []
        for density in densities:
            with _pruned_alone(name, scores, scope, masks, density).virtual(model):
                found[name].append(task.evaluate(model, "validation"))
    return found


def _pruned_alone(name: str, scores: Scores, scope: Scope, masks: Masks, density: float) -> Masks:
    if isinstance(scope, Units):
        return replace(scope, groups={name: scope.groups[name]}).select(scores, masks, density, Uniform())
    return masks.changed(scope.select({name: scores[name]}, Masks({name: masks[name]}), density, Uniform()))
