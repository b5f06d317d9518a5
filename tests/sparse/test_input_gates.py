"""Gates that look at the input: what they let through, skip, cost and leave behind."""

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import SettingError
from prunus.sparse.input_gates import Gate, GatedBlock, InputGates, pooled
from prunus.sparse.macs import macs
from prunus.sparse.networks import drawn, mlp, residual_mlp, resnet

pytest.importorskip("torch_pruning")


def build():
    return residual_mlp(8, 6, 4, 4)


def fixed(gate, *logits):
    """The gate decides so for every row."""
    nn.init.zeros_(gate.network[-1].weight)
    gate.network[-1].bias.data = torch.tensor(logits, dtype=torch.float32)


def test_a_gated_block_is_computed_or_left_out_row_by_row():
    model = drawn(build, 0).eval()
    block, x = model.blocks[0], torch.randn(5, 6).relu()
    gate = Gate(6, 1).eval()
    gated, seen = GatedBlock(block, gate), []
    block.register_forward_hook(lambda *_: seen.append(1))
    gate.network = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(6, 1))
    with torch.no_grad():
        gate.network[-1].weight.copy_(torch.ones(1, 6))
        gate.network[-1].bias.copy_(-x.sum(1).median())
    on = x.sum(1) > x.sum(1).median()
    expected = torch.where(on[:, None], block(x), x)
    assert torch.equal(gated(x), expected) and 0 < int(on.sum()) < 5
    assert float(gate.share) == pytest.approx(int(on.sum()) / 5)
    gate.network[-1].bias.data.fill_(-1e3)
    before = len(seen)
    assert torch.equal(gated(x), x) and len(seen) == before  # not computed at all
    assert (gated.calls, gated.skipped) == (2, 1)


def test_the_backward_pass_goes_straight_through_to_the_soft_gate():
    torch.manual_seed(0)
    gate = Gate(3, 2, opened=0.3).train()
    x = torch.randn(64, 3)
    torch.manual_seed(7)
    on = gate(x)
    assert set(on.detach().unique().tolist()) <= {0.0, 1.0}
    on[:, 0].sum().backward()
    torch.manual_seed(7)
    chance = torch.rand(64, 2)
    soft = torch.sigmoid(gate.network(x) + torch.log(chance / (1 - chance)))
    expected = torch.autograd.grad(soft[:, 0].sum(), gate.network[-1].bias)[0]
    assert torch.allclose(gate.network[-1].bias.grad, expected, atol=1e-5)
    assert torch.equal(on.detach(), (soft > 0.5).float())
    gate.eval()
    assert torch.equal(gate(x), gate(x)) and torch.equal(gate(x), (gate.network(x) > 0).float())


def test_small_batches_are_averaged_with_those_before():
    gate = Gate(3, 1).train()
    fixed(gate, -50.0)
    gate(torch.zeros(8, 3))
    assert gate.share.item() == pytest.approx(0.75)  # 1 - 8 / 32
    gate(torch.zeros(8, 3))
    assert gate.share.item() == pytest.approx(0.75**2)
    gate(torch.zeros(40, 3))
    assert gate.share.item() == 0


def test_pixels_and_tokens_are_averaged():
    assert torch.equal(pooled(torch.ones(2, 3, 4, 4)), torch.ones(2, 3))
    assert torch.equal(pooled(torch.ones(2, 4, 3)), torch.ones(2, 3)) and pooled(torch.ones(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("network, shape", [(build, (6, 8)), (lambda: resnet(4, 2), (3, 1, 8, 8))])
@pytest.mark.parametrize("units", ["blocks", "channels"])
def test_gates_leave_no_trace(network, shape, units):
    model, x = drawn(network, 0).eval(), torch.randn(shape)
    before, names = model(x), list(model.state_dict())
    gates = InputGates(model, x[:1], units)
    for gated in gates.gated.values():
        fixed(gated.gate, *[50.0] * gated.units)
    assert torch.equal(model(x), before) and len(list(model.parameters())) > len(names) / 3
    assert any("gate" in name for name in model.state_dict())
    gates.remove()
    assert torch.equal(model(x), before) and list(model.state_dict()) == names


def test_what_is_on_average_computed_is_what_is_counted():
    model, task = drawn(build, 0), blobs()
    dense = macs(model, task.example)
    gates = InputGates(model, task.example)
    overhead = 4 * (6 * 16 + 16)
    assert gates.macs().tolist() == [72.0] * 4 and gates.rest == dense - 4 * 72 + overhead
    for gated, logit in zip(gates.gated.values(), (50.0, -50.0, 50.0, -50.0), strict=True):
        fixed(gated.gate, logit)
    shares = gates.over(task, 3)
    assert [float(s) for s in shares.values()] == [1, 0, 1, 0]
    assert gates.average_macs(shares) == macs(model, task.example) == dense + overhead - 2 * 72


def test_a_network_without_removable_blocks_is_refused():
    with pytest.raises(SettingError, match="try units = 'channels'"):
        InputGates(mlp(8, 6, 4), torch.randn(1, 8))
    with pytest.raises(SettingError, match="blocks or channels"):
        InputGates(drawn(build, 0), torch.randn(1, 8), "heads")
