"""Scopes: N of M, channels, heads, layers."""

import pytest
import torch
from small_networks import with_weights
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Masks, prune
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.networks import drawn, mlp, residual_mlp
from prunus.sparse.scope import InRows, NofM, channels, heads, layers


def test_two_of_four_keeps_the_cards_weights():
    model = with_weights([[0.5, -1, 0.2, 0.1, 2, 0.1, -0.3, 0.4]])
    masks = prune(model, Masks.of(model), 0.5, scope=NofM(2, 4))
    assert masks["0.weight"].nonzero()[:, 1].tolist() == [0, 1, 4, 7]


def test_n_of_m_holds_in_each_run_of_a_convolution_and_of_equal_weights():
    conv = nn.Sequential(nn.Conv2d(4, 3, 3))
    masks = prune(conv, Masks.of(conv), 0.25, scope=NofM(1, 4))["0.weight"]
    assert (masks.reshape(-1, 4).sum(-1) == 1).all()
    conv[0].weight.data.fill_(0.5)
    equal = prune(conv, Masks.of(conv), 0.5, scope=NofM(2, 4))["0.weight"].reshape(-1, 4)
    assert (equal == torch.tensor([True, True, False, False])).all()


def test_n_of_m_refuses_what_it_cannot_divide():
    model = mlp(6, 2)
    with pytest.raises(SettingError, match=r"0\.weight has 6 inputs.*exclude"):
        prune(model, Masks.of(model), 0.5, scope=NofM(2, 4))
    with pytest.raises(SettingError, match="n kept of m"):
        NofM(4, 4)


def test_rows_keep_the_same_number_each_and_never_grow():
    model = drawn(lambda: mlp(8, 5, 3), 0)
    first = prune(model, Masks.of(model), 0.5, scope=InRows())
    second = prune(model, first, 0.25, scope=InRows())
    assert second.within(first) and (second["0.weight"].sum(-1) == 2).all()
    with pytest.raises(SettingError, match="rows cannot compete"):
        prune(model, first, 0.25, allocation=Global(), scope=InRows())


def test_channels_go_whole_by_their_reduced_score():
    model = with_weights([[3, 0.1], [1, 1], [0, 2.5]], [[1, 1, 1]])
    masks = Masks.of(model)
    by_sum = prune(model, masks, 2 / 3, scope=channels(masks, ["0.*"]))
    assert by_sum["0.weight"].tolist() == [[True, True], [False, False], [True, True]]
    by_norm = prune(model, masks, 1 / 3, scope=channels(masks, ["0.*"], reduce="norm"))
    assert by_norm["0.weight"].any(-1).tolist() == [True, False, False]
    assert by_norm["2.weight"].all()  # in no unit


def test_channels_of_all_layers_can_compete_and_none_is_emptied():
    model = with_weights([[9.0, 9.0], [8.0, 8.0]], [[0.1, 0.1], [0.2, 0.1]])
    masks = Masks.of(model)
    kept = prune(model, masks, 0.75, allocation=Global(), scope=channels(masks))
    assert kept["0.weight"].all() and kept["2.weight"].any(-1).tolist() == [False, True]
    least = prune(model, masks, 0.5, allocation=Global(), scope=channels(masks))
    assert least["0.weight"].any(-1).tolist() == [True, False] and least["2.weight"].any(-1).tolist() == [False, True]


def test_a_head_is_rows_of_query_key_value_and_columns_of_the_output():
    model = nn.ModuleDict({n: nn.Linear(6, 6, bias=False) for n in "qkvo"})
    masks = Masks.of(model)
    for name, layer in model.items():
        layer.weight.data.fill_(1.0)
        part = layer.weight.data[:, 2:4] if name == "o" else layer.weight.data[2:4]
        part.fill_(0.1)
    scope = heads({"attention": (["q.weight", "k.weight", "v.weight"], "o.weight")}, masks, width=2)
    kept = prune(model, masks, 2 / 3, scope=scope)
    for name in "qkv":
        assert kept[f"{name}.weight"].any(-1).tolist() == [True, True, False, False, True, True]
    assert kept["o.weight"].any(0).tolist() == [True, True, False, False, True, True]
    shared = Masks({**masks, "k.weight": masks["k.weight"][:2]})
    with pytest.raises(SettingError, match="share keys"):
        heads({"attention": (["q.weight", "k.weight"], "o.weight")}, shared, width=2)
    with pytest.raises(SettingError, match="divisor of 6"):
        heads({"attention": (["q.weight"], "o.weight")}, masks, width=4)


def test_layers_compete_as_wholes():
    model = drawn(lambda: residual_mlp(8, 6, 4, 3), 0)
    for weight in model.blocks[2].parameters():
        weight.data.mul_(0.1)
    masks = Masks.of(model)
    kept = prune(model, masks, 0.75, allocation=Uniform(), scope=layers(masks, [f"blocks.{i}" for i in range(4)]))
    assert not kept["blocks.2.first.weight"].any() and not kept["blocks.2.second.weight"].any()
    assert kept.kept == masks.total - 72
    with pytest.raises(SettingError, match=r"blocks\.9"):
        layers(masks, ["blocks.9"])
