"""Importances on the cards' worked numbers, and against slow obvious implementations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Linear, OneExample, blobs, with_weights
from torch import nn
from torch.func import functional_call

from prunus.errors import ModelError, SettingError
from prunus.sparse import Masks, Recipe, prune, prune_in_rounds, train
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.importance import (
    LAMP,
    SNIP,
    GraSP,
    Magnitude,
    Movement,
    Random,
    RewardDrop,
    SynFlow,
    Taylor,
    Wanda,
)
from prunus.sparse.importance.lamp import lamp
from prunus.sparse.importance.snip import normalised
from prunus.sparse.networks import drawn, mlp, residual_mlp
from prunus.sparse.scope import InRows, channels
from prunus.testing import check_importance

EVERY = [GraSP(), LAMP(), Magnitude(), Random(), SNIP(), SynFlow(), Taylor(), Wanda()]


@pytest.mark.parametrize("importance", EVERY, ids=lambda i: type(i).__name__)
def test_it_keeps_the_contract(importance):
    check_importance(importance)


class Noisy:
    def scores(self, model, masks, task):
        return {name: torch.rand(mask.shape) for name, mask in masks.items()}


class Modal:
    def scores(self, model, masks, task):
        return {name: torch.full(mask.shape, float(model.training)) for name, mask in masks.items()}


class Careless:
    def scores(self, model, masks, task):
        task.loss(model, task.batch(0, 0)).backward()
        return {name: w.grad.abs() for name, w in masks.weights(model).items()}


class Flat:
    def scores(self, model, masks, task):
        return {name: torch.ones(mask.numel()) for name, mask in masks.items()}


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Noisy(), "random state"),
        (Modal(), "training mode or not"),
        (Careless(), "left as they were"),
        (Flat(), "shape"),
    ],
)
def test_the_check_names_the_rule_that_is_broken(broken, rule):
    with pytest.raises(AssertionError, match=f"{type(broken).__name__}.*{rule}"):
        check_importance(broken)


@pytest.mark.parametrize("importance", [GraSP(), SNIP(), SynFlow(), Taylor(), Wanda()], ids=lambda i: type(i).__name__)
def test_without_data_it_says_who_needs_them(importance):
    model = mlp(4, 2)
    with pytest.raises(SettingError, match=type(importance).__name__):
        importance.scores(model, Masks.of(model), None)


def test_the_cards_linear_example():
    model, task = Linear(2, -1), OneExample()
    masks = Masks.of(model)
    snip = normalised(SNIP(batches=1).scores(model, masks, task))["layer.weight"]
    assert snip.tolist() == [pytest.approx([0.4, 0.6])]
    assert Taylor(batches=1).scores(model, masks, task)["layer.weight"].tolist() == [[16, 36]]
    assert Taylor(squared=False).scores(model, masks, task)["layer.weight"].tolist() == [[4, 6]]
    assert GraSP(temperature=1, batches=1).scores(model, masks, task)["layer.weight"].tolist() == [[-40, 60]]


def test_snip_is_the_gradient_of_the_mask():
    model, task = drawn(lambda: mlp(8, 6, 4), 1), blobs()
    masks = Masks.of(model)
    gates = {n: torch.ones_like(w).requires_grad_() for n, w in masks.weights(model).items()}
    total = 0
    for step in range(3):
        weights = {n: w.detach() * gates[n] for n, w in masks.weights(model).items()}
        total = total + task.loss(lambda x, w=weights: functional_call(model, w, x), task.batch(5, step)) / 3
    expected = torch.autograd.grad(total, list(gates.values()))
    for found, gradient in zip(SNIP(3, order=5).scores(model, masks, task).values(), expected):
        assert torch.allclose(found, gradient.abs(), atol=1e-7)


def test_grasp_is_weight_times_hessian_times_gradient():
    model, task = drawn(lambda: mlp(8, 3, 4), 1).double(), blobs()
    masks = Masks.of(model)
    names, weights = zip(*masks.weights(model).items())
    batch = tuple(t.double() if t.is_floating_point() else t for t in task.batch(0, 0))

    class Doubled:
        def batch(self, order, step):
            return batch

        loss = staticmethod(task.loss)

    def loss(*values):
        return task.loss(lambda x: functional_call(model, dict(zip(names, values)), x) / 3.0, batch)

    flat = [w.detach() for w in weights]
    gradients = torch.autograd.functional.jacobian(loss, tuple(flat))
    hessian = torch.autograd.functional.hessian(loss, tuple(flat))
    scores = GraSP(temperature=3.0, batches=1).scores(model, masks, Doubled())
    for i, name in enumerate(names):
        product = sum(torch.tensordot(hessian[i][j], gradients[j], 2) for j in range(len(names)))
        assert torch.allclose(scores[name], flat[i] * product, atol=1e-12)


def test_grasp_without_logits_says_what_to_set():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return {"logits": self.layer(x)}

    model = Wrapped()
    with pytest.raises(SettingError, match="temperature=1"):
        GraSP().scores(model, Masks.of(model), blobs())


def test_synflow_has_the_cards_scores_and_conserves_flow():
    model = with_weights([[1, -2], [0.5, 1]], [[3, -1]])

    class Ones:
        example = torch.zeros(1, 2)

    scores = SynFlow().scores(model, Masks.of(model), Ones())
    assert scores["0.weight"].tolist() == [[3, 6], [0.5, 1]] and scores["2.weight"].tolist() == [[9, 1.5]]
    assert all(float(s.sum()) == 10.5 for s in scores.values())


def test_synflow_in_rounds_keeps_every_layer_where_one_round_empties_one():
    model, task = drawn(lambda: mlp(8, 40, 40, 40, 4), 0), blobs()
    masks = Masks.of(model)
    at_once = prune(model, masks, 0.01, SynFlow(), Global(floor=0), task=task)
    in_rounds = prune_in_rounds(model, masks, 0.01, 30, SynFlow(), Global(floor=0), task=task)
    assert in_rounds.kept == at_once.kept == round(0.01 * masks.total)
    assert min(at_once.counts().values()) == 0 < min(in_rounds.counts().values())
    assert all(bool((w != 0).all()) for w in masks.weights(model).values())  # nothing was removed for good


def test_lamp_has_the_cards_scores():
    weight = torch.tensor([1.0, -2.0, 3.0, 4.0])
    assert lamp(weight, torch.ones(4, dtype=torch.bool)).tolist() == pytest.approx([1 / 30, 4 / 29, 9 / 25, 1.0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=12))
def test_lamp_is_its_formula_with_earlier_first(entries):
    values, kept = zip(*entries)
    found = lamp(torch.tensor(values).float(), torch.tensor(kept)).tolist()
    for i, w in enumerate(values):
        larger = [v for j, v in enumerate(values) if kept[j] and (abs(v), -j) <= (abs(w), -i) and j != i]
        rest = [v for j, v in enumerate(values) if kept[j] and (abs(v) > abs(w) or (abs(v) == abs(w) and j <= i))]
        assert len(larger) + len(rest) == sum(kept) if kept[i] else True
        expected = w * w / sum(v * v for v in rest) if kept[i] and w else 0
        assert found[i] == pytest.approx(expected)


def test_wanda_has_the_cards_scores_and_ranks_in_rows():
    matrix = [[0.5, -1, 0.2, 0.1], [2, 0.1, -0.3, 0.4]]
    model = with_weights(matrix)

    class Calibration:  # two rows whose feature norms are 1, .1, 3, 5
        def batch(self, order, step):
            return torch.tensor([[0.6, 0.0, 3.0, 3.0], [0.8, 0.1, 0.0, 4.0]])

        def loss(self, model, batch):
            return model(batch).sum()

    masks = Masks.of(model)
    scores = Wanda(batches=1).scores(model, masks, Calibration())["0.weight"]
    assert torch.allclose(scores, torch.tensor([[0.5, 0.1, 0.6, 0.5], [2, 0.01, 0.9, 2]]))
    half = prune(model, masks, 0.5, Wanda(batches=1), Uniform(), InRows(), Calibration())
    assert half["0.weight"].tolist() == [[True, False, True, False], [True, False, False, True]]


def test_wanda_on_a_convolution_is_wanda_on_its_unfolded_input():
    conv = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(27, 4))
    x = torch.randn(5, 2, 6, 6)

    class Calibration:
        def batch(self, order, step):
            return x

        def loss(self, model, batch):
            return model(batch).sum()

    scores = Wanda(batches=1).scores(conv, Masks.of(conv), Calibration())["0.weight"]
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    for c, i, j in ((0, 0, 0), (1, 2, 1)):
        seen = padded[:, c, i : i + 5 : 2, j : j + 5 : 2]
        assert torch.allclose(scores[:, c, i, j], conv[0].weight[:, c, i, j].abs() * seen.norm())
    attention = nn.TransformerEncoderLayer(8, 2, 8)
    with pytest.raises(ModelError, match="not MultiheadAttention"):
        Wanda(batches=1).scores(attention, Masks.of(attention), Calibration8())


class Calibration8:
    def batch(self, order, step):
        return torch.randn(2, 3, 8)

    def loss(self, model, batch):
        return model(batch).sum()


def test_movement_has_the_cards_sum():
    model, movement = Linear(1, -1), Movement()
    masks = Masks.of(model)
    for gradient, weight in (((0.5, -0.2), (1.0, -1.0)), ((0.4, -0.1), (0.9, -0.9))):
        model.layer.weight.data = torch.tensor([weight])
        model.layer.weight.grad = torch.tensor([gradient])
        movement.observe(model, masks)
    assert movement.scores(model, masks)["layer.weight"].tolist() == [pytest.approx([-0.86, -0.29])]
    model, task, movement = drawn(lambda: mlp(8, 6, 4), 0), blobs(), Movement()
    masks, expected = Masks.of(model), {}

    def watch(step, hold):
        movement.observe(model, masks)
        for name, weight in masks.weights(model).items():
            expected[name] = expected.get(name, 0) - weight.grad.clone() * weight.detach().clone()

    train(model, task, Recipe(5, 0.01), before_step=watch)
    assert all(torch.equal(s, expected[name]) for name, s in movement.scores(model, masks).items())
    model = Linear(1, -1)
    masks = Masks.of(model)
    with pytest.raises(SettingError, match="observed no"):
        Movement().scores(model, masks)


def test_the_drop_of_a_reward_is_what_each_unit_is_worth():
    model = with_weights([[1, 0], [0, 2], [0, 4]], [[1, 1, -1]])
    masks = Masks.of(model)
    units = channels(masks, ["0.weight"], reduce="mean")
    calls = []

    def reward(network):
        calls.append(1)
        return network(torch.ones(2)).item()  # 1 + 2 - 4

    importance = RewardDrop(reward, units)
    before = model[0].weight.clone()
    scores = importance.scores(model, masks)
    assert scores["0.weight"][:, 0].tolist() == [1, 2, -4] and len(calls) == 4
    assert torch.equal(model[0].weight, before)
    kept = prune(model, masks, 2 / 3, importance, scope=units)
    assert kept["0.weight"].all(-1).tolist() == [True, True, False]
    with pytest.raises(SettingError, match="mean"):
        RewardDrop(reward, channels(masks, reduce="sum"))


def test_before_a_batch_norm_the_signed_sum_is_zero_so_absolute_values_are_summed():
    model, task = drawn(lambda: residual_mlp(8, 6, 1, 4), 0), blobs()
    weight = model.blocks[0].first.weight
    task.loss(model, task.batch(0, 0)).backward()  # in training mode: batch statistics make it scale invariant
    product = (weight.grad * weight).detach()
    assert abs(float(product.sum())) < 1e-5 < float(product.abs().sum())


def test_a_random_score_depends_on_its_seed():
    model = mlp(8, 4)
    a, b, c = (Random(seed).scores(model, Masks.of(model))["0.weight"] for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
