"""Masks in force while an optimiser trains: on weights and its state, never on gradients."""

from functools import partial

import pytest
import torch
from small_networks import blobs

from prunus.sparse import Masks
from prunus.sparse.networks import drawn, mlp

OPTIMISERS = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
}


def step(model, task, optimiser, at):
    optimiser.zero_grad()
    task.loss(model, task.batch(0, at)).backward()
    optimiser.step()


def state_of(optimiser, weight):
    return [v for v in optimiser.state[weight].values() if isinstance(v, torch.Tensor) and v.shape == weight.shape]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_pruned_weights_and_their_optimiser_state_stay_zero_and_gradients_stay_dense(optimiser):
    task, model = blobs(), drawn(lambda: mlp(8, 12, 4), 0)
    optimiser = OPTIMISERS[optimiser](model.parameters())
    for at in range(3):  # the optimiser has a memory of every weight
        step(model, task, optimiser, at)
    masks = Masks.of(model)
    draw = torch.Generator().manual_seed(1)
    masks = Masks({n: torch.rand(m.shape, generator=draw) < 0.3 for n, m in masks.items()})
    with masks.hold(model, optimiser):
        for at in range(3, 8):
            step(model, task, optimiser, at)
            for name, weight in masks.weights(model).items():
                assert bool((weight[~masks[name]] == 0).all()) and bool((weight[masks[name]] != 0).any())
                assert bool((weight.grad[~masks[name]] != 0).any())
                state = state_of(optimiser, weight)
                assert state and all(bool((s[~masks[name]] == 0).all()) for s in state)
    step(model, task, optimiser, 8)  # let go: pruned weights move again
    assert bool((model[0].weight[~masks["0.weight"]] != 0).any())


def test_new_masks_act_at_once_and_what_grows_starts_at_zero_without_memory():
    task, model = blobs(), drawn(lambda: mlp(8, 12, 4), 0)
    optimiser = OPTIMISERS["momentum"](model.parameters())
    even = (torch.arange(96) % 2 == 0).view(12, 8)
    first = Masks.of(model).changed({"0.weight": even})
    hold = first.hold(model, optimiser)
    step(model, task, optimiser, 0)
    hold.masks = first.changed({"0.weight": ~even})
    weight = model[0].weight
    assert bool((weight == 0).all())  # the old ones are pruned, the new ones start at zero
    assert all(bool((s == 0).all()) for s in state_of(optimiser, weight))
    step(model, task, optimiser, 1)
    assert bool((weight[~even] != 0).any()) and bool((weight[even] == 0).all())
