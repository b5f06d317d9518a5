"""How a method that searched for masks ends."""

import torch
from small_networks import blobs
from torch import nn

from prunus.sparse import Masks, Recipe
from prunus.sparse.methods.result import finished
from prunus.sparse.networks import drawn


def half(model):
    return Masks({n: torch.arange(m.numel()).view(m.shape) % 2 == 0 for n, m in Masks.of(model).items()})


def test_finishing_prunes_for_good_and_counts_what_it_tunes():
    model, task = (
        drawn(lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)), 0),
        blobs(),
    )
    masks = half(model)
    searched = finished(model, masks, task, Recipe(10), 70, 0, 1.0, order=0)
    assert searched.steps == 70 and len(searched.levels) == 1 and bool((model[0].weight[~masks["0.weight"]] == 0).all())
    assert model[1].num_batches_tracked == 20  # statistics are those of the pruned network
    tuned = finished(model, masks, task, Recipe(10, 0.01), 70, 30, 1.0, order=0)
    assert [level.steps for level in tuned.levels] == [70, 100] and tuned.masks == masks
    assert bool((model[0].weight[~masks["0.weight"]] == 0).all())
    assert tuned.levels[1].validation.loss < tuned.levels[0].validation.loss
