"""Layer lottery: remove whole residual blocks at initialisation (card 10, arXiv 2301.10835).

Score the blocks of an *untrained* residual network, y = f(y) + y, by SNIP or GraSP summed over a block's weights (the
paper does not say how; ``reduce="mean"`` is the other choice), delete the p lowest, train the shorter network once.
``at="trained"`` scores after training instead and goes back to theta_i (``rewind_to``).

A block can go if it keeps its shape and is the identity where f = 0, which is *tried* on an example with all of the
block's weights at zero: projections, strides and plain layers fail it. Ranking is over all such blocks at once.

The mandatory baselines: ``importance=Random(seed)``, and ``reverse=True``, the same scores with the best removed first.
At initialisation both scores tend to be monotone in depth, and on digits all orders do equally well. The order that was
found is in the result. L1 norms are unsuitable: they grow with width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import ModelError, SettingError, require
from prunus.sparse.importance import SNIP, Importance, Scores
from prunus.sparse.macs import macs, parameters
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.removal import noted
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.scope import layers
from prunus.sparse.task import Task, evaluating, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, train


@torch.no_grad()
def removable_blocks(model: nn.Module, example: Any, ban_neighbours: bool = False) -> list[str]:
    """Names of the blocks in ``Sequential``s and ``ModuleList``s that can be taken out, in the order they are run.

    ``ban_neighbours`` also spares those next to one of their container that changes the shape (the paper does; off by
    default).
    """
    candidates = {
        f"{name}.{key}" if name else key: child
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for key, child in module.named_children()
        if any(p.ndim >= 2 for p in child.parameters())
    }
    seen: list[tuple[str, bool, bool]] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
            x, y = (
                inputs[0] if inputs else next(iter(named.values())),
                output[0] if isinstance(output, tuple) else output,
            )
            alike = isinstance(y, Tensor) and isinstance(x, Tensor) and x.shape == y.shape
            seen.append((name, alike and _is_identity_at_zero(module, inputs, named, x), not alike))

        return hook

    handles = [child.register_forward_hook(look(name), with_kwargs=True) for name, child in candidates.items()]
    try:
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    can_go = [name for name, removable, _ in seen if removable]
    siblings: dict[str, list[tuple[str, bool]]] = {}
    for name, _, changed in seen:
        siblings.setdefault(name.rpartition(".")[0], []).append((name, changed))
    pairs = [pair for line in siblings.values() for pair in pairwise(line)]
    near = {a for (a, _), (_, changed) in pairs if changed} | {b for (_, changed), (b, _) in pairs if changed}
    return [
        name
        for name in can_go
        if not any(other.startswith(f"{name}.") for other in can_go)  # it only holds blocks
        if not (ban_neighbours and name in near)
    ]


def _is_identity_at_zero(block: nn.Module, inputs: tuple, named: dict, x: Tensor) -> bool:
    still = copy.deepcopy(block)
    for module in still.modules():
        module._forward_hooks.clear()
    for parameter in still.parameters():
        parameter.zero_()
    found = still(*inputs, **named)
    return torch.equal(found[0] if isinstance(found, tuple) else found, x)


def score_blocks(
    model: nn.Module, blocks: Sequence[str], importance: Importance, task: Task | None, reduce: str = "sum"
) -> Tensor:
    """One number a block: its weights' scores, summed or averaged. (blocks,)"""
    masks = Masks.of(model)
    scores: Scores = importance.scores(model, masks, task)
    return layers(masks, blocks, reduce).scores(scores)["layers"]


def lowest(scores: Tensor, p: int, reverse: bool = False) -> list[int]:
    """The places of the ``p`` lowest scores (or highest, if ``reverse``), lowest first; of equals the later first."""
    require(0 <= p <= len(scores), "p", p, f"from 0 to the {len(scores)} blocks that can be removed")
    order = sorted(range(len(scores)), key=lambda i: (float(scores[i]), -i))
    return (order[::-1] if reverse else order)[:p]


