"""One-shot pruning of a trained network, layer by layer on calibration data, without training: SparseGPT and Wanda.

What they share: dense training if there was none, a pass over the layers (``calibration.layer_by_layer``), and how many
weights of a layer stay: ``density`` of each (allocation uniform, as in both papers), or ``n`` of each ``m`` along the
input. A subclass says what is gathered of a layer's input, and what becomes of its weight.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunus.errors import SettingError, require
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.calibration import inputs_first, layer_by_layer
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.task import Task
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, pretrained


@dataclass(frozen=True)
class LayerByLayer:
    """``m`` = 0: single weights. ``batches`` of the task calibrate, in the order ``order`` (None: of the run's seed).
    ``pretrain``: the steps of dense training before (None: the recipe's; 0: ``build`` gives trained weights)."""

    density: float = 0.5
    n: int = 0
    m: int = 0
    batches: int = 8
    order: int | None = None
    pretrain: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(0 < self.density < 1, "density", self.density, "above 0 and below 1")
        require(self.m == self.n == 0 or 1 <= self.n < self.m, "n, m", (self.n, self.m), "1 <= n < m, or both 0")
        require(self.batches >= 1, "batches", self.batches, "at least 1")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")

    def _card(self, name: str, paper: str, criterion: str) -> MethodCard:
        return MethodCard(
            name,
            paper,
            frozenset({"semi_structured" if self.m else "unstructured"}),
            "after_training",
            criteria=frozenset({criterion}),
            data="driven",
            weights="pretrained",
            retrain="none",
            scope="local",
            kind=frozenset({"post_training"}),
        )

    @abstractmethod
    def gather(self, x: Tensor) -> Tensor:
        """What is summed over a layer's input features (rows, features)."""

    @abstractmethod
    def pruned(self, weight: Tensor, among: Tensor, gathered: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The new weight (outputs, features) in float32 and which of it is kept, of those in ``among``."""

    def prune(self, model: nn.Module, masks: Masks, task: Task, order: int = 0) -> Masks:
        """Prune ``model`` in place; the new masks are within ``masks``. No gradient step is taken."""
        weights, found = masks.weights(model), {}
        turned = {name for name in weights if inputs_first(model.get_submodule(name.rpartition(".")[0]))}

        def rows(name: str, of_weight: Tensor) -> Tensor:
            """(outputs, features)"""
            return of_weight.T if name in turned else of_weight.flatten(1)

        for name, weight in weights.items():
            if self.m and (inputs := rows(name, weight).shape[1]) % self.m:
                raise SettingError(f"{name} has {inputs} inputs, which {self.m} does not divide; exclude it")

        def visit(gathered: dict[str, Tensor]) -> None:
            for name, what in gathered.items():
                weight, among = weights[name].detach(), rows(name, masks[name].to(weights[name].device))
                new, kept = self.pruned(rows(name, weight).float() * among, among, what, name)
                new, kept = (part.T if name in turned else part for part in (new, kept))
                weight.copy_(new.reshape(weight.shape))  # not into rows: of a weight in channels_last that is a copy
                found[name] = kept.reshape(weight.shape)

        masks.apply(model)
        order = order if self.order is None else self.order
        layer_by_layer(model, masks, task, self.batches, order, self.gather, visit)
        return masks.changed(found)

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        steps = pretrained(model, task, recipe, self.pretrain, seed)
        masks = self.prune(model, Masks.of(model, self.exclude), task, seed)
        with torch.no_grad():
            recompute_statistics(model, task)
        return Sparsified(model, masks, steps, [Level(masks, task.evaluate(model, "validation"), steps)])
