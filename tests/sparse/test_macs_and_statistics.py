"""Counting multiply-adds, and batch norms' statistics after pruning."""

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.sparse import Masks, Recipe, train
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.macs import macs, macs_by_module, parameters
from prunus.sparse.networks import conv_net, drawn, mlp, residual_mlp, resnet

CARDS = [((64, 256, 128, 10), 50_432), ((64, 26, 13, 10), 2_132), ((64, 25, 12, 10), 2_020)]


@pytest.mark.parametrize(("widths", "expected"), CARDS)
def test_the_cards_networks(widths, expected):
    assert macs(mlp(*widths), torch.zeros(1, widths[0])) == expected


def test_convolutions_and_attention():
    conv = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 64, 5))
    assert macs(conv, torch.zeros(1, 4, 8, 8)) == 6 * 2 * 9 * 64 + 6 * 64 * 5

    class Attention(nn.Module):
        def forward(self, x):
            return torch.softmax(x @ x.transpose(1, 2), -1) @ x

    assert macs(Attention(), torch.zeros(1, 7, 8)) == 2 * 7 * 7 * 8

    class Fused(nn.Module):
        def forward(self, x, memory):
            return nn.functional.scaled_dot_product_attention(x, memory, memory)

    example = {"x": torch.zeros(1, 2, 7, 8), "memory": torch.zeros(1, 2, 5, 8)}  # two heads of 8
    assert macs(Fused(), example) == 2 * 2 * 7 * 5 * 8


def test_small_conv_nets_have_the_macs_of_their_shapes():
    assert macs(conv_net((4, 6), size=8), torch.zeros(1, 1, 8, 8)) == 64 * 9 * (4 + 4 * 6) + 6 * 16 * 10
    blocks = 64 * 9 * (8 + 8 * 8 * 2) + 16 * (9 * (8 * 16 + 16 * 16) + 8 * 16) + 4 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    assert macs(resnet(8, 1), torch.zeros(1, 1, 8, 8)) == blocks + 320


def test_masked_layers_count_by_their_density():
    model = mlp(8, 6, 4)
    masks = Masks.of(model).changed({"0.weight": torch.eye(6, 8).bool()})
    assert macs(model, torch.zeros(1, 8), masks) == 6 + 24
    assert parameters(model, masks) == 6 + 24 + 10 and parameters(model) == 48 + 24 + 10
    by_module = macs_by_module(residual_mlp(8, 6, 2, 3), torch.zeros(1, 8))
    assert by_module["blocks.1"] == 72 and by_module["blocks.1.first"] == 36 and by_module[""] == 48 + 144 + 18


def test_statistics_are_those_of_the_training_batches_and_modes_are_left():
    task, model = blobs(rows=240, batch_size=20), drawn(lambda: residual_mlp(8, 6, 1, 4), 0)
    train(model, task, Recipe(20, 0.01))
    model.stem.eval()
    norm = model.blocks[0].norm1
    before, momentum = norm.running_mean.clone(), norm.momentum
    with torch.no_grad():
        model.stem.weight.mul_(0.5)
    recompute_statistics(model, task, batches=6)
    with torch.no_grad():
        batches = [model.blocks[0].first(torch.relu(model.stem(task.batch(0, step)[0]))) for step in range(6)]
    assert torch.allclose(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0), rtol=1e-4)
    assert not torch.equal(norm.running_mean, before) and norm.momentum == momentum
    assert model.training and not model.stem.training and norm.training
    recompute_statistics(mlp(8, 4), task)  # nothing to do
