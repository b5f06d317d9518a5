"""BiP: pruning as a bi-level problem (card 22, arXiv 2210.04092).

min over m of l(m * theta(m)), where theta(m) minimises l(m * theta) + gamma/2 |theta|^2. From pre-trained theta, with
the target density from the first step on, an iteration has two gradients:

 a) theta-step, batch 1: theta <- theta - alpha (m * dl/dz + decay theta), z = m * theta; pruned weights keep theirs;
 b) m-step, batch 2, at the *new* theta: s <- clip(s - beta dl/dm, 0, 1), m <- the largest s, with

    dl/dm = theta * dl/dz - (1/gamma) m * (dl/dz)^2.

The second term is the **implicit gradient** (*inferred*: theta(m) is differentiated by its stationarity, with l's
Hessian taken as 0, as for ReLU networks). It is never positive on dl/dm: it raises the scores of kept weights only.
``use_implicit=False`` leaves it out, the baseline that has to stand beside it.

All of a weight's shape. Defaults: alpha .1, beta .1, momentum .9 and decay 1e-4 are the code's for small images (the
paper states alpha .01 for all experiments: much too slow for some hundred iterations); theta's rate falls by a cosine,
the mask's by ten at half and at three quarters. s starts at |theta| (the code: theta).

*Inferred* too: the projection on the box, and that gamma and the weights' decay are two numbers. In the derivation they
are one, but the decay that was published (1e-4) would multiply the implicit term by 10 000, and gamma = 1 as a decay
would shrink theta to nothing in a hundred steps.

``published()`` is what the code computes. Its implicit term is the product of two flattened gradients whose weights'
slots are empty, so that - lr2 (dl/ds)^2 reaches the scores, with lr2 = 1e-4 next to nothing; s starts signed, |s| is
ranked, nothing is clipped. Not kept of it: the mask's optimiser that also decays the weights, batch norms that train in
both steps, and the test set choosing the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunus.errors import require
from prunus.sparse.allocation import Allocation, Global, Uniform
from prunus.sparse.learned import Masked, ScoreDescent, gradients_at_product, keep_best
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Sparsified, finished
from prunus.sparse.networks import drawn
from prunus.sparse.scope import Scope, Weights, channels
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, cosine, divided_by_ten, pretrained, train

SCOPES = {"weight": "W", "filter": "F", "channel": "C"}


def hypergradient(theta: Tensor, grad_z: Tensor, m: Tensor, gamma: float | None = 1.0) -> Tensor:
    """theta grad_z - m grad_z^2 / gamma, element by element; ``gamma`` None leaves the implicit term out."""
    direct = theta * grad_z
    return direct if gamma is None else direct - m * grad_z.square() / gamma


@dataclass(frozen=True)
class BiP:
    """``scope``: single weights over all layers, or filters (outputs) or channels (inputs) within each layer by the
    norm of their scores. ``iterations`` has two gradients each (None: half the recipe's steps). ``allocation`` None is
    ``Global`` with a floor of one weight a layer, ``Uniform`` for filters and channels. Fine-tuning with the mask fixed
    is for less than 1 % of the weights, says the paper."""

    density: float = 0.1
    scope: str = "weight"
    iterations: int | None = None
    use_implicit: bool = True
    gamma: float = 1.0
    alpha: float = 0.1
    beta: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    form: str = "derived"
    allocation: Allocation | None = None
    pretrain: int | None = None
    finetune_steps: int = 0
    finetune_rate: float = 0.1
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "BiP",
        "22",
        frozenset({"unstructured"}),
        "after_training",
        learn=frozenset({"learned_scores"}),
        iterative=True,
        data="driven",
        retrain="none",
        scope="global",
    )

    def __post_init__(self) -> None:
        require(0 < self.density < 1, "density", self.density, "above 0 and below 1")
        require(self.scope in SCOPES, "scope", self.scope, ", ".join(SCOPES))
        require(self.form in ("derived", "published"), "form", self.form, "derived or published")
        for name in ("gamma", "alpha", "beta", "finetune_rate"):
            require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.iterations is None or self.iterations >= 1, "iterations", self.iterations, "at least 1")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")
        require(self.finetune_steps >= 0, "finetune_steps", self.finetune_steps, "at least 0")

    @classmethod
    def published(cls, density: float = 0.1, **changes: Any) -> BiP:
        """The code's form: its implicit term with lr2 = 1/gamma = 1e-4, signed scores, no box."""
        return cls(density, **{"form": "published", "gamma": 1e4, **changes})

    @property
    def taxonomy(self) -> MethodCard:
        return replace(
            self.card,
            speedup=frozenset({"unstructured" if self.scope == "weight" else "structured"}),
            granularity=frozenset({SCOPES[self.scope]}),
            retrain="finetune" if self.finetune_steps else "none",
            scope="global" if isinstance(self.allocated, Global) else "local",
        )

    @property
    def allocated(self) -> Allocation:
        return self.allocation or (Global() if self.scope == "weight" else Uniform())

    def first_scores(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """|theta|, in the box; as published, theta."""
        start = {name: weight.detach().clone() for name, weight in weights.items()}
        return start if self.form == "published" else {name: s.abs_().clamp_(max=1) for name, s in start.items()}

    def gradient(self, weight: Tensor, grad_z: Tensor, mask: Tensor, score: Tensor) -> Tensor:
        """The direction in which ``score`` descends, of the weight's shape."""
        if self.form == "derived":
            return hypergradient(weight.detach(), grad_z, mask, self.gamma if self.use_implicit else None)
        direct = weight.detach() * grad_z * score.sign()  # |s| is ranked
        return direct - direct.square() / self.gamma if self.use_implicit else direct

    def projection(self, masks: Masks) -> Callable[[Mapping[str, Tensor]], Masks]:
        """From scores to masks of the density."""
        scope: Scope = Weights()
        if self.scope != "weight":
            scope = channels(masks, reduce="norm", inputs=self.scope == "channel")
        best = keep_best(self.density, self.allocated, scope)
        if self.form == "derived":
            return best
        return lambda scores: best({name: s.abs() for name, s in scores.items()})

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        before = pretrained(model, task, recipe, self.pretrain, seed)
        iterations = self.iterations or max(1, recipe.steps // 2)
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        lower = Recipe(iterations, self.alpha, torch.optim.SGD, cosine, options, recipe.journal)
        upper = Recipe(iterations, self.beta, decay=divided_by_ten)
        dense = Masks.of(model, self.exclude)
        weights, project = dense.weights(model), self.projection(dense)
        descent = ScoreDescent(self.first_scores(weights), self.momentum, box=self.form == "derived")
        network = Masked(model, project(descent.scores))
        other_batches = mixed_seed(seed, 2)

        def mask_step(done: int, hold: object) -> None:
            batch, masks = task.batch(other_batches, done - 1), network.masks
            _, at_product = gradients_at_product(model, masks, lambda masked: task.loss(masked, batch))
            scores = descent.scores
            gradients = {n: self.gradient(w, at_product[n], masks[n], scores[n]) for n, w in weights.items()}
            descent.step(gradients, upper.rate(done - 1))
            network.masks = project(scores)

        order, keeps = mixed_seed(seed, 1), {"scores": descent}
        done = train(network, task, lower, order=order, after_step=mask_step, keeps=keeps)
        searched = before + 2 * done.steps
        tune = self.finetune_steps, self.finetune_rate, mixed_seed(seed, 3)
        return finished(model, network.masks, task, recipe, searched, *tune)
