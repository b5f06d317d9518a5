"""Pruning as a game: each neuron has a participation s in [0, 1] that climbs its own utility (card 36, 2512.22106).

A neuron is a row of a layer with its bias, theta_i; the network computes with s_i theta_i. At each step, on the
gradients of the weights' own step and before it:

    pull_i = <dL/dtheta_i, theta_i>
    dU/ds  = alpha benefit(pull) - 2 beta |theta|^2 s - gamma - eta sum_{j != i} s_j <theta_i, theta_j>
    s     <- clip(s + rate dU/ds, 0, 1),        rate = travel / steps

At the end neurons with s < ``threshold`` are removed and s is folded into the weights of the others: the result is a
smaller module. Players of a layer compete with each other only (inferred). s >= 0, so that the derivative of gamma |s|
is gamma, also at 0 (one-sided), as in the best response.

``benefit`` is the mend: removing a neuron changes the loss by -pull to first order, so that a *positive* pull means
that it hurts, and the paper rewards it (``"paper"``). ``"descent"`` is -pull and makes s descend the loss; ``"abs"``
its size. The gradient of descent and abs is taken at s * theta, that of the paper at theta, where it has a factor s.

What to know before use: in the paper's form the only equilibrium is an empty network (at the end of training pull is 0
and the costs are not), so that what is left depends on when it stops. With ``"descent"`` s follows the gradient of
L + (gamma |s| + beta |theta|^2 s^2) / alpha, which has others: gates with an L1 penalty. theta can still grow and undo
s; use weight decay. With beta alone large rows go first. ``floor`` neurons of a layer never fall below the threshold.
``density`` stops at a count (*inferred*): before the first update that would leave no more neurons than that with
s >= threshold, or after the share ``until`` of the steps, exactly the largest s stay, are frozen, and the weights train
on. ``allocation`` says whether that count is one for all layers or each layer's own.

``Game.published`` has the paper's four configurations; its 20 epochs of 469 steps at rate .001 are a travel of 9.38.
alpha, beta and gamma of the default are *inferred*, chosen on digits: see ``reproductions.pruning_game``.
``Game(alpha=0)`` is the mandatory baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import require
from prunus.sparse.allocation import Allocation, Global
from prunus.sparse.exact import keep_largest, largest
from prunus.sparse.gate_sites import channel_sites, fold, multiply, removed, rows
from prunus.sparse.holding import Hold
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.task import Task
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, train

BENEFITS: dict[str, Callable[[Tensor], Tensor]] = {
    "descent": torch.neg,
    "abs": torch.abs,
    "paper": lambda pull: pull,
}
PUBLISHED = {
    "very high beta": (0.1, 0.0),
    "extreme beta": (0.5, 0.0),
    "L1 strong": (0.001, 0.1),
    "L1+L2": (0.05, 0.05),
}
"""The paper's configurations: beta and gamma; alpha = 1, eta = 0."""


def utility_gradient(
    theta: Tensor,
    pull: Tensor,
    s: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    gamma: float = 0.0,
    eta: float = 0.0,
    benefit: str = "descent",
) -> Tensor:
    """dU/ds of the players of one layer, (n); theta is (n, d), pull and s are (n)."""
    marginal = _before_ridge(theta, pull, s, alpha, gamma, eta, benefit)
    return marginal - 2 * beta * theta.square().sum(1) * s


def best_response(
    theta: Tensor,
    pull: Tensor,
    s: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    gamma: float = 0.0,
    eta: float = 0.0,
    benefit: str = "descent",
) -> Tensor:
    """The s_i of greatest utility while the others' s stay, (n). Where beta |theta|^2 = 0 it is 1 if the rest of the
    utility grows with s, and 0 if not."""
    marginal = _before_ridge(theta, pull, s, alpha, gamma, eta, benefit)
    ridge = 2 * beta * theta.square().sum(1)
    return torch.where(ridge > 0, marginal / ridge.clamp(min=1e-38), (marginal > 0).to(s.dtype)).clamp(0, 1)


def _before_ridge(
    theta: Tensor, pull: Tensor, s: Tensor, alpha: float, gamma: float, eta: float, benefit: str
) -> Tensor:
    value = alpha * BENEFITS[benefit](pull) - gamma
    if eta:  # (Theta Theta^T - diagonal) s, without the n x n matrix
        value = value - eta * (theta @ (s @ theta) - theta.square().sum(1) * s)
    return value


