"""SAP: sparsity-informed adaptive pruning (card 48, arXiv 2302.05601).

Train from theta_0 with the mask; take the best state on validation; for each unit (a row, a layer, or all) read the PQ
index of its kept weights, prune the c smallest of them, c = floor(d clip(gamma (1 - ceil(r)/d), 0, beta)); go back to
theta_0; repeat. Where weights are spread evenly little is cut, so it slows down by itself; eta > 0 or gamma > 1 is
faster. How far it goes is what the index says; with a ``density`` the round that would go below it prunes exactly to
it, the smallest of what the index gave up, and is the last; if none does, the last one also prunes the smallest of all
that are too many *(inferred, for comparisons at equal density)*.

Published code takes the best state on the *test* set, keeps all weights that tie with the threshold, and has global
scope, which is worse than both others at small densities. Here the validation set chooses and ties follow ``exact.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import require
from prunus.sparse.exact import keep_largest, largest_in_rows
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.pq_index import PQIndex
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, train


@dataclass(frozen=True)
class SAPStatistics:
    """By layer, or under ``all``: the index I, the bound r and the count c; tensors of one number a row, or scalars."""

    index: dict[str, Tensor]
    bound: dict[str, Tensor]
    pruned: dict[str, Tensor]

    @property
    def mean_index(self) -> float:
        return float(torch.cat([i.flatten() for i in self.index.values()]).mean())


@dataclass
class SAPFound(Sparsified):
    statistics: list[SAPStatistics] = field(default_factory=list)


@dataclass(frozen=True)
class SAP:
    scope: str = "layer"
    rounds: int = 30
    p: float = 0.5
    q: float = 1.0
    eta: float = 0.0
    gamma: float = 1.0
    beta: float = 0.9
    density: float | None = None
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "SAP",
        "48",
        frozenset({"unstructured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        iterative=True,
        retrain="rewind",
        kind=frozenset({"lottery_ticket"}),
    )

    def __post_init__(self) -> None:
        require(self.scope in ("neuron", "layer", "global"), "scope", self.scope, "neuron, layer or global")
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        require(self.density is None or 0 < self.density < 1, "density", self.density, "above 0 and below 1")
        _ = self.allocation  # checks the others

    @property
    def taxonomy(self) -> MethodCard:
        return replace(self.card, scope="global" if self.scope == "global" else "local")

    @property
    def allocation(self) -> PQIndex:
        over = "global" if self.scope == "global" else "layer"
        return PQIndex(self.p, self.q, self.eta, self.gamma, self.beta, over)

    def prune(self, weights: dict[str, Tensor], masks: Masks) -> tuple[Masks, SAPStatistics]:
        """One round's masks, from trained weights."""
        scores = {name: weights[name].detach().abs() for name in masks}
        if self.scope == "global":
            values = torch.cat([s.flatten() for s in scores.values()])
            read = {"all": self.allocation.read(values, torch.cat([mask.flatten() for mask in masks.values()]))}
        else:
            read = {n: self.allocation.read(s, masks[n], rows=self.scope == "neuron") for n, s in scores.items()}
        if self.scope == "neuron":
            new = {}
            for name, s in scores.items():
                mask = masks[name].flatten(1)
                new[name] = largest_in_rows(s.flatten(1), mask.sum(-1) - read[name][2], mask, name).view(s.shape)
        else:
            new = keep_largest(scores, self.allocation.counts(scores, masks), masks, floor=1)
        least = 0 if self.density is None else round(self.density * sum(mask.numel() for mask in masks.values()))
        if (missing := least - sum(int(mask.sum()) for mask in new.values())) > 0:
            back = keep_largest(scores, missing, {name: masks[name] & ~mask for name, mask in new.items()})
            new = {name: mask | back[name] for name, mask in new.items()}
        index, bound, pruned = ({name: found[i] for name, found in read.items()} for i in range(3))
        return Masks(new), SAPStatistics(index, bound, pruned)

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> SAPFound:
        """``every`` steps the validation set is asked which state is the best (default: four times a training)."""
        every = every or max(1, recipe.steps // 4)
        model: nn.Module = drawn(build, seed)
        initial, masks, steps = snapshot(model), Masks.of(model, self.exclude), 0
        levels, statistics = [], []
        for round_ in range(self.rounds + 1):
            rewind(model, initial, masks)
            done = train(model, task, recipe, order=mixed_seed(seed, round_), masks=masks, every=every)
            steps += done.steps
            assert done.best is not None
            rewind(model, done.best)
            levels.append(Level(masks, task.evaluate(model, "validation"), steps, done.early_stop))
            if self.density is not None and masks.kept <= round(self.density * masks.total):
                break
            if round_ < self.rounds:
                weights = {name: w.detach() for name, w in masks.weights(model).items()}
                masks, read = self.prune(weights, masks)
                statistics.append(read)
                if round_ == self.rounds - 1 and self.density is not None:
                    least = round(self.density * masks.total)
                    masks = Masks(keep_largest({n: w.abs() for n, w in weights.items()}, least, masks, floor=1))
        return SAPFound(model, masks, steps, levels, statistics)
