"""Lottery jackpots: masks searched on frozen pre-trained weights (card 42, arXiv 2104.08700).

The weights never change. Each has a real score s, and the mask b is trained by the straight-through gradient
dL/ds = w dL/dz at z = b * w. Scores start almost flat, 1 where the **magnitude** mask keeps and 1 - ``score_gap`` where
it does not, so that this mask is the prior and few steps can flip an entry. How much each layer keeps comes from one
magnitude threshold over all layers, or is the same for all, and is conserved.

After each step, with n the pruned entries of a layer and thr its n-th smallest score: grow = {b = 0, s > thr} in the
order of the largest s, drop = {b = 1, s <= thr} in that of the smallest. Without restriction all that want to grow do,
which makes b the top k of s (of equals the kept). The **short restriction** swaps ceil(p(t) count) of them only, with
p(t) = (1 - t/T)^4: flips of weights that depend on each other can raise the loss together. Its form is *inferred* from
the code: the paper's own schedule and cap were not read.

Defaults: SGD .1 with a cosine, momentum .9, weight decay 5e-4 on the scores (CIFAR), gap .01, classifier left dense by
``exclude``. Running statistics of batch norms move during the search and are computed anew after it.

``published()`` switches the restriction off, as both released scripts do in effect: one takes ceil((1 - t/T)^4), which
is 1 in every epoch, the other computes a rate and returns 1. (A later revision of the first also searches in *random*
weights: it builds the model anew after loading and never loads again.) ``init="random"`` is the control that says what
the magnitude start is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import require
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.exact import largest
from prunus.sparse.holding import Hold
from prunus.sparse.importance import Magnitude
from prunus.sparse.journal import Journal
from prunus.sparse.learned import Scored
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Sparsified, finished
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, cosine, pretrained, train


def short(progress: float) -> float:
    """The share of the wanted swaps that is made at a progress in [0, 1] of the search: (1 - progress)^4."""
    return (1 - min(max(progress, 0.0), 1.0)) ** 4


def swapped(scores: Mapping[str, Tensor], masks: Masks, share: float = 1.0) -> Masks:
    """Masks after the swaps of one step, ceil(share * wanted) in each layer; every layer keeps its count."""
    require(0 <= share <= 1, "share", share, "from 0 to 1")
    new = {}
    for name, mask in masks.items():
        score, pruned = scores[name].detach(), int((~mask).sum())
        if pruned == 0:
            new[name] = mask
            continue
        threshold = score.flatten().kthvalue(pruned).values
        grow, drop = ~mask & (score > threshold), mask & (score <= threshold)
        swaps = math.ceil(share * int(grow.sum()) - 1e-9)
        new[name] = mask & ~largest(-score, swaps, drop, name) | largest(score, swaps, grow, name)
    return masks.changed(new)


@dataclass(frozen=True)
class Jackpots:
    """``search_steps`` None: the recipe's. ``restrict`` maps progress to the share of swaps, None for all of them."""

    density: float = 0.1
    rates: str = "global"
    init: str = "magnitude"
    score_gap: float = 0.01
    restrict: Callable[[float], float] | None = short
    search_steps: int | None = None
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    pretrain: int | None = None
    finetune_steps: int = 0
    finetune_rate: float = 0.1
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "lottery jackpots",
        "42",
        frozenset({"unstructured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        learn=frozenset({"learned_scores"}),
        iterative=True,
        data="driven",
        retrain="none",
    )

    def __post_init__(self) -> None:
        require(0 < self.density < 1, "density", self.density, "above 0 and below 1")
        require(self.rates in ("global", "uniform"), "rates", self.rates, "global or uniform")
        require(self.init in ("magnitude", "random"), "init", self.init, "magnitude or random")
        require(0 <= self.score_gap <= 1, "score_gap", self.score_gap, "from 0 to 1")
        require(self.search_steps is None or self.search_steps >= 1, "search_steps", self.search_steps, "at least 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")
        require(self.finetune_steps >= 0, "finetune_steps", self.finetune_steps, "at least 0")
        require(self.finetune_rate > 0, "finetune_rate", self.finetune_rate, "positive")

    @classmethod
    def published(cls, density: float = 0.1, **changes: Any) -> Jackpots:
        """As the released code runs: no restriction."""
        return cls(density, **{"restrict": None, **changes})

    @property
    def taxonomy(self) -> MethodCard:
        # swaps stay inside a layer; only where the layers' counts come from is global
        retrain = "finetune" if self.finetune_steps else "none"
        return replace(self.card, retrain=retrain, scope="global" if self.rates == "global" else "local")

    def first_masks(self, model: nn.Module, seed: int = 0) -> Masks:
        """The magnitude mask, or, with as many in each layer, a random one."""
        rates = Global() if self.rates == "global" else Uniform()
        masks = prune(model, Masks.of(model, self.exclude), self.density, Magnitude(), rates)
        return masks if self.init == "magnitude" else masks.shuffled(mixed_seed(seed, 2))

    def first_scores(self, masks: Masks) -> dict[str, Tensor]:
        return {name: 1 - self.score_gap * (~mask).float() for name, mask in masks.items()}

    def search(
        self, model: nn.Module, task: Task, masks: Masks, steps: int, order: int = 0, journal: Journal | None = None
    ) -> Masks:
        """``steps`` gradient steps from ``masks`` on the model's weights, which stay as they are, bit by bit."""
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        recipe = Recipe(steps, self.learning_rate, torch.optim.SGD, cosine, options, journal)
        network = Scored(model, masks, self.first_scores(masks))

        def swap(done: int, hold: Hold) -> None:
            share = 1.0 if self.restrict is None else self.restrict((done - 1) / steps)
            network.masks = swapped(network.scores, network.masks, share)

        train(
            network, task, recipe, order=order, optimiser=recipe.optimiser_of(network.scores.values()), after_step=swap
        )
        return network.masks

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        before = pretrained(model, task, recipe, self.pretrain, seed)
        steps = self.search_steps or recipe.steps
        masks = self.search(model, task, self.first_masks(model, seed), steps, mixed_seed(seed, 1), recipe.journal)
        tune = self.finetune_steps, self.finetune_rate, mixed_seed(seed, 3)
        return finished(model, masks, task, recipe, before + steps, *tune)
