"""The recipe's own optimiser against what it is defined by."""

from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).parents[2] / "recipes" / "video"


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40), (2, 40, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    from muon import orthogonal

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    given = torch.linspace(0.1, 1, left.shape[2])  # a square of chance has some near zero, which takes more steps
    x = left * given @ right
    values = torch.diagonal(left.mT @ orthogonal(x) @ right.mT, dim1=1, dim2=2)
    assert values.min() > 0.4 and values.max() < 1.3  # what five steps promise


def test_it_descends(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    from muon import Muon

    weight = torch.nn.Parameter(torch.randn(8, 12, generator=torch.Generator().manual_seed(0)))
    optimiser, losses = Muon([weight], lr=0.2), []
    for _ in range(60):
        losses.append((weight - 1).square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]
