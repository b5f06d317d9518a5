"""Sensitivity: one layer pruned alone, the others and the model left as they are."""

import pytest
import torch
from small_networks import OneExample, with_weights

from prunus.errors import SettingError
from prunus.sparse import Masks
from prunus.sparse.macs import layer_costs
from prunus.sparse.scope import channels
from prunus.sparse.sensitivity import sensitivity
from prunus.sparse.task import Evaluation


class SumOfOutputs(OneExample):
    """Validation is the sum of what the network says to (1, 3)."""

    def evaluate(self, model, split):
        assert split == "validation"
        with torch.no_grad():
            value = float(model(self.example).sum())
        return Evaluation(-value, value)


def network():
    # hidden = (1 + 6, 4 + 3) = (7, 7); out = 7 * 1 + 7 * 3 = 28
    return with_weights([[1, 2], [4, 1]], [[1, 3]])


def test_each_layer_is_pruned_alone_and_put_back():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sensitivity(model, SumOfOutputs(), Masks.of(model), densities=(0.5,))
    # half of the first: 4 and 2 stay, hidden = (6, 4), out = 6 + 12; half of the second: 3 stays, out = 21
    assert {name: seen[0].score for name, seen in found.items()} == {"0.weight": 18.0, "2.weight": 21.0}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_units_are_pruned_group_by_group():
    model = network()
    masks = Masks.of(model)
    found = sensitivity(model, SumOfOutputs(), masks, (0.5,), scope=channels(masks, ["0.*"]))
    assert found["0.weight"][0].score == 21.0  # the row (1, 2) goes, (4, 1) stays: 3 * 7
    with pytest.raises(SettingError, match="above 0 and below 1"):
        sensitivity(model, SumOfOutputs(), masks, (1.0,))


def test_a_layers_cost_is_its_share_of_the_dense_one():
    model = network()
    masks = Masks.of(model)
    half = masks.changed({"0.weight": torch.tensor([[True, False], [False, False]])})
    rows = layer_costs(model, SumOfOutputs.example, half)
    assert [(r.name, r.shape, r.weights, r.kept, r.density, r.macs, r.dense_macs) for r in rows] == [
        ("0.weight", (2, 2), 4, 1, 0.25, 1.0, 4),
        ("2.weight", (1, 2), 2, 2, 1.0, 2.0, 2),
    ]
