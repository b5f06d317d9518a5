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
    """One row: test scores by seed, gradient steps a seed (the dense training included where its weights are used),
    MACs of a row of input, and training MACs in forward passes; ``capped`` if Scratch-B was cut short."""

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
    require(
        "small_dense_uniform" not in arms or uniform is not None, "uniform", uniform, "given for small_dense_uniform"
    )
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

        def record(
            name: str, model: nn.Module, steps: int, cost: float, capped: bool = False, seed: int = seed
        ) -> None:
            arm = table[name]
            arm.scores.append(task.evaluate(model, split).score)
            arm.steps, arm.macs, arm.capped = steps, cost, capped

        for name in arms:
            if name == "dense":
                record(name, dense, recipe.steps, costs[0])
                continue
            if name.startswith("finetune"):
                model, used, before = copy.deepcopy(pruned), short if name == "finetune" else recipe, recipe.steps
            else:
                source = (
                    uniform if name == "small_dense_uniform" else build if masks is not None else partial(fresh, pruned)
                )
                assert source is not None
                model, before = drawn(source, mixed_seed(seed, 2 + ARMS.index(name))), 0
                used = replace(recipe, steps=most) if name == "scratch_B" else recipe
            kept = None if name == "small_dense_uniform" else masks
            done = train(model, task, used, order=mixed_seed(seed, 1), masks=kept)
            cost = macs(model, task.example, kept)
            record(name, model, before + done.steps, cost, name == "scratch_B" and most < long)
    return table
