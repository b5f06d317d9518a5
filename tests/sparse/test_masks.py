"""Masks: what they are of, how they act on a model, and how they are kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_networks import with_weights
from torch import nn
from torch.nn.utils import prune as torch_prune

from prunus.errors import FileError, ModelError, SettingError
from prunus.sparse import Masks, prunable
from prunus.sparse.networks import mlp, residual_mlp
from prunus.sparse.torch_prune import from_torch_prune, to_torch_prune


def half(model):
    """Masks that keep every second weight."""
    return Masks({n: torch.arange(m.numel()).remainder(2).bool().view(m.shape) for n, m in Masks.of(model).items()})


def test_weights_are_prunable_biases_norms_and_embeddings_are_not():
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 4),
            "norm": nn.LayerNorm((2, 4)),
            "attention": nn.MultiheadAttention(4, 2),
            "conv": nn.Conv2d(1, 2, 3),
            "head": nn.Linear(4, 5),
        }
    )
    assert set(prunable(model)) == {
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "conv.weight",
        "head.weight",
    }
    assert set(Masks.of(model, exclude=["attention.*", "head.weight"])) == {"conv.weight"}


def test_a_head_that_is_tied_to_an_embedding_is_not_pruned():
    model = nn.ModuleDict({"head": nn.Linear(4, 5, bias=False), "body": nn.Linear(4, 4), "embed": nn.Embedding(5, 4)})
    model["head"].weight = model["embed"].weight
    assert set(prunable(model)) == {"body.weight"}


def test_a_pattern_that_matches_nothing_and_a_model_without_weights_are_errors():
    with pytest.raises(SettingError, match=r"'fc9\.\*' matches none.*0\.weight"):
        Masks.of(mlp(4, 2), exclude=["fc9.*"])
    with pytest.raises(SettingError, match="nothing to prune"):
        Masks.of(nn.LayerNorm(4))


def test_counts_and_densities():
    masks = Masks({"a": torch.tensor([[True, False], [True, True]]), "b": torch.zeros(4, 4, dtype=torch.bool)})
    assert (masks.kept, masks.total, masks.density) == (3, 20, 0.15)
    assert masks.densities() == {"a": 0.75, "b": 0.0} and masks.counts() == {"a": 3, "b": 0}
    assert "3 of 20 kept" in repr(masks)


def test_a_mask_must_be_bool_and_changes_must_fit():
    with pytest.raises(SettingError, match="bool"):
        Masks({"a": torch.ones(2)})
    masks = Masks({"a": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(SettingError, match="no such weight"):
        masks.changed({"b": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(SettingError, match=r"\(3,\)"):
        masks.changed({"a": torch.ones(3, dtype=torch.bool)})


def test_masks_of_another_model_are_refused():
    with pytest.raises(ModelError, match=r"shape \(3, 4\).*\(5, 4\)"):
        Masks.of(mlp(4, 3)).apply(mlp(4, 5))
    with pytest.raises(ModelError, match=r"'2\.weight'"):
        Masks.of(mlp(4, 3, 2)).apply(mlp(4, 3))


def test_apply_zeroes_pruned_weights_and_nothing_else():
    model = mlp(4, 3, 2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = half(model)
    masks.apply(model)
    for name, p in model.named_parameters():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(p, expected)


def test_virtual_masks_give_the_exact_values_back():
    model = mlp(4, 3, 2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = half(model)
    with masks.virtual(model):
        assert all(bool((p[~masks[n]] == 0).all()) for n, p in masks.weights(model).items())
        with torch.no_grad():
            model[0].weight[masks["0.weight"]] += 1  # what is kept may be trained meanwhile
    for name, p in masks.weights(model).items():
        assert torch.equal(p[~masks[name]], before[name][~masks[name]])
    assert torch.equal(model[0].weight[masks["0.weight"]], before["0.weight"][masks["0.weight"]] + 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 9))
def test_a_shuffle_keeps_counts(values, seed):
    masks = Masks({"a": torch.tensor(values), "b": torch.ones(3, dtype=torch.bool)})
    assert masks.shuffled(seed).counts() == masks.counts()
    assert masks.shuffled(seed) == masks.shuffled(seed)


def test_shuffles_differ_by_seed_and_from_the_mask():
    masks = Masks({"a": torch.arange(100) < 30})
    assert masks.shuffled(0) != masks.shuffled(1) != masks


def test_within_and_overlap():
    a = Masks({"w": torch.tensor([True, True, False, False])})
    b = Masks({"w": torch.tensor([False, True, True, False])})
    assert a.overlap(b) == 1 / 3 and not a.within(b)
    assert a.changed({"w": a["w"] & b["w"]}).within(a)


def test_a_file_comes_back_the_same(tmp_path):
    model = residual_mlp(6, 4, 2, 3)
    masks = half(model)
    masks.save(tmp_path / "deep" / "masks.safetensors", {"method": "none"})
    assert Masks.load(tmp_path / "deep" / "masks.safetensors", model) == masks
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["masks.safetensors"]


def test_a_file_that_is_missing_damaged_or_something_else_says_so(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        Masks.load(tmp_path / "nowhere")
    save_file({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(FileError, match="holds no masks"):
        Masks.load(tmp_path / "weights.safetensors")
    (tmp_path / "torn").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(FileError, match="cannot be read as masks"):
        Masks.load(tmp_path / "torn")
    half(mlp(4, 2)).save(tmp_path / "masks")
    with pytest.raises(ModelError, match="another model"):
        Masks.load(tmp_path / "masks", mlp(5, 2))
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot save"):
        half(mlp(4, 2)).save(tmp_path / "file" / "masks")


def test_to_and_from_torchs_own_pruning():
    model, plain = mlp(4, 3, 2), mlp(4, 3, 2)
    plain.load_state_dict(model.state_dict())
    masks = half(model)
    to_torch_prune(masks, model)
    assert from_torch_prune(model) == masks
    masks.apply(plain)
    x = torch.randn(5, 4)
    assert torch.equal(model(x), plain(x))
    for layer in (model[0], model[2]):
        torch_prune.remove(layer, "weight")
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_masks_that_torch_chose_and_a_model_without():
    model = with_weights([[1.0, -2.0], [0.5, 1.0]], [[3.0, -1.0]])
    torch_prune.l1_unstructured(model[0], "weight", amount=2)
    masks = from_torch_prune(model)
    assert masks["0.weight"].sum() == 2 and masks["0.weight"][0, 1] and masks["2.weight"].all()
    with pytest.raises(ModelError, match="no module"):
        from_torch_prune(mlp(4, 2))