def drop_blocks(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy without these blocks: really shorter. The weights of the others are kept."""
    shorter = copy.deepcopy(model)
    homes: dict[str, list[str]] = {}
    for name in names:
        home, _, key = name.rpartition(".")
        homes.setdefault(home, []).append(key)
    for home, keys in homes.items():
        module = shorter.get_submodule(home)
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            raise ModelError(f"{home} is a {type(module).__name__}; blocks are taken out of Sequential and ModuleList")
        missing = [key for key in keys if key not in module._modules]
        require(not missing, "blocks", missing, f"names of children of {home}: {', '.join(module._modules)}")
        for place in sorted((list(module._modules).index(key) for key in keys), reverse=True):
            del module[place]
    return noted(shorter, {"dropped": list(names)})


@dataclass
class LayersFound(Sparsified):
    """``order``: all removable blocks with their scores, in the order of removal; ``dropped``: those removed."""

    order: list[tuple[str, float]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LayerLottery:
    p: int = 3
    importance: Importance = field(default_factory=SNIP)
    reduce: str = "sum"
    reverse: bool = False
    at: str = "init"
    rewind_to: int = 0
    ban_neighbours: bool = False

    card: ClassVar[MethodCard] = MethodCard(
        "layer lottery",
        "10",
        frozenset({"structured"}),
        "before_training",
        criteria=frozenset({"sensitivity"}),
        granularity=frozenset({"L"}),
        data="driven",
        weights="init",
        retrain="none",
        scope="global",
    )

    def __post_init__(self) -> None:
        require(self.p >= 1, "p", self.p, "at least 1")
        require(self.at in ("init", "trained"), "at", self.at, "init or trained")
        require(self.rewind_to >= 0, "rewind_to", self.rewind_to, "a step, at least 0")
        if self.at == "init" and self.rewind_to:
            raise SettingError("rewind_to is for at='trained': at initialisation there is nothing to go back to")

    @property
    def taxonomy(self) -> MethodCard:
        if self.at == "init":
            return self.card
        return replace(self.card, when="after_training", weights="pretrained", retrain="rewind")

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> LayersFound:
        model, steps = drawn(build, seed), 0
        blocks = removable_blocks(model, task.example, self.ban_neighbours)
        require(self.p <= len(blocks), "p", self.p, f"at most the {len(blocks)} blocks that can be removed: {blocks}")
        state = snapshot(model)
        if self.at == "trained":
            steps += train(model, task, recipe, order=seed, stop=self.rewind_to).steps
            state = snapshot(model)
            steps += train(model, task, recipe, order=seed, start=self.rewind_to).steps
        scores = score_blocks(model, blocks, self.importance, task, self.reduce)
        rewind(model, state)
        places = lowest(scores, len(blocks), self.reverse)
        dropped = [blocks[place] for place in places[: self.p]]
        model = drop_blocks(model, dropped)
        start = self.rewind_to if self.at == "trained" else 0
        done = train(model, task, recipe, order=mixed_seed(seed, 1), start=start, every=every)
        steps += done.steps
        level = Level(None, task.evaluate(model, "validation"), steps, done.early_stop if done.curve else None)
        order = [(blocks[place], float(scores[place])) for place in places]
        return LayersFound(model, None, steps, [level], order, dropped)


def carbon(watts: float, seconds: float, kg_per_kwh: float = 0.4) -> tuple[float, float]:
    """(kWh, kg CO2) of a run of constant power on a grid of that intensity."""
    kwh = watts * seconds / 3.6e6
    return kwh, kwh * kg_per_kwh


@dataclass(frozen=True)
class Saved:
    """What the shorter network saves: shares of parameters and MACs, 0 to 1."""

    parameters: float
    macs: float


def saved(dense: nn.Module, ticket: nn.Module, example: Any) -> Saved:
    return Saved(1 - parameters(ticket) / parameters(dense), 1 - macs(ticket, example) / macs(dense, example))
