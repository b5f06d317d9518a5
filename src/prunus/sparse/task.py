"""What a network is trained on and judged by: the one thing that a user brings besides the model.

Anything with these four members is a ``Task``; ``Examples`` is the usual one, labelled tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import require

NOT_COUNTED = -100
"""A target that counts neither in the loss nor in the score, as in torch's cross-entropy."""


@dataclass(frozen=True)
class Evaluation:
    """``loss``, and ``score``: higher is better (accuracy; minus perplexity; a judge's score)."""

    loss: float
    score: float


class Task(Protocol):
    """A task may also have ``measures``, a text that says what its score is, for tables."""

    @property
    def example(self) -> Any:
        """The input of one row, as the model takes it: for shapes and for counting."""

    def batch(self, order: int, step: int) -> Any:
        """The batch of a training step. It depends on (order, step) alone, so that training may go on from any step."""

    def loss(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """The mean loss over the batch, a scalar."""

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        """``split`` is ``validation`` (for choosing), ``test`` (to be looked at once), or ``train`` (for diagnosis, as
        connectivity asks)."""


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; nearby ones give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@lru_cache(maxsize=8)
def _order(rows: int, order: int, epoch: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(mixed_seed(order, epoch)))


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (n, ...) and targets (n), or (n, t), for training, validation and test, in batches shuffled each epoch."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    batch_size: int = 60
    criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    measures: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            inputs, targets = getattr(self, name)
            require(len(inputs) == len(targets) > 0, name, (len(inputs), len(targets)), "as many targets as inputs")
        require(1 <= self.batch_size <= len(self.train[0]), "batch_size", self.batch_size, "from 1 to the examples")

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device, where the model is."""
        parts = {name: tuple(t.to(device) for t in getattr(self, name)) for name in ("train", "validation", "test")}
        return replace(self, **parts)  # type: ignore[arg-type]

    @property
    def example(self) -> Tensor:
        return self.train[0][:1]

    def batch(self, order: int, step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.train
        epoch, place = divmod(step, len(inputs) // self.batch_size)
        rows = _order(len(inputs), order, epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return inputs[rows], targets[rows]

    def loss(self, model: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.criterion(model(batch[0]), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        require(split in ("train", "validation", "test"), "split", split, "train, validation or test")
        inputs, targets = getattr(self, split)
        with evaluating(model):
            outputs = torch.cat([model(part) for part in inputs.split(1024)])
        hits = (outputs.argmax(-1) == targets)[targets != NOT_COUNTED].double().mean()
        return Evaluation(float(self.criterion(outputs, targets)), float(hits))


class evaluating:
    """``with evaluating(model):`` the model is in evaluation mode; afterwards each module is as it was."""

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules()]
        self._model = model

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *_: Any) -> None:
        for module, mode in self._modes:
            module.training = mode
