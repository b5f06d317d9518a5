"""One pruning event, composed of its parts: importance says what is worth keeping, scope what is pruned as one,
allocation how much of each layer, and, over several rounds, schedule how fast.
"""

from __future__ import annotations

from torch import nn

from prunus.errors import require
from prunus.sparse.allocation import Allocation, Uniform
from prunus.sparse.importance import Importance, Magnitude
from prunus.sparse.masks import Masks
from prunus.sparse.schedule import Iterative
from prunus.sparse.scope import Scope, Weights
from prunus.sparse.task import Task


def prune(
    model: nn.Module,
    masks: Masks,
    density: float,
    importance: Importance = Magnitude(),  # noqa: B008 - frozen
    allocation: Allocation = Uniform(),  # noqa: B008
    scope: Scope = Weights(),  # noqa: B008
    task: Task | None = None,
) -> Masks:
    """New masks of the given density, within ``masks``. The model is not changed; ``apply`` or ``hold`` the result."""
    require(0 < density <= 1, "density", density, "above 0, at most 1 (the share kept)")
    return scope.select(importance.scores(model, masks, task), masks, density, allocation)


def prune_in_rounds(
    model: nn.Module,
    masks: Masks,
    density: float,
    rounds: int,
    importance: Importance,
    allocation: Allocation = Uniform(),  # noqa: B008
    scope: Scope = Weights(),  # noqa: B008
    task: Task | None = None,
) -> Masks:
    """Score and prune ``rounds`` times without training between, density^(k/rounds) after round k (SynFlow)."""
    start = masks.density
    for done in range(1, rounds + 1):
        with masks.virtual(model):
            wanted = start * Iterative(rounds).density(done / rounds, density / start)
            masks = prune(model, masks, wanted, importance, allocation, scope, task)
    return masks
