"""Lottery tickets by iterative magnitude pruning (card 12, arXiv 1803.03635).

Draw theta_0. Train; in each layer remove a share of the survivors with the smallest |w|; put the rest back to theta_0;
repeat. After r rounds sum_l N_l (1 - p_l)^r weights are left. ``rewind_to`` = k puts them back to theta_k instead
(card 26, ``IMPRewinding``); 0 is this paper.

Variants: ``rounds=1`` is one-shot. ``between="continue"`` trains on without a reset between rounds and resets at the
end (worse, says the paper). ``scope="global"`` ranks over all layers, with one rate, as for VGG and ResNet.

Published code bases prune one weight too many, and all that tie with it: they zero everything at or below the value at
index k. ``published_google()`` and ``published_open_lth()`` do the same; the default removes exactly k (ties: see
``exact.py``). The data order of the final training differs from those that made the mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from prunus.errors import require
from prunus.sparse.allocation import Remaining
from prunus.sparse.exact import keep_largest
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.tickets import Ticket
from prunus.sparse.training import Recipe, train


@dataclass
class TicketFound(Sparsified):
    """With the ticket itself, so that controls can be run on it."""

    ticket: Ticket | None = None


@dataclass(frozen=True)
class LotteryTicket:
    """``rates``: the share of survivors pruned a round, one number or by layer (shell patterns; others keep all).

    The paper's: .2, the output layer .1, for LeNet; convolutions .1 to .15 for Conv-2/4/6. ``exclude`` has no mask.
    """

    rounds: int = 15
    rates: float | Mapping[str, float] = 0.2
    scope: str = "layer"
    rewind_to: int = 0
    between: str = "rewind"
    count: str = "exact"
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "lottery ticket",
        "12",
        frozenset({"unstructured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        iterative=True,
        retrain="rewind",
        kind=frozenset({"lottery_ticket"}),
    )

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        require(self.scope in ("layer", "global"), "scope", self.scope, "layer or global")
        require(self.rewind_to >= 0, "rewind_to", self.rewind_to, "a step, at least 0")
        require(self.between in ("rewind", "continue"), "between", self.between, "rewind or continue")
        require(self.count in ("exact", "google", "open_lth"), "count", self.count, "exact, google or open_lth")
        Remaining(self.rates)
        one_rate = not isinstance(self.rates, Mapping)
        require(self.scope == "layer" or one_rate, "rates", self.rates, "one number when the scope is global")

    @property
    def taxonomy(self) -> MethodCard:
        scope = "local" if self.scope == "layer" else "global"
        return replace(self.card, scope=scope, iterative=self.rounds > 1)

    @classmethod
    def published_google(cls, **changes: object) -> LotteryTicket:
        """google-research's MNIST code, for a net ``0``, ``2``, ``4`` of three layers: cutoff index round(p n), all at
        or below it go. (It trains with plain SGD .1; the paper with Adam 1.2e-3.)"""
        settings: dict = {"rates": {"[02].weight": 0.2, "4.weight": 0.1}, "count": "google"}
        return cls(**{**settings, **changes})

    @classmethod
    def published_open_lth(cls, output: str, **changes: object) -> LotteryTicket:
        """facebookresearch/open_lth: one threshold, ceil(p n) and one more; the ``output`` layer is not pruned."""
        settings: dict = {"scope": "global", "count": "open_lth", "exclude": (output,)}
        return cls(**{**settings, **changes})

    def prune(self, model: nn.Module, masks: Masks) -> Masks:
        """The masks after one more round, from the weights as trained."""
        scores = {name: w.detach().abs() for name, w in masks.weights(model).items()}
        if self.count != "exact":
            return self._at_or_below(scores, masks)
        if self.scope == "layer":
            return Masks(keep_largest(scores, Remaining(self.rates).counts(scores, masks), masks))
        assert not isinstance(self.rates, Mapping)
        return Masks(keep_largest(scores, masks.kept - round(self.rates * masks.kept), masks, floor=1))

    def _at_or_below(self, scores: dict[str, torch.Tensor], masks: Masks) -> Masks:
        """As published: what is at or below the value at the cutoff index goes."""

        def cutoff(values: torch.Tensor, rate: float) -> torch.Tensor:
            k = round(rate * len(values)) if self.count == "google" else math.ceil(rate * len(values))
            return values.sort().values[min(k, len(values) - 1)]

        if self.scope == "layer":
            of = {n: cutoff(s[masks[n]], Remaining(self.rates).rate(n)) for n, s in scores.items()}
        else:
            assert not isinstance(self.rates, Mapping)
            of = dict.fromkeys(scores, cutoff(torch.cat([s[masks[n]] for n, s in scores.items()]), self.rates))
        return Masks({name: masks[name] & (s > of[name]) for name, s in scores.items()})

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> TicketFound:
        """Find the ticket of the network that ``seed`` draws, and train it; ``levels`` are the trainings on the way."""
        require(self.rewind_to < recipe.steps, "rewind_to", self.rewind_to, f"below the recipe's {recipe.steps} steps")
        model = drawn(build, seed)
        masks, levels = Masks.of(model, self.exclude), []
        steps = train(model, task, recipe, order=seed, stop=self.rewind_to).steps
        early = snapshot(model)
        for round_ in range(self.rounds + 1):
            order = mixed_seed(seed, 1 + round_)
            last = round_ == self.rounds
            if last or self.between == "rewind":
                rewind(model, early, masks)
            done = train(model, task, recipe, order=order, start=self.rewind_to, masks=masks, every=every)
            steps += done.steps
            stop = done.early_stop if done.curve else None
            levels.append(Level(masks, task.evaluate(model, "validation"), steps, stop))
            if not last:
                masks = self.prune(model, masks)
        return TicketFound(model, masks, steps, levels, Ticket(masks, early, self.rewind_to))
