"""Consensus sub-network: train once with gates that look at the input and come to agree, then drop them (card 53).

arXiv 2302.10798. Residual blocks or channels have binary gates (``input_gates``); with gbar the share of a batch's rows
for which a unit is on and c its MACs,

    L = task loss + lam_pol w(t) mean(gbar (1 - gbar)) + lam_act (sum c gbar / sum c - target)^2

The first penalty polarises: it is 0 where a gate decides alike for all rows. After training a unit is kept if it is on
for more than half of the whole training set; the others are really removed, the gates are gone, and batch norms'
statistics are computed anew. No fine-tuning.

**Inferred**, since only the paper's abstract and a digest could be read: all formulas, all defaults and the warm-up.
Verified are the elements: one training, light differentiable binary gates on layers or channels, straight-through
estimator, a polarising regulariser, a sparsity that the user sets.

w(t) rises from 0 to 1 over the share ``warm_up`` of the training. Polarisation is symmetric, and gates begin open: at
once in full force it locks most of them open and the target is missed. In batches below 32 rows gbar is a moving mean.
The result that counts is the static network's; while gates disagree, the gated one may be better. ``static=False``
returns the gated network, a run-time method: for the contrast of static and dynamic pruning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import SettingError, require
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.exact import keep_largest
from prunus.sparse.gate_sites import channel_sites, fold, removed
from prunus.sparse.input_gates import InputGates
from prunus.sparse.methods.layer_lottery import drop_blocks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.task import Evaluation, Examples, Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, train


def polarity(shares: Tensor) -> Tensor:
    """mean(gbar (1 - gbar)), a scalar from 0 (each unit is always on or always off) to 1/4."""
    return (shares * (1 - shares)).mean()


def activation(shares: Tensor, macs: Tensor, target: float) -> Tensor:
    """(share of the units' MACs that is computed - target)^2, a scalar."""
    return ((shares * macs).sum() / macs.sum() - target).square()


def agreement(shares: Tensor) -> float:
    """mean(max(gbar, 1 - gbar)): how often a unit's gate does what the majority of rows has it do."""
    return float(torch.maximum(shares, 1 - shares).mean())


@dataclass
class Agreed(Sparsified):
    """Also: by name the ``shares`` of the training set for which units are on and which were ``kept``, the agreement
    of the gates, the gated network's validation and average MACs, and the share of blocks' forward passes so far that
    were skipped for the whole batch."""

    shares: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    agreement: float = 0.0
    dynamic: Evaluation | None = None
    dynamic_macs: float = 0.0
    skipped: float = 0.0


@dataclass(frozen=True)
class _Penalised:
    """The task with the gates' penalties added to its loss; its batches know their step."""

    task: Task
    penalty: Callable[[int], Tensor]

    @property
    def example(self) -> Any:
        return self.task.example

    def batch(self, order: int, step: int) -> Any:
        return self.task.batch(order, step), step

    def loss(self, model: Callable[..., Any], batch: Any) -> Tensor:
        rows, step = batch
        return self.task.loss(model, rows) + self.penalty(step)

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        return self.task.evaluate(model, split)


@dataclass(frozen=True)
class Consensus:
    """``target``: the share of the gated units' MACs to keep; how many units stay is the majority's, or, if ``exact``,
    exactly that share of them, those that are on most. ``batches``: how many training batches decide (None: all of
    ``Examples``, once)."""

    target: float = 0.5
    units: str = "blocks"
    lam_pol: float = 1.0
    lam_act: float = 30.0
    warm_up: float = 0.5
    hidden: int = 16
    tau: float = 1.0
    opened: float = 1.0
    batches: int | None = None
    exact: bool = False
    static: bool = True
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "consensus sub-network",
        "53",
        frozenset({"structured"}),
        "during_training",
        learn=frozenset({"sparsity_regularization"}),
        granularity=frozenset({"L"}),
        data="driven",
        weights="init",
        retrain="none",
        scope="global",
        kind=frozenset({"sparsity_regularization"}),
    )

    def __post_init__(self) -> None:
        require(0 < self.target < 1, "target", self.target, "above 0 and below 1")
        require(self.units in ("blocks", "channels"), "units", self.units, "blocks or channels")
        require(self.lam_pol >= 0, "lam_pol", self.lam_pol, "at least 0")
        require(self.lam_act >= 0, "lam_act", self.lam_act, "at least 0")
        require(0 <= self.warm_up <= 1, "warm_up", self.warm_up, "a share of the training")
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        require(self.tau > 0, "tau", self.tau, "positive")
        require(self.batches is None or self.batches >= 1, "batches", self.batches, "at least 1, or None")

    @property
    def taxonomy(self) -> MethodCard:
        card = replace(self.card, granularity=frozenset({"L" if self.units == "blocks" else "C"}))
        return card if self.static else replace(card, when="run_time", static=False, kind=frozenset())

    def polarising(self, progress: float) -> float:
        """lam_pol w at a progress in [0, 1)."""
        return self.lam_pol * min(1.0, progress / self.warm_up if self.warm_up else 1.0)

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Agreed:
        batches = self.batches or _epoch(task)
        model = drawn(build, seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(mixed_seed(seed, 1))
            gates = InputGates(model, task.example, self.units, self.exclude, self.hidden, self.tau, self.opened)
        macs = gates.macs()

        def penalty(step: int) -> Tensor:
            shares = gates.shares()
            polarise = self.polarising(step / recipe.steps) * polarity(shares)
            return polarise + self.lam_act * activation(shares, macs, self.target)

        done = train(model, _Penalised(task, penalty), recipe, order=seed, every=every)
        shares = gates.over(task, batches)
        kept, dynamic = decide(shares, self.target if self.exact else None), task.evaluate(model, "validation")
        average, skipped = gates.average_macs(shares), gates.skipped
        validation = dynamic
        if self.static:
            gates.remove()
            model = extract(model, kept, task.example)
            recompute_statistics(model, task)
            validation = task.evaluate(model, "validation")
        level = Level(None, validation, done.steps)
        rate = agreement(torch.cat(list(shares.values())))
        found = Agreed(model, None, done.steps, [level], shares, kept, rate, dynamic, average, skipped)
        found.average_macs = None if self.static else average
        return found


def decide(shares: dict[str, Tensor], target: float | None = None) -> dict[str, Tensor]:
    """Which units are on for more than half of the rows, or, with a ``target``, exactly that share of all units, those
    that are on most; then a layer keeps at least one channel."""
    if target is not None:
        floor = min(1, max(len(share) for share in shares.values()) - 1)  # blocks may all go
        return keep_largest(shares, round(target * sum(len(share) for share in shares.values())), floor=floor)
    return {name: share > 0.5 for name, share in shares.items()}


def extract(model: nn.Module, kept: dict[str, Tensor], example: Any) -> nn.Module:
    """A copy with only the kept units, from a model whose gates are gone: names of blocks, or of channels' weights.

    A layer that is to keep no channel keeps one that gives 0: a network without it would be of another shape.
    """
    if kept.keys() & dict(model.named_parameters()).keys():
        if empty := [name for name, keep in kept.items() if not keep.any()]:
            model, sites = copy.deepcopy(model), channel_sites(model, example)
            kept = kept | {name: torch.arange(len(kept[name]), device=kept[name].device) == 0 for name in empty}
            for name in empty:
                fold(model.get_submodule(sites[name]), torch.zeros(len(kept[name]), device=kept[name].device))
        return removed(model, kept, example)
    off = [name for name, keep in kept.items() if not bool(keep)]
    return drop_blocks(model, off) if off else copy.deepcopy(model)


def _epoch(task: Task) -> int:
    if not isinstance(task, Examples):
        raise SettingError(f"batches = None needs Examples, to know how many there are; say how many of {task} decide")
    return len(task.train[0]) // task.batch_size
