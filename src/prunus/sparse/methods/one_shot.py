"""One-shot pruning: the composition that every comparison has beside its method.

At initialisation (SNIP, GraSP, SynFlow, random) or after dense training (magnitude, Taylor, ...): score once, prune
once to ``density``, then train: from scratch to the end if nothing was trained before, else ``finetune`` steps at a
constant fraction of the rate, or ``rewind`` to theta_0 and train again, or ``scratch``: the mask on fresh weights, or
nothing (batch norms' statistics are then computed anew).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from prunus.errors import require
from prunus.sparse.allocation import Allocation, Global
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.importance import Importance, Magnitude
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune, prune_in_rounds
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.scope import NofM, Scope, Units, Weights
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, constant, pretrained, train

RETRAIN = ("none", "finetune", "rewind", "scratch")


@dataclass(frozen=True)
class OneShot:
    """``rounds`` > 1 scores and prunes in that many rounds without training between (SynFlow: 100). ``pretrain``: the
    steps of dense training before (None: the recipe's; 0: ``build`` gives trained weights)."""

    density: float = 0.1
    importance: Importance = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Global)
    scope: Scope = field(default_factory=Weights)
    at: str = "trained"
    retrain: str = "finetune"
    finetune_steps: int | None = None
    finetune_rate: float = 0.1
    rounds: int = 1
    pretrain: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(0 < self.density < 1, "density", self.density, "above 0 and below 1")
        require(self.at in ("init", "trained"), "at", self.at, "init or trained")
        require(self.retrain in RETRAIN, "retrain", self.retrain, ", ".join(RETRAIN))
        require(self.finetune_rate > 0, "finetune_rate", self.finetune_rate, "a positive share of the learning rate")
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")

    @property
    def taxonomy(self) -> MethodCard:
        """Follows from the parts: what is scored when, and what is pruned as one."""
        speedup, granularity = {NofM: ("semi_structured", "W"), Units: ("structured", "N")}.get(
            type(self.scope), ("unstructured", "W")
        )
        kinds = {"none": "post_training", "finetune": "train_prune_finetune", "rewind": "lottery_ticket"}
        at_init = self.at == "init"
        return MethodCard(
            f"one-shot {type(self.importance).__name__}",
            "baseline",
            frozenset({speedup}),
            "before_training" if at_init else "after_training",
            criteria=frozenset({getattr(self.importance, "criterion", "sensitivity")}),
            granularity=frozenset({granularity}),
            data=getattr(self.importance, "data", "driven"),
            weights="init" if at_init else "pretrained",
            retrain="none" if at_init else self.retrain,
            scope="global" if isinstance(self.allocation, Global) else "local",
            kind=frozenset() if at_init or self.retrain not in kinds else frozenset({kinds[self.retrain]}),
        )

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        initial, steps = snapshot(model), 0
        if self.at == "trained":
            steps += pretrained(model, task, recipe, self.pretrain, seed)
        masks = Masks.of(model, self.exclude)
        parts = (self.importance, self.allocation, self.scope, task)
        masks = (
            prune(model, masks, self.density, *parts)
            if self.rounds == 1
            else prune_in_rounds(model, masks, self.density, self.rounds, *parts)
        )
        masks.apply(model)
        order = mixed_seed(seed, 1)
        if self.at == "trained" and self.retrain == "rewind":
            rewind(model, initial, masks)
        if self.at == "trained" and self.retrain == "scratch":
            model = drawn(build, mixed_seed(seed, 2))  # a seed of its own: the dense one would make it a lottery ticket
        if self.at == "init" or self.retrain in ("rewind", "scratch"):
            steps += train(model, task, recipe, order=order, masks=masks, every=every).steps
        elif self.retrain == "finetune":
            tune = replace(
                recipe,
                steps=self.finetune_steps or recipe.steps,
                learning_rate=recipe.learning_rate * self.finetune_rate,
                decay=constant,
            )
            steps += train(model, task, tune, order=order, masks=masks, every=every).steps
        else:
            recompute_statistics(model, task)
        return Sparsified(model, masks, steps, [Level(masks, task.evaluate(model, "validation"), steps)])
