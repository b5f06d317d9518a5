"""Small models and tasks that the tests of sparsification share."""

import torch
from torch import nn

from prunus.sparse import Examples


class Linear(nn.Module):
    """f(x) = w . x with given weights."""

    def __init__(self, *weights):
        super().__init__()
        self.layer = nn.Linear(len(weights), 1, bias=False)
        self.layer.weight.data = torch.tensor([weights], dtype=torch.float32)

    def forward(self, x):
        return self.layer(x)


class OneExample:
    """The card's linear example: x = (1, 3), y = 1, L = 0.5 (w . x - y)^2."""

    example = torch.tensor([[1.0, 3.0]])

    def batch(self, order, step):
        return self.example, torch.tensor([[1.0]])

    def loss(self, model, batch):
        return 0.5 * (model(batch[0]) - batch[1]).square().sum()


def with_weights(*matrices):
    """Linear layers without bias, ReLU between them, of the given matrices."""
    layers = []
    for matrix in matrices:
        weight = torch.tensor(matrix, dtype=torch.float32)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def blobs(classes=4, dimensions=8, rows=240, seed=0, batch_size=20):
    """Gaussian clusters: a task that a tiny network learns in a hundred steps."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dimensions, generator=generator) * 1.5
    targets = torch.randint(classes, (rows,), generator=generator)
    inputs = centres[targets] + torch.randn(rows, dimensions, generator=generator)
    sizes = [rows // 2, rows // 4, rows // 4]
    return Examples(*zip(inputs.split(sizes), targets.split(sizes)), batch_size=batch_size)
