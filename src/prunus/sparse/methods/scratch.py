"""Scratch-E and Scratch-B: train the pruned architecture from fresh weights (card 21, arXiv 1810.05270).

Scratch-E has the dense recipe's steps E; Scratch-B the same *compute*, E F_dense / F_small steps, plus those of
fine-tuning if they are counted. Schedules stretch with the steps (milestones at 50 % and 75 %). If scratch training is
as good, the inherited weights were worth nothing, only the widths; if a uniformly narrow net is as good too, not even
those.

The paper has no cap on CIFAR, and 2 E on ImageNet. Here B is capped at 4 E by default and the row says so.
Random-weight arms have seeds of their own. The pruned architecture is either really smaller (a model) or a mask on
fresh weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from prunus.errors import require
from prunus.sparse.macs import macs
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build
from prunus.sparse.networks import drawn
from prunus.sparse.removal import redraw
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe, constant, train

ARMS = ("dense", "finetune", "finetune_full_lr", "scratch_E", "scratch_B", "small_dense_uniform")


def scratch_budget(epochs: int, dense: float, small: float, finetune: int = 0, cap: int | None = None) -> int:
    """Epochs (or steps) of Scratch-B: int(E F_dense / F_small) + K, at most ``cap``; F are MACs or FLOPs alike."""
    require(small > 0 and dense > 0, "dense, small", (dense, small), "positive")
    found = int(epochs * dense / small + 1e-9) + finetune
    return found if cap is None else min(found, cap)


def milestones(epochs: int) -> tuple[int, int]:
    """Where the published schedules divide the rate by ten: at 50 % and 75 %."""
    return epochs // 2, epochs * 3 // 4


@dataclass
class Arm:
    """One line of the table: test scores by seed; of the last seed the gradient steps (dense training included where
    its weights are used), the MACs of one input, and whether Scratch-B was cut short."""

    name: str
    scores: list[float] = field(default_factory=list)
    steps: int = 0
    macs: float = 0.0
    capped: bool = False

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Of single seeds (n - 1)."""
        n = len(self.scores)
        return (sum((s - self.mean) ** 2 for s in self.scores) / (n - 1)) ** 0.5 if n > 1 else 0.0


Shrink = Callable[[nn.Module], "tuple[nn.Module, Masks | None]"]
"""Prunes a trained dense network: a smaller network and None, or the network and its masks."""


def compare_arms(
    build: Build,
    shrink: Shrink,
    task: Task,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    arms: Sequence[str] = ARMS,
    *,
    finetune_steps: int | None = None,
    finetune_rate: float = 0.1,
    cap: float | None = 4.0,
    uniform: Build | None = None,
    fresh: Callable[[nn.Module], nn.Module] = redraw,
    split: str = "test",
) -> dict[str, Arm]:
    """The arms, paired by seed. ``finetune`` takes ``finetune_steps`` (default a quarter) at ``finetune_rate`` of the
    rate, constant; ``finetune_full_lr`` the whole recipe again from the inherited weights. ``uniform`` builds the small
    dense net that no pruner chose. ``fresh`` draws the pruned architecture anew.
    """
    unknown = set(arms) - set(ARMS)
    require(not unknown, "arms", sorted(unknown), f"of {', '.join(ARMS)}")
    require(uniform is not None or "small_dense_uniform" not in arms, "uniform", uniform, "a network, for that arm")
    few = finetune_steps or max(1, recipe.steps // 4)
    short = replace(recipe, steps=few, learning_rate=recipe.learning_rate * finetune_rate, decay=constant)
    table = {name: Arm(name) for name in arms}
    for seed in seeds:
        dense = drawn(build, seed)
        train(dense, task, recipe, order=seed)
        pruned, masks = shrink(copy.deepcopy(dense))
        costs = macs(dense, task.example), macs(pruned, task.example, masks)
        long = scratch_budget(recipe.steps, *costs)
        most = long if cap is None else min(long, round(cap * recipe.steps))
        shape = partial(fresh, pruned) if masks is None else build  # what draws the pruned architecture anew
        # arm: what draws its network (None: the pruned one as it is), its masks, its recipe
        plans = {
            "finetune": (None, masks, short),
            "finetune_full_lr": (None, masks, recipe),
            "scratch_E": (shape, masks, recipe),
            "scratch_B": (shape, masks, replace(recipe, steps=most)),
            "small_dense_uniform": (uniform, None, recipe),
        }
        for name, arm in table.items():
            if name == "dense":
                model, kept, arm.steps = dense, None, recipe.steps
            else:
                source, kept, used = plans[name]
                own_seed = mixed_seed(seed, 2 + ARMS.index(name))
                model = drawn(source, own_seed) if source else copy.deepcopy(pruned)
                done = train(model, task, used, order=mixed_seed(seed, 1), masks=kept)
                arm.steps = done.steps + (0 if source else recipe.steps)
            arm.scores.append(task.evaluate(model, split).score)
            arm.macs = macs(model, task.example, kept)
            arm.capped = name == "scratch_B" and most < long
    return table
