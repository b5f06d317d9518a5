"""SparseGPT against optimal brain surgery worked out slowly, and on networks."""

import itertools

import pytest
import tiny_text
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import blobs
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config
from transformers.pytorch_utils import Conv1D

from prunus.errors import ModelError, SettingError
from prunus.sparse import Masks, Recipe, importance, prune, train
from prunus.sparse.allocation import Uniform
from prunus.sparse.methods import METHODS, SparseGPT, Wanda
from prunus.sparse.models.text_data import Texts, pack
from prunus.sparse.networks import conv_net, drawn, mlp
from prunus.sparse.scope import InRows, NofM


def surgeon(row, hessian, pruned):
    """OBS, exact: remove one weight after another, each time with the inverse of the Hessian over what is left.

    The change of the others is -w_q / [H^-1]_qq * H^-1[:, q]. Returns the row and each removal's loss w_q^2 /
    (2 [H^-1]_qq), with the loss 1/2 dw^T H dw.
    """
    row, left, losses = row.clone().double(), list(range(len(row))), []
    for q in pruned:
        at = left.index(q)
        inverse = torch.linalg.inv(hessian.double()[left][:, left])
        losses.append(float(row[q] ** 2 / (2 * inverse[at, at])))
        row[left] -= row[q] / inverse[at, at] * inverse[:, at]
        row[q] = 0
        left.remove(q)
    return row, losses


def left_to_right(row, hessian, kept):
    """The same with only later columns to make up: column j sees the inverse over the columns from j on."""
    row = row.clone().double()
    for j in range(len(row)):
        if not kept[j]:
            inverse = torch.linalg.inv(hessian.double()[j:, j:])
            row[j:] -= row[j] / inverse[0, 0] * inverse[:, 0]
            row[j] = 0
    return row


CARD = torch.tensor([[1.0, 1.0], [1.0, 0.9], [0.0, 0.5]])


def test_the_cards_example():
    """X = [[1,1],[1,.9],[0,.5]], H = [[4,3.8],[3.8,4.12]], w = (1, .5): losses (.2476, .0638); w2 out, w1 = 1.475."""
    hessian = SparseGPT().gather(CARD)
    assert torch.allclose(hessian, torch.tensor([[4.0, 3.8], [3.8, 4.12]]))
    row = torch.tensor([1.0, 0.5])
    assert surgeon(row, hessian, [0])[1] == pytest.approx([0.2476], abs=5e-5)
    changed, losses = surgeon(row, hessian, [1])
    assert losses == pytest.approx([0.0638], abs=6e-5)
    assert changed.tolist() == pytest.approx([1.475, 0])
    # Columns are done from left to right: with w2 first it is scored as in OBS, and w1 makes up for it.
    swapped = [1, 0]
    new, kept = SparseGPT(damping=0).pruned(
        row[swapped].unsqueeze(0), torch.ones(1, 2, dtype=torch.bool), hessian[swapped][:, swapped]
    )
    assert kept.tolist() == [[False, True]]
    assert new[0].tolist() == pytest.approx([0, 1.475])


