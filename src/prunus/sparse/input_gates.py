"""Gates that look at the input: a small network that says, for each row, whether a block or a channel is computed.

A block's gate g is 0 or 1 for each row of the batch: y = g block(x) + (1 - g) x, for a residual block x + g f(x) (its
last activation included). A block that is off for all rows is not computed at all, in training either. A channel's gate
multiplies its layer's output, or that of the batch norm behind it (``gate_sites``).

    h = mean of x over all but rows and features;  a = MLP(h);  soft = sigmoid((a + noise) / tau);  g = 1[soft > .5]

Forward g, backward soft (straight through). The noise is logistic (binary Gumbel) in training, since a gate far below 0
would get no gradient without it, and none in evaluation: g = 1[a > 0]. All of this is inferred (card 53).

Gates hang on an unchanged torch model until ``InputGates.remove``, and train, move and are saved with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import SettingError, require
from prunus.sparse.gate_sites import channel_sites, multiply
from prunus.sparse.macs import macs_by_module
from prunus.sparse.task import evaluating

ROWS = 32
"""The mean of a gate is taken over about so many rows: smaller batches are averaged with those before."""


class Gate(nn.Module):
    """Decides on ``units`` from inputs whose features are last, or second if there are four dimensions (images)."""

    def __init__(self, inputs: int, units: int, hidden: int = 16, tau: float = 1.0, opened: float = 1.0) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, units))
        nn.init.constant_(self.network[-1].bias, opened)
        self.tau = tau
        self.register_buffer("memory", torch.ones(units))
        self.share = self.memory
        """The share of rows for which each unit is on, by the last call; in training its gradient is the batch's."""

    def forward(self, x: Tensor) -> Tensor:
        """(rows, units), 0 or 1."""
        logit = self.network(pooled(x))
        if self.training:
            chance = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid((logit + chance.logit()) / self.tau)
            gate = (soft > 0.5).to(soft.dtype) + (soft - soft.detach())  # exactly 0 or 1
        else:
            gate = (logit > 0).to(logit.dtype)
        mean = gate.mean(0)
        if self.training:
            with torch.no_grad():
                self.memory.lerp_(mean, min(1.0, len(gate) / ROWS))
            self.share = self.memory.clone() + (mean - mean.detach())
        else:
            self.share = mean
        return gate


def pooled(x: Tensor) -> Tensor:
    """(rows, features): the mean over pixels (rows, features, h, w) or tokens (rows, tokens, features)."""
    return x.flatten(2).mean(2) if x.ndim >= 4 else x.flatten(1, -2).mean(1) if x.ndim == 3 else x


