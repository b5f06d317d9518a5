"""Learned masks: the gradient at the product, and one step of training scores."""

import torch
from small_networks import blobs

from prunus.sparse import Masks
from prunus.sparse.allocation import Global
from prunus.sparse.learned import LearnedMask, gradients_at_product, keep_best, straight_through
from prunus.sparse.networks import drawn, mlp


def test_the_gradient_is_taken_at_the_product_also_where_the_mask_is_zero():
    model, task = drawn(lambda: mlp(8, 6, 4), 0), blobs()
    masks = Masks.of(model).changed({"0.weight": torch.eye(6, 8).bool()})
    batch = task.batch(0, 0)
    loss, found = gradients_at_product(model, masks, lambda network: task.loss(network, batch))
    with masks.virtual(model):
        expected = torch.autograd.grad(task.loss(model, batch), list(masks.weights(model).values()))
        assert torch.equal(loss, task.loss(model, batch).detach())
    assert all(torch.allclose(a, b) for a, b in zip(found.values(), expected))
    assert bool((found["0.weight"][~masks["0.weight"]] != 0).any())
    assert torch.equal(
        straight_through(model[0].weight, found["0.weight"], masks["0.weight"]), model[0].weight * found["0.weight"]
    )


def test_a_gate_of_a_row_may_be_a_number():
    model, task = drawn(lambda: mlp(8, 6, 4), 0), blobs()
    batch, gate = task.batch(0, 0), torch.linspace(0, 1, 6).unsqueeze(1)
    loss, found = gradients_at_product(model, {"0.weight": gate}, lambda network: task.loss(network, batch))
    with torch.no_grad():
        model[0].weight.mul_(gate)
    assert torch.allclose(loss, task.loss(model, batch)) and found["0.weight"].shape == (6, 8)


def test_scores_are_trained_on_frozen_weights_and_pruned_ones_come_back():
    model, task = drawn(lambda: mlp(8, 30, 4), 0), blobs()
    masks = Masks.of(model)
    scores = {n: torch.full(m.shape, 1.0) for n, m in masks.items()}
    project = keep_best(0.3, Global())
    learned = LearnedMask(scores, project(scores, masks), straight_through, project)
    first, before = learned.masks, model[0].weight.clone()
    optimiser = torch.optim.SGD(scores.values(), lr=0.02)
    for step in range(100):
        learned.step(model, task, task.batch(0, step), optimiser)
    assert learned.masks.kept == first.kept == round(0.3 * masks.total)
    assert not learned.masks.within(first) and torch.equal(model[0].weight, before)

    def loss(of):
        with of.virtual(model):
            return task.evaluate(model, "validation").loss

    assert loss(learned.masks) < 0.7 * loss(first)