def made_up(rows, columns, seed, samples=64):
    """A weight and correlated inputs, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator)
    x = torch.randn(samples, columns, generator=generator) @ (mixed / columns**0.5 + torch.eye(columns))
    return torch.randn(rows, columns, generator=generator).double(), x.double()


@given(st.integers(0, 1000), st.sampled_from([1, 3, 4, 12]), st.sampled_from([0.25, 0.5, 0.8]))
@settings(max_examples=30, deadline=None)
def test_survivors_are_moved_as_by_explicit_inverses(seed, block, density):
    weight, x = made_up(3, 12, seed)
    method = SparseGPT(density=density, block=block, damping=0)
    hessian = method.gather(x)
    new, kept = method.pruned(weight, torch.ones_like(weight, dtype=torch.bool), hessian)
    assert int(kept.sum()) == round(density * weight.numel())
    for i in range(len(weight)):
        wanted = left_to_right(weight[i], hessian, kept[i])
        assert torch.allclose(new[i], wanted, atol=1e-6)
    assert not bool(new[~kept].any())


def test_a_column_is_scored_by_the_loss_of_its_removal():
    """With one column a block, the first column's mask is by w^2 / [H^-1]_11, twice the loss of OBS."""
    weight, x = made_up(8, 4, 0)
    method = SparseGPT(density=0.5, block=1, damping=0)
    hessian = method.gather(x)
    _, kept = method.pruned(weight, torch.ones_like(weight, dtype=torch.bool), hessian)
    losses = torch.tensor([surgeon(row, hessian, [0])[1][0] for row in weight])
    assert torch.equal(kept[:, 0], losses >= losses.sort(descending=True).values[3])


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4)])
def test_n_of_each_m_are_kept_in_each_row(n, m):
    weight, x = made_up(5, 16, 1)
    method = SparseGPT(n=n, m=m, block=8, damping=0)
    new, kept = method.pruned(weight, torch.ones_like(weight, dtype=torch.bool), method.gather(x))
    assert bool((kept.view(5, 4, m).sum(-1) == n).all())
    for i in range(5):
        assert torch.allclose(new[i], left_to_right(weight[i], method.gather(x), kept[i]), atol=1e-6)
    # Each run is chosen when its turn comes, from weights that have made up for what went before: slow and obvious.
    row, hessian = weight[0].double().clone(), method.gather(x).double()
    for start in range(0, 16, m):
        scores = []
        for j in range(start, start + m):
            scores.append(float(row[j] ** 2 / torch.linalg.inv(hessian[j:, j:])[0, 0]))
        best = {start + at for at in sorted(range(m), key=lambda at: -scores[at])[:n]}
        assert {start + int(at) for at in kept[0, start : start + m].nonzero()} == best
        mask = torch.ones(16, dtype=torch.bool)
        mask[[j for j in range(start, start + m) if j not in best]] = False
        row = left_to_right(row, hessian, mask)


def test_damping_silent_features_and_what_is_pruned_already():
    weight, x = made_up(4, 8, 2)
    x[:, 3] = 0
    method = SparseGPT(density=0.5)
    among = torch.ones_like(weight, dtype=torch.bool)
    among[:, 0] = False
    new, kept = method.pruned(weight * among, among, method.gather(x))
    assert int(kept.sum()) == 16 and not bool(kept[:, 0].any())
    assert not bool(new[:, 3].any()) and bool(new.isfinite().all())
    indefinite = torch.eye(8, dtype=torch.float64) - 0.5
    with pytest.raises(ModelError, match=r"layer\.weight do not say enough about 8 features.*raise damping, now 0"):
        SparseGPT(damping=0).pruned(weight, among, indefinite, "layer.weight")


def test_it_keeps_outputs_better_than_wanda_and_wanda_than_magnitude():
    lost = {}
    for seed, name in itertools.product(range(5), ("SparseGPT", "Wanda", "magnitude")):
        weight, x = made_up(32, 64, seed, 512)
        x *= torch.logspace(-1, 1, 64, dtype=torch.float64)  # features of unlike size: what magnitude does not see
        dense = torch.ones_like(weight, dtype=torch.bool)
        if name == "magnitude":
            masks = prune(layer := with_weight(weight), Masks.of(layer), 0.5)
            new = weight * masks["weight"]
        else:
            method = {"SparseGPT": SparseGPT, "Wanda": Wanda}[name](density=0.5)
            new, _ = method.pruned(weight, dense, method.gather(x))
        lost[name] = lost.get(name, 0) + float(((new - weight) @ x.T).square().mean())
    assert lost["SparseGPT"] < 0.8 * lost["Wanda"] and lost["Wanda"] < 0.8 * lost["magnitude"]


