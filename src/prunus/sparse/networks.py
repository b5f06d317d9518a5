"""Small networks that the papers' miniatures are made of. Any other torch module will do as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def lenet() -> nn.Sequential:
    """LeNet-300-100 for the 8x8 digits, the network of card 12's miniature: ``data.digits`` is its data."""
    return mlp(64, 300, 100, 10)


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


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norms around a shortcut: the basic block of ResNets for small images."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.second, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(y + self.shortcut(x))


def resnet(width: int = 8, blocks: int = 3, channels: int = 1, outputs: int = 10) -> nn.Sequential:
    """Three stages of ``blocks`` blocks, of 1, 2 and 4 times ``width``: 3 blocks are ResNet-20. Modules ``stem``,
    ``blocks`` and ``head``."""
    widths = [width * 2**stage for stage in range(3) for _ in range(blocks)]
    stages = [ConvBlock(before, after, 1 if before == after else 2) for before, after in pairwise([width, *widths])]
    network = nn.Sequential()
    stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
    network.add_module("stem", nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU()))
    network.add_module("blocks", nn.Sequential(*stages))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, outputs))
    network.add_module("head", pooled)
    return network


def conv_net(widths: Sequence[int] = (16, 32), channels: int = 1, size: int = 8, outputs: int = 10) -> nn.Sequential:
    """3x3 convolutions with ReLU, pooling after each second one (Conv-2 has two, Conv-4 four), and a linear head."""
    require(len(widths) >= 1, "widths", widths, "one or more")
    layers: list[nn.Module] = []
    for i, (inputs, width) in enumerate(pairwise([channels, *widths])):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        if i % 2:
            layers.append(nn.MaxPool2d(2))
    side = size >> (len(widths) // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, outputs))


class Attention(nn.Module):
    """x + causal self-attention of the normed x, worked out openly: fused kernels have no second derivative (GraSP)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require(width % heads == 0, "heads", heads, f"a divisor of the width {width}")
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (
            part(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        return x + self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """x + W2 gelu(W1 norm(x))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Embedded(nn.Module):
    """Token and position embeddings: (n, t) integers -> (n, t, width)."""

    def __init__(self, tokens: int, length: int, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.places.weight[: ids.shape[1]]


def transformer(
    tokens: int, length: int, width: int = 64, heads: int = 4, inner: int = 128, layers: int = 2
) -> nn.Sequential:
    """A causal language model: (n, t) integers, t at most ``length`` -> (n, t, tokens). Modules ``embedded``,
    ``blocks`` (attention and feed-forward in turn, each around a shortcut of its own), ``norm`` and ``head``."""
    blocks = [part for _ in range(layers) for part in (Attention(width, heads), FeedForward(width, inner))]
    network = nn.Sequential()
    network.add_module("embedded", Embedded(tokens, length, width))
    network.add_module("blocks", nn.Sequential(*blocks))
    network.add_module("norm", nn.LayerNorm(width))
    network.add_module("head", nn.Linear(width, tokens))
    return network
