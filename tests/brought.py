"""What a user of ``pkg.mod:build`` brings: networks and data by import path, right ones and wrong ones."""

import torch
from small_networks import blobs
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from prunus.sparse.networks import conv_net, drawn, mlp, residual_mlp, resnet


def build():
    return mlp(8, 16, 12, 4)


def convolutional():
    return conv_net((8, 8), size=8)


def residual():
    return resnet(width=4, blocks=1)


def deep():
    return residual_mlp(8, 12, 4, 4)


def trained():
    return drawn(build, 0)


def not_a_network():
    return "a network"


def fails():
    raise RuntimeError("no weights here")


def nothing():
    return None


def examples():
    return blobs()


def pairs(rows=60):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        (torch.randn(rows, 8, generator=generator), torch.randint(4, (rows,), generator=generator)) for _ in range(3)
    )


def two_pairs():
    return pairs()[:2]


def loaders():
    return tuple(DataLoader(TensorDataset(*pair), batch_size=16, shuffle=True) for pair in pairs())


def images():
    generator = torch.Generator().manual_seed(0)
    return tuple(
        (torch.randn(24, 1, 8, 8, generator=generator), torch.randint(10, (24,), generator=generator)) for _ in range(3)
    )


def wide():
    return tuple((torch.randn(20, 9), torch.zeros(20, dtype=torch.long)) for _ in range(3))


def many_classes():
    return tuple((torch.randn(20, 8), torch.full((20,), 7)) for _ in range(3))


def real_targets():
    return tuple((torch.randn(20, 8), torch.randn(20)) for _ in range(3))


def uneven():
    return tuple((torch.randn(20, 8), torch.zeros(19, dtype=torch.long)) for _ in range(3))


def four():
    return [1, 2, 3, 4]


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(8), 0


def endless():
    return tuple(DataLoader(Endless(), batch_size=4) for _ in range(3))


def not_a_number():
    network = mlp(8, 16, 12, 4)
    nn.init.constant_(network[0].weight, float("nan"))
    return network
