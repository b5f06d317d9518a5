"""Calibration layer by layer against the slow and obvious way: a whole forward for each layer, nothing kept."""

import pytest
import tiny_text
import torch
from torch import nn

from prunus.errors import ModelError
from prunus.sparse import Masks
from prunus.sparse.calibration import features, layer_by_layer
from prunus.sparse.models.text_data import Texts, pack
from prunus.sparse.networks import conv_net, drawn, mlp, residual_mlp, resnet


class Rows:
    """Two batches of inputs; the loss is any number that needs the whole network."""

    def __init__(self, *shape):
        generator = torch.Generator().manual_seed(0)
        self.rows = [torch.randn(6, *shape, generator=generator) for _ in range(2)]

    def batch(self, order, step):
        return self.rows[step]

    def loss(self, model, batch):
        return model(batch).square().mean()


class Skipping(nn.Module):
    """The second layer of the list reads what was before the first, so the list is no chain."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        a = self.layers[0](x)
        b = self.layers[1](x) + a
        return self.head(self.layers[2](b))


class Reused(nn.Module):
    """A chain whose first output is read again behind it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        seen = []
        for layer in self.layers:
            x = layer(x)
            seen.append(x)
        return self.head(torch.cat([seen[0], x], -1))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.Linear(4, 2))

    def forward(self, x):
        return self.layers(x)


def texts():
    rows = pack([(list(range(2, 2 + n)), 1) for n in (9, 5, 12, 7)], 12)
    return Texts(rows, rows, rows, batch_size=2)


CASES = {
    "mlp": (lambda: mlp(4, 6, 5, 3), Rows(4)),
    "blocks": (lambda: residual_mlp(4, 6, 3, 2), Rows(4)),
    "convolutions": (lambda: conv_net((4, 4), size=8), Rows(1, 8, 8)),
    "resnet": (lambda: resnet(width=2, blocks=2), Rows(1, 8, 8)),
    "no chain": (Skipping, Rows(4)),
    "read again": (Reused, Rows(4)),
    "in place": (InPlace, Rows(4)),
    "llama": (lambda: tiny_text.network("llama", 30, num_hidden_layers=3), texts()),
    "qwen3": (lambda: tiny_text.network("qwen3", 30), texts()),
}


def squares(x):
    return x.T @ x


def visit(model, log):
    """Prunes a half of each weight, so that later layers see it."""

    def prune(sums):
        weights = dict(model.named_parameters())
        for name, value in sums.items():
            log[name] = value
            weights[name].view(-1)[::2] = 0

    return prune


def block_of(name):
    """The member of ``layers`` or ``blocks`` that a weight is in; members are pruned together."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part in ("layers", "blocks") and at + 2 < len(parts) - 1:
            return ".".join(parts[: at + 2])
    return name


def slowly(model, masks, task):
    """For each layer, or block of layers, in the order of calls: the whole network on all rows, and what it is fed."""
    order = []
    hooks = [
        model.get_submodule(n.rpartition(".")[0]).register_forward_hook(lambda *_, n=n: order.append(n)) for n in masks
    ]
    task.loss(model, task.batch(0, 0))
    for hook in hooks:
        hook.remove()
    found = {}
    for name in order:
        if name in found:
            continue
        together = [other for other in order if block_of(other) == block_of(name)]
        sums = dict.fromkeys(together, 0.0)
        for step in range(2):
            fed = {}
            hooks = [
                model.get_submodule(n.rpartition(".")[0]).register_forward_hook(
                    lambda module, inputs, output, n=n, fed=fed: fed.update({n: features(module, inputs[0].clone())})
                )
                for n in together
            ]
            task.loss(model, task.batch(0, step))
            for hook in hooks:
                hook.remove()
            sums = {n: sums[n] + fed[n].T @ fed[n] for n in together}
        visit(model, found)(sums)
    return found


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_each_layer_is_fed_by_what_is_pruned_before_it(case):
    build, task = CASES[case]
    model, other = drawn(build, 0).eval(), drawn(build, 0).eval()
    masks = Masks.of(model)
    found = {}
    layer_by_layer(model, masks, task, 2, 0, squares, visit(model, found))
    wanted = slowly(other, masks, task)
    assert found.keys() == wanted.keys() == set(masks)
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5), name
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_finished_block_is_not_run_again_and_runs_itself_afterwards():
    model = drawn(lambda: residual_mlp(4, 6, 5, 2), 0)
    calls = dict.fromkeys(range(5), 0)
    for at, block in enumerate(model.blocks):
        block.first.register_forward_hook(lambda *_, at=at: calls.__setitem__(at, calls[at] + 1))
    masks = Masks.of(model, ["stem*", "head*"])
    layer_by_layer(model, masks, Rows(4), 2, 0, squares, lambda sums: None)
    # Once to find the chain; two rows to gather, and two to keep what comes out, but for the last.
    assert calls == {0: 5, 1: 5, 2: 5, 3: 5, 4: 3}
    assert all("forward" not in block.__dict__ for block in model.blocks)
    model.eval()(torch.zeros(1, 4))
    assert calls[0] == 6


def test_blocks_run_themselves_again_after_an_error():
    model = drawn(lambda: residual_mlp(4, 6, 3, 2), 0)

    def fail(sums):
        if "blocks.2.first.weight" in sums:
            raise ValueError("stop here")

    with pytest.raises(ValueError, match="stop here"):
        layer_by_layer(model, Masks.of(model), Rows(4), 2, 0, squares, fail)
    assert all("forward" not in block.__dict__ for block in model.blocks)
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_calibrated_are_named():
    attention = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 1, 8, batch_first=True))
    with pytest.raises(ModelError, match="was not called as a layer of its own"):
        layer_by_layer(attention, Masks.of(attention), Rows(3, 4), 1, 0, squares, lambda sums: None)
    convolution = nn.Sequential(nn.Conv1d(4, 4, 1))
    with pytest.raises(ModelError, match="can be calibrated, not Conv1d"):
        layer_by_layer(convolution, Masks.of(convolution), Rows(4, 3), 1, 0, squares, lambda sums: None)
