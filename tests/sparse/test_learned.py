"""Learned masks: the gradient at the product, masks in the forward pass, and descent on scores."""

import copy

import pytest
import torch
from small_networks import blobs, with_weights

from prunus.errors import ModelError, SettingError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.learned import Masked, Scored, ScoreDescent, gradients_at_product, keep_best
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.scope import channels


def build():
    return mlp(8, 6, 4)


def half(model):
    return Masks({n: torch.arange(m.numel()).view(m.shape) % 2 == 0 for n, m in Masks.of(model).items()})


def masked_copy(model, masks):
    """The slow way to the network that a mask stands for."""
    model = copy.deepcopy(model)
    masks.apply(model)
    return model


def test_the_gradient_is_taken_at_the_product_also_where_the_mask_is_zero():
    model, task = drawn(build, 0), blobs()
    masks = Masks.of(model).changed({"0.weight": torch.eye(6, 8).bool()})
    batch = task.batch(0, 0)
    loss, found = gradients_at_product(model, masks, lambda network: task.loss(network, batch))
    other = masked_copy(model, masks)
    expected = torch.autograd.grad(task.loss(other, batch), list(masks.weights(other).values()))
    assert torch.equal(loss, task.loss(other, batch).detach())
    assert all(torch.allclose(a, b) for a, b in zip(found.values(), expected))
    assert bool((found["0.weight"][~masks["0.weight"]] != 0).any())
    with pytest.raises(ModelError, match="no weight 'x'"):
        gradients_at_product(model, {"x": torch.ones(1)}, lambda network: task.loss(network, batch))


def test_a_gate_of_a_row_may_be_a_number():
    model, task = drawn(build, 0), blobs()
    batch, gate = task.batch(0, 0), torch.linspace(0, 1, 6).unsqueeze(1)
    loss, found = gradients_at_product(model, {"0.weight": gate}, lambda network: task.loss(network, batch))
    with torch.no_grad():
        model[0].weight.mul_(gate)
    assert torch.allclose(loss, task.loss(model, batch)) and found["0.weight"].shape == (6, 8)


def test_a_masked_network_computes_as_the_pruned_one_and_moves_kept_weights_only():
    model, task = drawn(build, 0), blobs()
    masks = half(model)
    network, before = Masked(model, masks), model[0].weight.clone()
    assert torch.equal(network(task.example), masked_copy(model, masks)(task.example))
    train(network, task, Recipe(5, 0.1, torch.optim.SGD))
    moved = model[0].weight != before
    assert not bool((moved & ~masks["0.weight"]).any()) and bool(moved.any())
    network.masks = dense = Masks.of(model)  # what was pruned comes back with the value that it had
    assert torch.equal(network(task.example), model(task.example)) and network.masks == dense


def test_its_masks_are_part_of_its_state():
    model = drawn(build, 0)
    network, other = Masked(model, half(model)), Masked(drawn(build, 1), Masks.of(model))
    other.load_state_dict(network.state_dict())
    assert other.masks == network.masks and torch.equal(other.network[2].weight, model[2].weight)
    with pytest.raises(SettingError, match="new mask"):
        network.masks = Masks({"0.weight": torch.ones(2, 2, dtype=torch.bool)})


def test_the_gradient_of_a_score_is_the_weight_times_that_at_the_product():
    model, task = drawn(build, 0), blobs()
    masks, batch = half(model), task.batch(0, 0)
    network = Scored(model, masks, {n: torch.rand(m.shape) for n, m in masks.items()})
    task.loss(network, batch).backward()
    _, expected = gradients_at_product(model, masks, lambda masked: task.loss(masked, batch))
    for name, score in network.scores.items():
        assert torch.allclose(score.grad, masks.weights(model)[name].detach() * expected[name], atol=1e-7)
        assert bool((score.grad[~masks[name]] != 0).any())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(network(task.example), masked_copy(model, masks)(task.example))


def test_descent_has_momentum_and_a_box():
    descent = ScoreDescent({"w": torch.tensor([0.5, 0.98, 0.01])}, momentum=0.5)
    gradient = {"w": torch.tensor([0.1, -0.1, 0.2])}
    descent.step(gradient, 0.1)
    assert torch.allclose(descent.scores["w"], torch.tensor([0.49, 0.99, 0.0]))
    descent.step(gradient, 0.1)  # v = 1.5 g
    assert torch.allclose(descent.scores["w"], torch.tensor([0.475, 1.0, 0.0]))
    free = ScoreDescent({"w": torch.tensor([0.01])}, momentum=0.0, box=False)
    free.step({"w": torch.tensor([0.2])}, 0.1)
    assert torch.allclose(free.scores["w"], torch.tensor([-0.01]))


def test_descent_goes_on_from_its_state_bit_by_bit():
    gradients = [{"w": torch.randn(4)} for _ in range(4)]
    straight, first, second = (ScoreDescent({"w": torch.full((4,), 0.5)}) for _ in range(3))
    for gradient in gradients:
        straight.step(gradient, 0.1)
    for gradient in gradients[:2]:
        first.step(gradient, 0.1)
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    for gradient in gradients[2:]:
        second.step(gradient, 0.1)
    assert torch.equal(second.scores["w"], straight.scores["w"])


def test_the_projection_chooses_afresh_and_by_filter_or_input_channel():
    scores = {"a": torch.tensor([[3.0, 0.0, 4.0], [2.0, 2.0, 2.0]])}
    assert keep_best(0.5, Global())(scores)["a"].tolist() == [[True, False, True], [True, False, False]]
    masks = Masks({"a": torch.zeros(2, 3, dtype=torch.bool)})
    rows = keep_best(0.5, Uniform(), channels(masks, reduce="norm"))(scores)  # norms 5 and 3.46
    assert rows["a"].tolist() == [[True] * 3, [False] * 3]
    columns = keep_best(2 / 3, Uniform(), channels(masks, reduce="norm", inputs=True))(scores)  # 3.61, 2, 4.47
    assert columns["a"].tolist() == [[True, False, True]] * 2


def test_masks_of_another_model_are_refused():
    with pytest.raises(ModelError, match="another model"):
        Masked(with_weights([[1.0, 2.0]]), Masks.of(drawn(build, 0)))