class GatedBlock(nn.Module):
    """In the place of ``block`` in its ``Sequential`` or ``ModuleList``."""

    def __init__(self, block: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.block, self.gate = block, gate
        self.calls = self.skipped = 0

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        gate = self.gate(x)
        on = gate.detach() > 0.5
        self.calls += 1
        if not on.any():
            self.skipped += 1
            return x
        gate = gate.view(-1, *[1] * (x.ndim - 1))
        return gate * self.block(x, *others, **named) + (1 - gate) * x


@dataclass
class Gated:
    """The units that one gate decides on: how many, and the MACs of each of them for one row."""

    gate: Gate
    units: int
    macs: float


class InputGates:
    """Gates on the removable ``blocks`` of a model, or on the hidden ``channels`` of its layers, until ``remove``."""

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        units: str = "blocks",
        exclude: Sequence[str] = (),
        hidden: int = 16,
        tau: float = 1.0,
        opened: float = 1.0,
    ) -> None:
        from prunus.sparse.methods.layer_lottery import removable_blocks  # methods import this module

        require(units in ("blocks", "channels"), "units", units, "blocks or channels")
        self.model, self.units = model, units
        costs = macs_by_module(model, example)
        self.rest = float(costs[""])
        """MACs of one row with all units off, gates included."""
        sites = channel_sites(model, example, exclude) if units == "channels" else {}
        names = list(sites) if sites else [n for n in removable_blocks(model, example) if n not in exclude]
        seen = _calls(model, example, [_module(name, units) for name in names])
        self.gated: dict[str, Gated] = {}
        self._handles: list[Any] = []
        self._homes: dict[str, tuple[nn.Module, str]] = {}
        for name in names:
            inputs, output = seen[_module(name, units)]
            if not isinstance(output, Tensor):  # a block that returns more cannot be left out for a while
                continue
            many = len(dict(model.named_parameters())[name]) if sites else 1
            gate = Gate(pooled(inputs).shape[-1], many, hidden, tau, opened).to(inputs.device)
            self.gated[name] = Gated(gate, many, costs.get(_module(name, units), 0) / many)
            own = macs_by_module(gate, inputs)[""]
            self.rest += own - self.gated[name].macs * many
            if sites:
                self._on_channels(_module(name, units), sites[name], gate)
            else:
                self._on_block(name, gate)
        if not self.gated:
            raise SettingError(
                f"{type(model).__name__} has no blocks that a gate could turn off: only blocks in a Sequential or "
                "ModuleList that keep the shape and are the identity where f = 0 qualify; try units = 'channels'"
            )

    def _on_block(self, name: str, gate: Gate) -> None:
        home, _, key = name.rpartition(".")
        module = self.model.get_submodule(home)
        block = module._modules[key]
        assert block is not None
        module._modules[key] = GatedBlock(block, gate).train(block.training)
        self._homes[name] = (module, key)

    def _on_channels(self, layer: str, site: str, gate: Gate) -> None:
        module, now = self.model.get_submodule(layer), {}
        module.add_module("gate", gate.train(module.training))
        self._handles += [
            module.register_forward_pre_hook(lambda _, inputs: now.update(gate=gate(inputs[0]))),
            multiply(self.model.get_submodule(site), lambda: now["gate"]),
        ]
        self._homes[layer] = (module, "gate")

    def shares(self) -> Tensor:
        """Of all units, one after the other: the share of rows for which they were on in the last forward pass."""
        return torch.cat([gated.gate.share for gated in self.gated.values()])

    def macs(self) -> Tensor:
        """Of the same units: the MACs of one row."""
        return torch.cat([gated.gate.memory.new_full((gated.units,), gated.macs) for gated in self.gated.values()])

    @torch.no_grad()
    def over(self, task: Any, batches: int, order: int = 0) -> dict[str, Tensor]:
        """The shares by name, in evaluation mode, over so many training batches."""
        sums = {name: torch.zeros_like(gated.gate.memory) for name, gated in self.gated.items()}
        with evaluating(self.model):
            for step in range(batches):
                task.loss(self.model, task.batch(order, step))
                for name, gated in self.gated.items():
                    sums[name] += gated.gate.share / batches
        return sums

    def average_macs(self, shares: dict[str, Tensor]) -> float:
        """MACs of one row on average, if units are computed for ``shares`` of the rows; gates included."""
        return self.rest + sum(gated.macs * float(shares[name].sum()) for name, gated in self.gated.items())

    @property
    def skipped(self) -> float:
        """The share of calls of blocks that were not computed because they were off for the whole batch."""
        blocks = [m for m in self.model.modules() if isinstance(m, GatedBlock)]
        return sum(b.skipped for b in blocks) / max(1, sum(b.calls for b in blocks))

    def remove(self) -> None:
        """The model is as it was, all its units always on."""
        for handle in self._handles:
            handle.remove()
        for module, key in self._homes.values():
            if isinstance(block := module._modules[key], GatedBlock):
                module._modules[key] = block.block
            else:
                del module._modules[key]
        self._handles, self._homes = [], {}


def _module(name: str, units: str) -> str:
    return name if units == "blocks" else name.rpartition(".")[0]


@torch.no_grad()
def _calls(model: nn.Module, example: Any, names: Sequence[str]) -> dict[str, tuple[Tensor, Any]]:
    """What the modules of these names are given first, and what they return."""
    seen: dict[str, tuple[Tensor, Any]] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, named, output, name=name: seen.update(
                {name: (inputs[0] if inputs else next(iter(named.values())), output)}
            ),
            with_kwargs=True,
        )
        for name in names
    ]
    try:
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen
