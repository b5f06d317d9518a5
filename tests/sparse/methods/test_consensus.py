"""Consensus sub-networks: the card's numbers, and gates that agree and are gone."""

import dataclasses

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe
from prunus.sparse.input_gates import Gate, InputGates
from prunus.sparse.macs import macs
from prunus.sparse.methods import Consensus
from prunus.sparse.methods.consensus import activation, agreement, decide, extract, polarity
from prunus.sparse.networks import drawn, residual_mlp, resnet
from prunus.sparse.training import cosine

pytest.importorskip("torch_pruning")
SHARES = torch.tensor([0, 0.5, 0.9, 1])


def build():
    return residual_mlp(8, 6, 4, 4)


def fixed(gate, kept):
    """The gate decides so for every row."""
    torch.nn.init.zeros_(gate.network[-1].weight)
    gate.network[-1].bias.data = torch.where(kept, 20.0, -20.0)


def test_the_cards_numbers():
    assert float(polarity(SHARES)) == pytest.approx(0.085)
    assert float(activation(SHARES, torch.tensor([1.0, 1, 2, 4]), 0.5)) == pytest.approx(0.08265625)
    assert agreement(SHARES) == pytest.approx(0.85)
    shares = SHARES.clone().requires_grad_()
    (4 * polarity(shares)).backward()
    assert shares.grad.tolist() == pytest.approx([1, 0, -0.8, -1])  # 1 - 2 gbar


def test_polarisation_warms_up():
    method = Consensus(lam_pol=3, warm_up=0.4)
    assert [method.polarising(p) for p in (0, 0.1, 0.2, 0.4, 0.9)] == pytest.approx([0, 0.75, 1.5, 3, 3])
    assert Consensus(lam_pol=3, warm_up=0).polarising(0) == 3


def test_the_majority_decides():
    kept = decide({"a": torch.tensor([0.5]), "b": torch.tensor([0.51]), "c.weight": torch.tensor([0.1, 0.6, 0.2])})
    assert [k.tolist() for k in kept.values()] == [[False], [True], [False, True, False]]


def test_a_target_can_be_met_exactly():
    blocks = {name: torch.tensor([share]) for name, share in (("a", 0.9), ("b", 1.0), ("c", 0.8), ("d", 1.0))}
    assert [bool(k) for k in decide(blocks, 0.5).values()] == [False, True, False, True]
    channels = {"a.weight": torch.tensor([0.1, 0.2]), "b.weight": torch.tensor([0.9, 0.8, 0.7, 0.6])}
    assert [k.tolist() for k in decide(channels, 0.5).values()] == [[False, True], [True, True, False, False]]


@pytest.mark.parametrize("network, shape", [(build, (6, 8)), (lambda: resnet(4, 2), (3, 1, 8, 8))])
@pytest.mark.parametrize("units", ["blocks", "channels"])
def test_the_extracted_network_computes_what_the_gated_one_does(network, shape, units):
    model, x = drawn(network, 0), torch.randn(shape)
    for module in model.modules():
        if hasattr(module, "running_mean"):
            for part in (module.running_mean, module.weight.data, module.bias.data):
                part.normal_()
    model.eval()
    gates = InputGates(model, x[:1], units)
    kept = {}
    for number, (name, gated) in enumerate(gates.gated.items()):
        kept[name] = (torch.arange(gated.units) + number) % 3 != 0
        if number == 1:  # nothing is left of this one
            kept[name][:] = False
        fixed(gated.gate, kept[name])
    expected = model(x)
    gates.remove()
    full = model(x)
    smaller = extract(model, kept, x[:1])
    assert torch.allclose(smaller(x), expected, rtol=0, atol=1e-5) and not torch.allclose(full, expected, atol=1e-3)
    assert macs(smaller, x[:1]) < macs(model, x[:1])


@pytest.mark.parametrize("units", ["blocks", "channels"])
def test_gates_come_to_agree_and_the_target_is_met(units):
    task = blobs(rows=600)
    method, recipe = Consensus(0.5, units, lam_pol=10, lam_act=30), Recipe(200, 0.02, decay=cosine)
    found = method.run(build, task, recipe, seed=0)
    on = torch.cat(list(found.kept.values()))
    assert abs(int(on.sum()) - len(on) / 2) <= max(1, len(on) / 8) and found.agreement > 0.98
    assert found.steps == 200 and found.masks is None and found.average_macs is None
    assert not any("gate" in name for name in found.model.state_dict())
    assert macs(found.model, task.example) < macs(drawn(build, 0), task.example)
    gated = dataclasses.replace(method, static=False).run(build, task, recipe, seed=0)
    assert gated.average_macs == pytest.approx(found.dynamic_macs) and "gate" in " ".join(gated.model.state_dict())
    # Once polarised, the gates decide as the majority does (but for batch norms' statistics, this is the static net).
    x = task.test[0]
    with torch.no_grad():
        dynamic = gated.model.eval()(x).argmax(1)
        for gate, kept in zip((m for m in gated.model.modules() if isinstance(m, Gate)), gated.kept.values()):
            fixed(gate, kept)
        assert (dynamic == gated.model(x).argmax(1)).float().mean() >= 0.99


def test_runs_are_the_same_for_the_same_seed():
    task, method = blobs(), Consensus(lam_act=10)
    one, two = (method.run(build, task, Recipe(20, 0.01), seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values()))


class Endless:
    """A task that does not say how many batches it has."""

    def __init__(self):
        self.task = blobs()

    def __getattr__(self, name):
        return getattr(self.task, name)


def test_how_many_batches_decide_must_be_known():
    with pytest.raises(SettingError, match="batches = None needs Examples"):
        Consensus().run(build, Endless(), Recipe(2))
    assert Consensus(batches=2).run(build, Endless(), Recipe(2)).steps == 2


@pytest.mark.parametrize("wrong", [{"target": 0}, {"units": "heads"}, {"lam_pol": -1}, {"warm_up": 2}, {"tau": 0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Consensus(**wrong)
