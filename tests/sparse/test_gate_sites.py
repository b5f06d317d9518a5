"""Where gates on channels can sit, and that folding and removing change nothing."""

import pytest
import torch
from torch import nn

from prunus.errors import SettingError
from prunus.sparse.gate_sites import channel_sites, fold, multiply, removed, rows
from prunus.sparse.networks import conv_net, drawn, mlp, residual_mlp, resnet

pytest.importorskip("torch_pruning")


def inner(blocks):
    return {f"blocks.{i}.first.weight": f"blocks.{i}.norm1" for i in range(blocks)}


FOUND = {
    "mlp": (lambda: mlp(8, 6, 5, 4), (3, 8), {"0.weight": "0", "2.weight": "2"}),
    "conv": (lambda: conv_net((4, 5)), (3, 1, 8, 8), {"0.weight": "0", "2.weight": "2"}),
    "residual": (lambda: residual_mlp(8, 6, 2, 4), (3, 8), inner(2)),
    "resnet": (lambda: resnet(4, 1), (3, 1, 8, 8), inner(3)),
}


@pytest.mark.parametrize("name", FOUND)
def test_hidden_channels_that_nothing_is_added_to_qualify_at_their_norm(name):
    build, shape, sites = FOUND[name]
    assert channel_sites(drawn(build, 0), torch.randn(shape)) == sites


@pytest.mark.parametrize("name", FOUND)
def test_gated_is_folded_and_removed(name):
    build, shape, sites = FOUND[name]
    model, x = drawn(build, 0), torch.randn(shape)
    for module in model.modules():  # statistics and affine parts as after training
        if hasattr(module, "running_mean"):
            for part in (module.running_mean, module.weight.data, module.bias.data):
                part.normal_()
    model.eval()
    torch.manual_seed(1)
    kept = {n: torch.arange(len(dict(model.named_parameters())[n])) % 3 != 1 for n in sites}
    gates = {n: torch.rand(len(k)) * k for n, k in kept.items()}
    handles = [multiply(model.get_submodule(site), lambda n=n: gates[n]) for n, site in sites.items()]
    gated = model(x)
    for handle in handles:
        handle.remove()
    for n, site in sites.items():
        fold(model.get_submodule(site), gates[n])
    smaller = removed(model, kept, x)
    assert torch.allclose(smaller(x), gated, rtol=0, atol=1e-6)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_gates_may_differ_by_row_of_the_batch():
    layer, conv = nn.Linear(2, 3), nn.Conv2d(1, 3, 1)
    gate = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    for module, x, shape in ((layer, torch.randn(2, 4, 2), (2, 1, 3)), (conv, torch.randn(2, 1, 5, 5), (2, 3, 1, 1))):
        plain = module(x)
        multiply(module, lambda: gate)
        assert torch.equal(module(x), plain * gate.view(shape))


def test_an_activation_that_is_not_zero_at_zero_fails():
    def build():
        return nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))

    assert channel_sites(drawn(build, 0), torch.randn(2, 4)) == {"2.weight": "2"}
    with pytest.raises(SettingError, match="no channels"):
        channel_sites(drawn(build, 0), torch.randn(2, 4), exclude=["2.*"])
    with pytest.raises(SettingError, match="no channels"):
        channel_sites(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4))


def test_a_row_has_its_bias():
    assert rows(nn.Linear(3, 2)).shape == (2, 4) and rows(nn.Linear(3, 2, bias=False)).shape == (2, 3)
    assert rows(nn.Conv2d(3, 2, 5)).shape == (2, 76) and rows(nn.BatchNorm1d(4)).shape == (4, 2)
