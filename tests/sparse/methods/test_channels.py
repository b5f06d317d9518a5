"""Channels removed once: as many as the budget allows, really gone, and the right ones."""

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.allocation import Global
from prunus.sparse.importance import SNIP, Magnitude, Random
from prunus.sparse.macs import macs
from prunus.sparse.methods import Channels
from prunus.sparse.networks import drawn, mlp, resnet

pytest.importorskip("torch_pruning")


def build():
    return mlp(8, 16, 12, 4)


def widths(model):
    return [layer.out_features for layer in model if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_as_much_is_kept_as_the_multiply_adds_allow(share):
    task, model = blobs(), drawn(build, 0)
    smaller = Channels(macs=share).remove(model, task)
    a, b, _ = widths(smaller)
    assert macs(smaller, task.example) == 8 * a + a * b + 4 * b <= share * macs(model, task.example)
    k = a + b + 1  # one row more would be too many
    more = Channels(kept=k).remove(model, task)
    assert macs(more, task.example) > share * macs(model, task.example)
    assert abs(a / 16 - b / 12) < 1 / 12  # the same share of each layer


def test_the_rows_with_the_largest_scores_stay():
    model = drawn(build, 1)
    smaller = Channels(kept=10, allocation=Global()).remove(model, blobs())
    norms = torch.cat([model[i].weight.norm(dim=1) for i in (0, 2)])
    best = norms >= norms.sort().values[-10]
    assert widths(smaller) == [int(best[:16].sum()), int(best[16:].sum()), 4]
    assert torch.equal(smaller[0].weight, model[0].weight[best[:16]])
    assert torch.equal(smaller[2].weight, model[2].weight[best[16:]][:, best[:16]])


def test_steps_of_both_trainings_count_and_nothing_is_trained_before_initialisation():
    task, recipe = blobs(), Recipe(20, 1e-2)
    assert Channels().run(build, task, recipe).steps == 40
    assert Channels(pretrain=5).run(build, task, recipe).steps == 25
    found = Channels(at="init", importance=SNIP(), reduce="sum").run(build, task, recipe, seed=3)
    assert found.steps == 20 and found.masks is None and found.levels[-1].steps == 20
    assert widths(found.model) == widths(Channels(importance=SNIP(), reduce="sum").remove(drawn(build, 3), task))
    assert Channels(at="init").taxonomy.when == "before_training"
    assert Channels(importance=Random()).taxonomy.criteria != Channels(importance=Magnitude()).taxonomy.criteria


def test_inner_filters_of_residual_blocks_can_go():
    task = blobs(dimensions=64)
    inputs = {n: (getattr(task, n)[0].view(-1, 1, 8, 8), getattr(task, n)[1]) for n in ("train", "validation", "test")}
    task = type(task)(**inputs, batch_size=20)
    model = drawn(lambda: resnet(4, 1), 0)
    smaller = Channels(("*.first.weight",), macs=0.5).remove(model, task)
    for before, after in zip(model.blocks, smaller.blocks):
        assert after.first.out_channels == after.second.in_channels == after.norm1.num_features
        assert after.first.out_channels < before.first.out_channels
        assert after.second.out_channels == before.second.out_channels
    assert smaller(task.example).shape == (1, 10) and Masks.of(smaller).total < Masks.of(model).total


def test_what_cannot_be_is_said():
    task, model = blobs(), drawn(build, 0)
    with pytest.raises(SettingError, match="one row in each"):
        Channels(("0.weight",), macs=0.05).remove(model, task)
    with pytest.raises(SettingError, match="kept"):
        Channels(kept=1).remove(model, task)
    for bad in ({"macs": 1.0}, {"kept": 0}, {"at": "later"}, {"pretrain": -1}):
        with pytest.raises(SettingError, match=next(iter(bad))):
            Channels(**bad)
