"""Masks that are given: from a file, from torch's own pruning, or found on another network of the same shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prunus.errors import require
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, pretrained, train


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Put ``masks`` on, after ``pretrain`` steps of dense training as in ``OneShot``; then, if ``tune``, train on.

    ModelError if the masks are of another model.
    """

    masks: Masks
    pretrain: int | None = None
    tune: bool = True

    card: ClassVar[MethodCard] = MethodCard(
        "given masks",
        "baseline",
        frozenset({"unstructured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        kind=frozenset({"train_prune_finetune"}),
    )

    def __post_init__(self) -> None:
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        self.masks.weights(model)
        steps = pretrained(model, task, recipe, self.pretrain, seed)
        self.masks.apply(model)
        if self.tune:
            order = mixed_seed(seed, 1)
            steps += train(model, task, recipe, order=order, masks=self.masks, every=every).steps
        else:
            recompute_statistics(model, task)
        return Sparsified(model, self.masks, steps, [Level(self.masks, task.evaluate(model, "validation"), steps)])
