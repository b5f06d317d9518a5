"""Layers removed at initialisation: which can go, in which order, and what is left."""

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import ModelError, SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.importance import SNIP, GraSP, Random
from prunus.sparse.methods import LayerLottery
from prunus.sparse.methods.layer_lottery import carbon, drop_blocks, lowest, removable_blocks, saved, score_blocks
from prunus.sparse.networks import ResidualBlock, drawn, residual_mlp, resnet


def build():
    return residual_mlp(8, 6, 5, 4)


class Widening(nn.Module):
    """A residual block with a projection on its shortcut."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.branch, self.shortcut = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.relu(self.branch(x) + self.shortcut(x))


def two_stages():
    first = [nn.Linear(8, 6), nn.ReLU(), ResidualBlock(6), ResidualBlock(6), Widening(6, 9)]
    return nn.Sequential(*first, ResidualBlock(9), ResidualBlock(9), Widening(9, 9), nn.Linear(9, 4))


def test_blocks_with_an_identity_shortcut_can_go():
    model, x = drawn(build, 0), torch.randn(3, 8)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    assert removable_blocks(model, x) == [f"blocks.{i}" for i in range(5)]
    assert model.training and all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_projections_plain_layers_and_on_wish_neighbours_of_a_change_of_shape_stay():
    model, x = drawn(two_stages, 0), torch.randn(3, 8)
    assert removable_blocks(model, x) == ["2", "3", "5", "6"]
    # 2 follows the stem, 3 and 5 surround the projection that widens; the one after 6 keeps the shape.
    assert removable_blocks(model, x, ban_neighbours=True) == ["6"]
    longer = nn.Sequential(*model[:4], ResidualBlock(6), *model[4:])
    assert removable_blocks(longer, x) == ["2", "3", "4", "6", "7"]


def test_a_resnets_first_blocks_of_a_stage_stay():
    model, x = drawn(lambda: resnet(4, 3), 0), torch.randn(2, 1, 8, 8)
    assert removable_blocks(model, x) == [f"blocks.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]
    assert removable_blocks(model, x, ban_neighbours=True) == [f"blocks.{i}" for i in (0, 1, 8)]
    shorter = drop_blocks(model, ["blocks.1", "blocks.8"])
    assert shorter(x).shape == (2, 10) and len(shorter.blocks) == 7


def test_transformer_layers_can_go():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    assert removable_blocks(model, torch.randn(2, 5, 8)) == ["layers.0", "layers.1", "layers.2"]


def test_a_block_that_computes_nothing_can_go_without_a_trace():
    model, x = drawn(build, 0).eval(), torch.randn(9, 8)
    for parameter in model.blocks[2].parameters():
        parameter.data.zero_()
    shorter = drop_blocks(model, ["blocks.2"])
    assert len(shorter.blocks) == 4 and len(model.blocks) == 5
    assert torch.equal(shorter(x), model(x))
    assert torch.equal(shorter.blocks[2].first.weight, model.blocks[3].first.weight)


def test_removed_is_the_same_as_masked():
    model, x = drawn(build, 3).eval(), torch.randn(9, 8)
    shorter = drop_blocks(model, ["blocks.4", "blocks.1"])
    for i in (1, 4):
        model.blocks[i].norm2.weight.data.zero_()
        model.blocks[i].norm2.bias.data.zero_()
    assert torch.equal(shorter(x), model(x))


def test_the_cards_toy_order():
    scores = torch.tensor([0.2, 0.1, 0.5])  # of the candidates 0, 2 and 3
    candidates = [0, 2, 3]
    assert [candidates[i] for i in lowest(scores, 2)] == [2, 0]
    assert [candidates[i] for i in lowest(scores, 2, reverse=True)] == [3, 0]
    assert lowest(torch.zeros(3), 2) == [2, 1]  # of equals the earlier stays
    with pytest.raises(SettingError, match="from 0 to the 3"):
        lowest(scores, 4)


@pytest.mark.parametrize("importance", [SNIP(), GraSP(temperature=1)])
def test_a_blocks_score_is_the_sum_of_its_weights(importance):
    model, task = drawn(build, 0), blobs()
    blocks = [f"blocks.{i}" for i in range(5)]
    weights = importance.scores(model, Masks.of(model), task)
    expected = [sum(float(s.sum()) for n, s in weights.items() if n.startswith(b + ".")) for b in blocks]
    assert score_blocks(model, blocks, importance, task).tolist() == pytest.approx(expected, rel=1e-4)
    mean = score_blocks(model, blocks, importance, task, reduce="mean").tolist()
    assert mean == pytest.approx([e / 72 for e in expected], rel=1e-4)


def test_the_method_trains_the_shorter_network_once_from_its_own_weights():
    task = blobs()
    found = LayerLottery(p=2).run(build, task, Recipe(30, 0.01), seed=1)
    scores = [score for _, score in found.order]
    assert scores == sorted(scores) and found.dropped == [name for name, _ in found.order[:2]]
    assert len(found.model.blocks) == 3 and found.steps == 30 and found.masks is None
    reverse = LayerLottery(p=2, reverse=True).run(build, task, Recipe(30, 0.01), seed=1)
    assert reverse.order == found.order[::-1] and set(reverse.dropped).isdisjoint(found.dropped)
    drawn_lots = LayerLottery(p=2, importance=Random(5)).run(build, task, Recipe(30, 0.01), seed=1)
    assert len(drawn_lots.model.blocks) == 3


def test_after_training_it_goes_back_to_an_early_state():
    task, recipe = blobs(), Recipe(20, 0.01)
    found = LayerLottery(p=1, at="trained", rewind_to=5).run(build, task, recipe)
    assert found.steps == 5 + 15 + 15
    with pytest.raises(SettingError, match="nothing to go back to"):
        LayerLottery(rewind_to=5)


def test_savings_and_carbon_have_the_cards_numbers():
    class Stack(nn.Module):
        def __init__(self, blocks):
            super().__init__()
            self.stem, self.head = nn.Linear(10, 10, bias=False), nn.Linear(10, 1, bias=False)
            self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(10, 5, bias=False)) for _ in range(blocks)))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = torch.cat([block(x), x[:, 5:]], -1)
            return self.head(x)

    dense = Stack(4)  # 100 + 4 * 50 + 10 = 310
    shares = saved(dense, drop_blocks(dense, ["blocks.1"]), torch.zeros(1, 10))
    assert shares.macs == shares.parameters == pytest.approx(0.1613, abs=5e-5)
    assert carbon(100, 36, 0.4) == pytest.approx((0.001, 0.0004))


def test_too_many_blocks_and_wrong_names_are_errors():
    with pytest.raises(SettingError, match="at most the 5 blocks"):
        LayerLottery(p=6).run(build, blobs(), Recipe(5))
    with pytest.raises(ModelError, match="Linear"):
        drop_blocks(nn.Sequential(nn.Linear(2, 2)), ["0.weight"])
    with pytest.raises(SettingError, match="names of children"):
        drop_blocks(drawn(build, 0), ["blocks.7"])
