"""Units removed for good: how many stay, and that what stays is the masked network."""

from dataclasses import replace

import pytest
import torch
from small_networks import blobs

from prunus.errors import ModelError, SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.allocation import Global
from prunus.sparse.importance import SNIP, Random
from prunus.sparse.macs import macs
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import channels


def build():
    return mlp(8, 32, 32, 4)  # 256 + 1024 + 128 MACs


def method(**settings):
    task = blobs()
    hidden = lambda masks: channels(masks, ["0.*", "2.*"], "norm")  # noqa: E731
    return RemoveUnits(hidden, lambda model, masks: remove_channels(model, masks, task.example), **settings)


def widths(model):
    return [layer.out_features for layer in model if hasattr(layer, "out_features")]


def test_every_layer_keeps_the_same_number_and_never_more_than_asked():
    model = drawn(build, 0)
    assert widths(method(density=0.5).smaller(model, blobs())) == [16, 16, 4]
    assert widths(method(density=0.49).smaller(model, blobs())) == [15, 15, 4]
    assert widths(method(density=0.7, round_to=8).smaller(model, blobs())) == [16, 16, 4]
    # n (8 + n + 4) <= 0.5 * 1408: n = 21 has 693 multiply-adds, 22 has 748
    half = method(macs=0.5).smaller(model, blobs())
    assert widths(half) == [21, 21, 4] and macs(half, blobs().example) == 693


def test_a_share_that_was_worked_out_is_met_exactly():
    for width in range(1, 32):  # of one that was pruned to this width
        share = (width * (8 + width + 4)) / 1408
        assert widths(method(macs=share).smaller(drawn(build, 0), blobs())) == [width, width, 4]


def test_numbers_that_the_format_cannot_say_are_passed_over():
    task, model = blobs(), drawn(build, 0)

    def only_fives(model, masks):
        if int(masks["0.weight"].any(1).sum()) % 5:
            raise ModelError("widths must be multiples of 5")
        return remove_channels(model, masks, task.example)

    able = replace(method(macs=0.5), remove=only_fives)
    assert widths(able.smaller(model, task)) == [20, 20, 4]
    assert widths(replace(able, macs=None, density=0.5).smaller(model, task)) == [15, 15, 4]
    with pytest.raises(ModelError, match="multiples of 5"):
        replace(able, macs=None, density=0.1).smaller(model, task)


def test_global_ranking_may_keep_more_of_one_layer():
    model = drawn(build, 0)
    model[0].weight.data *= 10
    found = method(density=0.5, allocation=Global()).smaller(model, blobs())
    assert widths(found) == [31, 1, 4]  # each layer keeps at least one


def test_the_smaller_network_is_the_masked_one_and_its_steps_are_counted():
    model = drawn(build, 0)
    for layer in (model[0], model[2]):
        layer.bias.data.zero_()  # masked rows still have their bias
    one = method(density=0.5, importance=SNIP())
    units, masks = one.units(Masks.of(model)), Masks.of(model)
    kept = one.kept(units, one.importance.scores(model, masks, blobs()), masks, 32)
    with kept.virtual(model):
        expected = model(blobs().test[0])
    assert torch.allclose(one.smaller(model, blobs())(blobs().test[0]), expected, atol=1e-6)
    recipe = Recipe(5, 0.01)
    assert method(density=0.5).run(build, blobs(), recipe).steps == 10
    assert method(density=0.5, at="init").run(build, blobs(), recipe).steps == 5
    assert method(density=0.5, pretrain=0, tune=False).run(build, blobs(), recipe).steps == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingError, match="by one"):
        method()
    with pytest.raises(SettingError, match="by one"):
        method(density=0.5, macs=0.5)
    with pytest.raises(SettingError, match="above 0 and below 1"):
        method(macs=1.0)
    with pytest.raises(SettingError, match="enough for 2 of the 64 units"):
        method(density=0.02).smaller(drawn(build, 0), blobs())
    with pytest.raises(SettingError, match="leave more than macs"):
        method(macs=0.005).smaller(drawn(build, 0), blobs())


def test_the_taxonomy_follows_from_the_parts():
    assert method(density=0.5).taxonomy.when == "after_training" and method(density=0.5).taxonomy.universal
    early = method(density=0.5, at="init", importance=Random(), allocation=Global(), granularity="H").taxonomy
    assert (early.when, early.scope, early.granularity) == ("before_training", "global", {"H"})