def with_weight(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


# ---- on networks -----------------------------------------------------------------------------------------------------


def trained():
    model = drawn(lambda: mlp(8, 32, 16, 4), 0)
    train(model, blobs(), Recipe(150))
    return model


def texts():
    rows = pack([(list(range(2, 2 + n)), 1) for n in (20, 15, 20, 17)], 20)
    return Texts(rows, rows, rows, batch_size=2)


@pytest.mark.parametrize("method", [SparseGPT(0.3), Wanda(0.3), SparseGPT(n=2, m=4), Wanda(n=2, m=4)], ids=str)
def test_a_trained_network_is_pruned_without_a_step(method):
    task = blobs()
    method = type(method)(**{**vars(method), "pretrain": 0, "exclude": ("4.*",)})
    found = method.run(trained, task, Recipe(10), seed=3)
    assert found.steps == 0
    assert found.masks.density == pytest.approx(0.5 if method.m else 0.3, abs=0.02)
    weights = dict(found.model.named_parameters())
    assert all(not bool(weights[name][~mask].any()) for name, mask in found.masks.items())
    assert "4.weight" not in found.masks
    assert task.evaluate(found.model, "test").score > 0.5  # chance is a quarter
    assert found.levels[0].masks == found.masks


def test_pretraining_is_counted():
    found = SparseGPT(0.5).run(lambda: mlp(8, 16, 4), blobs(), Recipe(12), seed=0)
    assert found.steps == 12
    assert SparseGPT(0.5, pretrain=5).run(lambda: mlp(8, 16, 4), blobs(), Recipe(12), seed=0).steps == 5


def test_same_seed_same_masks_and_calibration_follows_the_seed():
    runs = [SparseGPT(0.5, batches=1, pretrain=0).run(trained, blobs(), Recipe(1), seed=s).masks for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    fixed = [
        SparseGPT(0.5, batches=1, order=7, pretrain=0).run(trained, blobs(), Recipe(1), seed=s).masks for s in (0, 1)
    ]
    assert fixed[0] == fixed[1]


def test_convolutions_and_language_models_are_pruned_too():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 8, 8, generator=generator)

    class Images:
        def batch(self, order, step):
            return images

        def loss(self, model, batch):
            return model(batch).square().mean()

    model = drawn(lambda: conv_net((4, 4), size=8), 0).to(memory_format=torch.channels_last)
    masks = SparseGPT(0.5, batches=1).prune(model, Masks.of(model), Images())
    assert all(not bool(weight[~masks[name]].any()) for name, weight in masks.weights(model).items())
    assert masks.counts() == {"0.weight": 18, "2.weight": 72, "6.weight": 320}
    network = tiny_text.network("llama", 30)
    found = SparseGPT(n=2, m=4, batches=2).prune(network, Masks.of(network, ["lm_head*"]), texts())
    assert found.density == 0.5
    assert texts().evaluate(network, "test").loss < 100


@pytest.mark.parametrize("method", [SparseGPT(), Wanda(), SparseGPT(n=2, m=4)], ids=["SparseGPT", "Wanda", "2:4"])
def test_the_turned_layers_of_gpt2_are_pruned_as_linear_ones(method):
    turned, linear = Conv1D(6, 8), nn.Linear(8, 6)
    linear.weight.data = turned.weight.data.T.clone()
    task = blobs()
    new, same = (method.prune(model, Masks.of(model), task) for model in (turned, linear))
    assert torch.equal(new["weight"], same["weight"].T)
    assert torch.allclose(turned.weight, linear.weight.T, atol=1e-5)
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    assert method.prune(gpt2, Masks.of(gpt2), texts()).density == 0.5


def test_wanda_layer_by_layer_is_wanda_at_once_on_the_first_layer_only():
    model, other = trained(), trained()
    masks = Masks.of(model)
    task = blobs()
    once = prune(other, masks, 0.25, importance.Wanda(batches=4), Uniform(), InRows(), task)
    layered = Wanda(0.25, batches=4).prune(model, masks, task)
    assert torch.equal(layered["0.weight"], once["0.weight"])
    assert not torch.equal(layered["4.weight"], once["4.weight"]) or not torch.equal(
        layered["2.weight"], once["2.weight"]
    )
    assert torch.equal(model[0].weight, other[0].weight * once["0.weight"]), "survivors stay as they were"
    pairs = prune(other, masks, 0.5, importance.Wanda(batches=4), Uniform(), NofM(2, 4), task)
    model = trained()
    assert torch.equal(Wanda(n=2, m=4, batches=4).prune(model, masks, task)["0.weight"], pairs["0.weight"])


def test_settings_and_taxonomy():
    assert METHODS["sparse-gpt"] is SparseGPT and METHODS["wanda"] is Wanda
    assert SparseGPT().taxonomy.speedup == {"unstructured"}
    assert Wanda(n=2, m=4).taxonomy.speedup == {"semi_structured"}
    for wrong, says in [
        ({"density": 0.0}, "density = 0.0"),
        ({"density": 1.0}, "density = 1.0"),
        ({"n": 4, "m": 4}, "n, m"),
        ({"n": 2, "m": 3, "block": 128}, "a multiple of m = 3"),
        ({"damping": -1.0}, "damping"),
        ({"batches": 0}, "batches"),
        ({"pretrain": -1}, "pretrain"),
    ]:
        with pytest.raises(SettingError, match=says):
            SparseGPT(**wrong)
    model = mlp(6, 8, 4)
    with pytest.raises(SettingError, match=r"0\.weight has 6 inputs, which 4 does not divide; exclude it"):
        SparseGPT(n=2, m=4).prune(model, Masks.of(model), blobs(dimensions=6))
