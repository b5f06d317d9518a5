"""What ``prunus sparsify`` is asked to do: all that a run needs to be made again, or to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from prunus.commands.output import read_run
from prunus.commands.sparse_methods import Wish
from prunus.errors import FileError, require
from prunus.sparse.masks import Masks, prunable
from prunus.sparse.models import Prunable, load
from prunus.sparse.torch_prune import read_torch_prune
from prunus.sparse.training import Recipe, cosine

OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),  # cards 25 and 48
}
RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.1}
TUNED = 0.1
"""Trained weights are trained on at so much of the rate."""


@dataclass(frozen=True)
class SparsifyJob:
    """All that a run needs to be made again, or to go on: ``run.json``."""

    model: str
    data: list[str] = field(default_factory=list)
    method: str = "one-shot"
    sparsities: list[float] = field(default_factory=list)
    macs: list[float] = field(default_factory=list)
    structured: str | None = None
    pattern: list[int] | None = None
    importance: str | None = None
    reward: str | None = None
    masks: str | None = None
    exclude: list[str] = field(default_factory=list)
    round_to: int = 1
    steps: int | None = None
    optimiser: str = "adam"
    learning_rate: float | None = None
    seed: int = 0
    seeds: int = 1
    baselines: bool = True
    torch_prune: bool = False
    every: int = 200
    loading: dict[str, Any] = field(default_factory=dict)
    """Settings of the model and its data: batch_size, length, device, ..."""

    def __post_init__(self) -> None:
        require(self.optimiser in OPTIMISERS, "--optimiser", self.optimiser, f"one of {', '.join(OPTIMISERS)}")
        both = (self.sparsities, self.macs)
        require(not (self.sparsities and self.macs), "--sparsity, --macs", both, "one of them, above 0 and below 1")
        rate = self.learning_rate
        require(rate is None or rate > 0, "--lr", rate, "positive")
        require(self.steps is None or self.steps >= 0, "--steps", self.steps, "at least 0")
        require(self.seeds >= 1, "--seeds", self.seeds, "at least 1")

    @classmethod
    def load(cls, folder: Path) -> SparsifyJob:
        """Raises FileError if the folder holds no run of this command."""
        data = read_run(folder, "sparsify")
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except (KeyError, TypeError) as error:
            raise FileError(f"{folder / 'run.json'} is damaged ({error}); the run cannot go on") from error

    def prunable(self) -> Prunable:
        return load(self.model, self.data, **self.loading)

    def steps_of(self, model: Prunable) -> int:
        """As asked for; else none for a trained model, 1000 for one that is not."""
        return self.steps if self.steps is not None else 0 if model.pretrained else 1000

    def recipe(self, model: Prunable) -> Recipe:
        make, options = OPTIMISERS[self.optimiser]
        rate = self.learning_rate or RATES[self.optimiser] * (TUNED if model.pretrained else 1.0)
        return Recipe(max(1, self.steps_of(model)), rate, make, cosine, options)

    def wishes(self, model: Prunable) -> dict[str, Wish]:
        """A wish for each level of pruning, by the name of its folder."""
        masks = read_masks(Path(self.masks)) if self.masks else None
        wish = Wish(
            model,
            structured=self.structured,
            pattern=(self.pattern[0], self.pattern[1]) if self.pattern else None,
            steps=self.steps_of(model),
            importance=self.importance,
            reward=self.reward,
            masks=masks,
            exclude=tuple(self.exclude) or model.exclude(),
            round_to=self.round_to,
        )
        prunable(model.build(), wish.exclude)  # says what is wrong before anything is trained
        levels: list[tuple[str, dict[str, Any]]]
        levels = [(f"sparsity-{s:g}", {"sparsity": s}) for s in self.sparsities]
        levels += [(f"macs-{m:g}", {"macs": m}) for m in self.macs]
        if len(levels) < 2:
            return {"model": replace(wish, **(levels[0][1] if levels else {}))}
        return {name: replace(wish, **much) for name, much in levels}


def read_masks(path: Path) -> Masks:
    """A file of ``Masks.save``, or safetensors of a model that torch.nn.utils.prune has pruned."""
    try:
        return Masks.load(path)
    except FileError as error:
        try:
            return read_torch_prune(path)
        except FileError:
            raise error from None
