"""The training loop that all methods share: small, seeded, counted, and able to start at any step.

The batch, dropout and the learning rate of a step depend on (order, step) alone. Training W from step k to T is
therefore the same as the second part of training from 0 to T, but for the optimiser's memory, which starts fresh at k
(as in open_lth) unless an optimiser is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from prunus.errors import SettingError, require
from prunus.sparse.holding import Hold
from prunus.sparse.journal import Journal
from prunus.sparse.masks import Masks
from prunus.sparse.rewind import State, snapshot
from prunus.sparse.task import Evaluation, Task, mixed_seed


def constant(progress: float) -> float:
    return 1.0


def cosine(progress: float) -> float:
    """From 1 to 0 by half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def divided_by_ten(progress: float) -> float:
    """1, then .1 from half of the training on, then .01 from three quarters on (cards 21 and 25)."""
    return 0.1 ** sum(progress >= at for at in (0.5, 0.75))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: ``steps`` in all, an optimiser, its rate and how that falls with progress in [0, 1)."""

    steps: int
    learning_rate: float = 1.2e-3
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    decay: Callable[[float], float] = constant
    options: dict = field(default_factory=dict)
    journal: Journal | None = field(default=None, compare=False)
    """Writes all trainings of a run down, so that a killed one goes on, and tells how far they are."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")

    @classmethod
    def sgd(cls, steps: int, learning_rate: float = 0.1, decay: Callable[[float], float] = cosine) -> Recipe:
        """Nesterov momentum 0.9, weight decay 5e-4: what cards 25 and 48 train with."""
        options = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        return cls(steps, learning_rate, torch.optim.SGD, decay, options)

    def rate(self, step: int) -> float:
        return self.learning_rate * self.decay(step / self.steps)

    def optimiser_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return self.optimiser([p for p in parameters if p.requires_grad], lr=self.learning_rate, **self.options)


@dataclass
class Training:
    """What a training did: gradient steps, (step, evaluation on validation) as often as asked for, and the state with
    the best validation score (of equals the first)."""

    steps: int = 0
    curve: list[tuple[int, Evaluation]] = field(default_factory=list)
    best: State | None = None
    masks: Masks = field(default_factory=lambda: Masks({}))
    """Those held at the end."""

    @property
    def early_stop(self) -> int:
        """The step of the smallest validation loss; the first of equals. The usual proxy for speed (card 12)."""
        if not self.curve:
            raise SettingError("no validation loss was recorded; train with every = a number of steps")
        return min(self.curve, key=lambda point: point[1].loss)[0]

    def steps_to(self, score: float) -> int | None:
        """The first recorded step at which the validation score is at least ``score``."""
        return next((step for step, seen in self.curve if seen.score >= score), None)


def early_stop_iteration(losses: Sequence[float], every: int) -> int:
    """The iteration of the smallest loss of a curve that was taken each ``every`` iterations, from ``every`` on."""
    return every * (1 + min(range(len(losses)), key=losses.__getitem__))


class Stateful(Protocol):
    """What hooks of a training remember beyond the masks: tensors and numbers by name, as in torch."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def train(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    order: int = 0,
    start: int = 0,
    stop: int | None = None,
    masks: Masks | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    every: int = 0,
    before_step: Callable[[int, Hold], None] | None = None,
    after_step: Callable[[int, Hold], None] | None = None,
    keeps: Mapping[str, Stateful] | None = None,
) -> Training:
    """Train ``model`` in place from step ``start`` to ``stop`` (default: the recipe's end) with data order ``order``.

    ``masks`` are held (weights and optimiser state, never ``.grad``). ``before_step(steps done, hold)`` runs when the
    gradients of the batch are there and the weights are still those that they were taken at; ``after_step`` after the
    step, with the gradients intact, and may set ``hold.masks``. ``every`` n steps, and at the end,
    validation is evaluated. ``keeps``: what the hooks remember, so that the journal writes it down too. Raises
    SettingError if the loss is not a number.
    """
    stop = recipe.steps if stop is None else stop
    require(0 <= start <= stop <= recipe.steps, "start, stop", (start, stop), f"in order, from 0 to {recipe.steps}")
    if optimiser is None:
        optimiser = recipe.optimiser_of(model.parameters())
    done = Training()
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(devices, key=str)), Hold(masks or Masks({}), model, optimiser) as hold:
        place = {"order": order, "start": start, "stop": stop, "of": recipe.steps}
        entry = (recipe.journal or Journal()).begin(place, model, optimiser, hold, done, keeps or {})
        for step in range(entry.restore(), stop):
            torch.manual_seed(mixed_seed(order, step))  # dropout and augmentation
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step)
            optimiser.zero_grad()
            model.train()
            loss = task.loss(model, task.batch(order, step))
            if not math.isfinite(float(loss.detach())):
                raise SettingError(
                    f"the loss is {float(loss.detach())} at step {step}; "
                    f"try a smaller learning_rate than {recipe.learning_rate}"
                )
            loss.backward()
            if before_step:
                before_step(step, hold)
            optimiser.step()
            done.steps += 1
            if after_step:
                after_step(step + 1, hold)
            if every and ((step + 1) % every == 0 or step + 1 == stop):
                seen = task.evaluate(model, "validation")
                if seen.score > max((before.score for _, before in done.curve), default=-math.inf):
                    done.best = snapshot(model)
                done.curve.append((step + 1, seen))
            entry.note(step + 1, float(loss.detach()))
        done.masks = hold.masks
    return done


def pretrained(model: nn.Module, task: Task, recipe: Recipe, steps: int | None, seed: int) -> int:
    """Train the dense ``model`` in place for ``steps`` (None: the recipe's; 0: it is trained already), with the
    schedule stretched to them; returns how many it took."""
    if steps == 0:
        return 0
    return train(model, task, recipe if steps is None else replace(recipe, steps=steps), order=seed).steps
