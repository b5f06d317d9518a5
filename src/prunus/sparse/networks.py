"""Small networks that the papers' miniatures are made of. Any other torch module will do as well."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunus.errors import require

Build = Callable[[], nn.Module]


def drawn(build: Build, seed: int) -> nn.Module:
    """A fresh network whose initial weights depend on ``seed`` alone; the global generator is left as it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them: ``mlp(64, 300, 100, 10)`` is LeNet-300-100 for digits."""
    require(len(widths) >= 2, "widths", widths, "two or more: of the input, of each layer")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ResidualBlock(nn.Module):
    """relu(x + BN(W2 relu(BN(W1 x)))): with f = 0 it is the identity on what a ReLU has passed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.second, self.norm2 = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


def residual_mlp(inputs: int = 64, width: int = 48, blocks: int = 10, outputs: int = 10) -> nn.Sequential:
    """Stem with ReLU, residual blocks, head: modules ``stem``, ``relu``, ``blocks`` and ``head``."""
    network = nn.Sequential()
    network.add_module("stem", nn.Linear(inputs, width))
    network.add_module("relu", nn.ReLU())
    network.add_module("blocks", nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))))
    network.add_module("head", nn.Linear(width, outputs))
    return network