class Participation:
    """The gates s of a network's neurons, all 1 at first, in force by hooks until ``remove``; layer -> (neurons)."""

    def __init__(self, model: nn.Module, sites: Mapping[str, str]) -> None:
        self._sites = {name: model.get_submodule(site) for name, site in sites.items()}
        self.s = {name: torch.ones_like(rows(site)[:, 0]).requires_grad_() for name, site in self._sites.items()}
        self._handles = [multiply(site, lambda name=name: self.s[name]) for name, site in self._sites.items()]
        self.stopped = 0
        """Steps after which the players were frozen; 0: they are not."""

    @property
    def values(self) -> dict[str, Tensor]:
        return {name: s.detach() for name, s in self.s.items()}

    @torch.no_grad()
    def update(self, game: Game, rate: float) -> None:
        """One step of the players; dL/ds is <dL/d(s theta), theta>, and comes with the backward pass."""
        for name, s in self.s.items():
            theta = rows(self._sites[name])
            pull = torch.zeros_like(s) if s.grad is None else s.grad
            pull = pull * s if game.benefit == "paper" else pull
            new = (s + rate * utility_gradient(theta, pull, s, **game.terms)).clamp(0, 1)
            spared = largest(new, min(game.floor, len(new)), name=name) & (new < game.threshold)
            s.copy_(torch.where(spared, s, new))
            s.grad = None

    def active(self, threshold: float) -> int:
        return sum(int((s >= threshold).sum()) for s in self.s.values())

    @torch.no_grad()
    def keep(self, kept: Mapping[str, Tensor]) -> None:
        """Set all others to 0."""
        for name, s in self.s.items():
            s.mul_(kept[name])

    def fold(self) -> None:
        """Multiply the weights by s and let the gates go: the network computes what it did."""
        self.remove()
        for name, site in self._sites.items():
            fold(site, self.s[name].detach())

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Any]:
        return {**{name: s.detach().clone() for name, s in self.s.items()}, "stopped": self.stopped}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, s in self.s.items():
            s.copy_(state[name])
        self.stopped = int(state["stopped"])


@dataclass
class Played(Sparsified):
    """Also: the final s of all neurons, which of them were kept, and the step at which they were frozen (0: never)."""

    s: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    stopped: int = 0

    @property
    def neurons(self) -> float:
        """The share of the players that were kept."""
        return sum(int(k.sum()) for k in self.kept.values()) / sum(k.numel() for k in self.kept.values())


@dataclass(frozen=True)
class Game:
    """``travel`` = rate x steps: how far s moves at dU/ds = -1. ``density``: the share of the neurons at which the
    players are frozen (None: the paper, never). Output layers do not play; ``exclude`` names others that do not."""

    alpha: float = 30.0
    beta: float = 0.0
    gamma: float = 0.5
    eta: float = 0.0
    benefit: str = "descent"
    travel: float = 9.38
    threshold: float = 0.01
    density: float | None = None
    until: float = 0.5
    allocation: Allocation = field(default_factory=Global)
    floor: int = 1
    exclude: tuple[str, ...] = ()

    taxonomy: ClassVar[MethodCard] = MethodCard(
        "pruning as a game",
        "36",
        frozenset({"structured"}),
        "during_training",
        learn=frozenset({"learned_scores"}),
        granularity=frozenset({"N"}),
        iterative=True,
        data="driven",
        weights="init",
        retrain="none",
        scope="local",
        kind=frozenset({"score_based"}),
    )

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "eta"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0; signs are those of the formula")
        require(self.benefit in BENEFITS, "benefit", self.benefit, ", ".join(BENEFITS))
        require(self.travel > 0, "travel", self.travel, "positive: rate x steps")
        require(0 < self.threshold < 1, "threshold", self.threshold, "above 0 and below 1")
        require(self.density is None or 0 < self.density < 1, "density", self.density, "above 0 and below 1, or None")
        require(0 < self.until <= 1, "until", self.until, "a share of the training, above 0")
        require(self.floor >= 1, "floor", self.floor, "at least 1 neuron a layer")

    @classmethod
    def published(cls, name: str = "L1+L2") -> Game:
        """The paper's form: ``very high beta``, ``extreme beta``, ``L1 strong`` or ``L1+L2``."""
        require(name in PUBLISHED, "configuration", name, ", ".join(PUBLISHED))
        beta, gamma = PUBLISHED[name]
        return cls(1.0, beta, gamma, benefit="paper")

    @property
    def terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("alpha", "beta", "gamma", "eta", "benefit")}

    def kept(self, s: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which neurons stay: those at or above the threshold, or exactly the largest ``density`` of them."""
        if self.density is None:
            return {n: (v >= self.threshold) | largest(v, min(self.floor, len(v)), name=n) for n, v in s.items()}
        return keep_largest(s, self.counts(s), floor=self.floor)

    def counts(self, s: Mapping[str, Tensor]) -> int | dict[str, int]:
        """How many neurons ``density`` leaves, in all or by layer."""
        everyone = {name: torch.ones_like(value, dtype=torch.bool) for name, value in s.items()}
        counts = self.allocation.counts(s, everyone, self.density or 1.0)
        least = {name: min(self.floor, len(value)) for name, value in s.items()}
        if isinstance(counts, int):
            return max(counts, sum(least.values()))
        return {name: max(count, least[name]) for name, count in counts.items()}

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Played:
        model = drawn(build, seed)
        players = Participation(model, channel_sites(model, task.example, self.exclude))
        rate = self.travel / recipe.steps

        def play(step: int, hold: Hold) -> None:
            if players.stopped:
                return
            before = {} if self.density is None else players.state_dict()
            players.update(self, rate)
            if self.density is None:
                return
            counts = self.counts(players.values)
            few = counts if isinstance(counts, int) else sum(counts.values())
            if players.active(self.threshold) > few and step + 1 < self.until * recipe.steps:
                return
            players.load_state_dict(before)
            players.keep(self.kept(players.values))
            players.stopped = step + 1

        done = train(model, task, recipe, order=seed, every=every, before_step=play, keeps={"participation": players})
        kept = self.kept(players.values)
        players.keep(kept)
        players.fold()
        smaller = removed(model, kept, task.example)
        level = Level(None, task.evaluate(smaller, "validation"), done.steps)
        return Played(smaller, None, done.steps, [level], players.values, kept, players.stopped)
