"""Channels removed for good: the smaller network does what the masked one did."""

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import ModelError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.networks import drawn, mlp, resnet
from prunus.sparse.removal import redraw, remove_channels

pytest.importorskip("torch_pruning")


class Skipped(nn.Module):
    """The card's example: conv1 - bn - relu - conv2 + skip from conv1 - fc."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        y = self.conv1(x)
        return self.fc((self.conv2(torch.relu(self.bn(y))) + y).flatten(1))


def without_rows(masks, rows):
    """Masks without these rows of the named weights."""
    new = {}
    for name, gone in rows.items():
        new[name] = masks[name].clone()
        new[name][gone] = False
    return masks.changed(new)


def test_the_cards_group_shrinks_together_and_computes_the_same():
    model = drawn(Skipped, 0).eval()
    x = torch.randn(4, 3, 4, 4)
    masks = without_rows(Masks.of(model), {"conv1.weight": [2], "conv2.weight": [2]})
    smaller = remove_channels(model, masks, x)
    shapes = {n: tuple(p.shape) for n, p in smaller.named_parameters()}
    assert shapes["conv1.weight"] == (7, 3, 3, 3) and shapes["bn.weight"] == (7,)
    assert shapes["conv2.weight"] == (7, 7, 3, 3) and shapes["fc.weight"] == (5, 7 * 16)
    masks.apply(model)
    with torch.no_grad():
        for part in (model.conv1.bias, model.bn.weight, model.bn.bias, model.conv2.bias):
            part[2] = 0
    assert torch.allclose(smaller(x), model(x), atol=1e-5)


def test_channels_that_are_added_must_be_pruned_alike():
    model = drawn(Skipped, 0)
    masks = without_rows(Masks.of(model), {"conv1.weight": [2]})
    with pytest.raises(ModelError, match="conv1 and conv2"):
        remove_channels(model, masks, torch.randn(1, 3, 4, 4))


def test_a_chain_of_layers_and_no_layer_without_channels():
    model = drawn(lambda: mlp(8, 12, 6, 4), 0)
    rows = {"0.weight": [0, 3, 11], "2.weight": [5]}
    masks = without_rows(Masks.of(model), rows)
    smaller = remove_channels(model, masks, torch.randn(1, 8))
    assert [tuple(p.shape) for n, p in smaller.named_parameters() if "weight" in n] == [(9, 8), (5, 9), (4, 5)]
    masks.apply(model)
    with torch.no_grad():
        model[0].bias[[0, 3, 11]] = 0
        model[2].bias[5] = 0
    x = torch.randn(7, 8)
    assert torch.allclose(smaller(x), model(x), atol=1e-6)
    train(smaller, blobs(), Recipe(3))  # and it learns
    with pytest.raises(ModelError, match="at least one"):
        remove_channels(model, without_rows(masks, {"2.weight": list(range(6))}), torch.randn(1, 8))


def test_redrawing_changes_every_weight_and_no_shape():
    model = drawn(Skipped, 0)
    fresh = drawn(lambda: redraw(model), 1)
    assert not torch.equal(fresh.conv1.weight, model.conv1.weight) and fresh.fc.weight.shape == model.fc.weight.shape
    assert torch.equal(fresh.conv1.weight, drawn(lambda: redraw(model), 1).conv1.weight)

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    with pytest.raises(ModelError, match="give a function"):
        redraw(Bare())


def test_a_resnets_block_loses_inner_channels_and_computes_the_same():
    model = drawn(lambda: resnet(4, 2), 0).eval()
    names = [n for n in Masks.of(model) if n.endswith("first.weight")]
    masks = without_rows(Masks.of(model), {name: [0, 2] for name in names})
    x = torch.randn(3, 1, 8, 8)
    smaller = remove_channels(model, masks, x)
    masks.apply(model)
    for block in model.blocks:
        block.norm1.weight.data[[0, 2]] = 0
        block.norm1.bias.data[[0, 2]] = 0
    assert torch.allclose(smaller(x), model(x), atol=1e-5)
    assert [block.first.out_channels for block in smaller.blocks] == [2, 2, 6, 6, 14, 14]
