"""Lottery jackpots: the card's swaps, conserved counts, frozen weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import blobs
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.methods import Jackpots, OneShot
from prunus.sparse.methods.jackpots import short, swapped
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.rewind import snapshot


def build():
    return mlp(8, 30, 20, 4)


def swap(scores, mask, share=1.0):
    return swapped({"w": torch.tensor(scores)}, Masks({"w": torch.tensor(mask).bool()}), share)["w"].int().tolist()


def test_the_cards_swap():
    assert swap([1, 1, 0.995, 0.99, 0.99, 1.02], [1, 1, 1, 0, 0, 0]) == [1, 1, 0, 0, 0, 1]


def test_a_share_of_the_swaps_takes_the_most_distant_first_and_never_none():
    scores, mask = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7], [1, 1, 1, 0, 0, 0]
    assert swap(scores, mask, 1.0) == [0, 0, 0, 1, 1, 1]
    assert swap(scores, mask, 0.5) == [0, 0, 1, 1, 1, 0]  # ceil(1.5)
    assert swap(scores, mask, 0.01) == [0, 1, 1, 1, 0, 0]
    assert swap(scores, mask, 0.0) == mask


def test_entries_that_tie_with_the_threshold_stay():
    assert swap([1.0] * 6, [0, 1, 0, 1, 0, 1]) == [0, 1, 0, 1, 0, 1]
    assert swap([1, 1, 1, 1.5], [1, 1, 0, 0]) == [0, 1, 0, 1]  # two could go, one wants in: the first of equals goes
    assert swap([1, 2], [1, 1]) == [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_swaps_are_those_of_the_slow_reference(entries, share):
    scores, mask = [e[0] for e in entries], [int(e[1]) for e in entries]
    n = mask.count(0)
    expected = list(mask)
    if n:
        threshold = sorted(scores)[n - 1]
        grow = sorted((-s, i) for i, s in enumerate(scores) if not mask[i] and s > threshold)
        drop = sorted((s, i) for i, s in enumerate(scores) if mask[i] and s <= threshold)
        count = min(len(grow), len(drop))
        assert count == len(grow)  # never more want in than may go
        for (_, up), (_, down) in list(zip(grow, drop))[: math.ceil(share * count - 1e-9)]:
            expected[up], expected[down] = 1, 0
    found = swap(scores, mask, share)
    assert found == expected and sum(found) == sum(mask)
    if share == 1:
        kept = sorted((s for s, m in zip(scores, found) if m), reverse=True)
        assert kept == sorted(scores, reverse=True)[: sum(mask)]  # the top k


def test_the_restriction_is_of_the_count():
    assert short(0) == 1 and short(1) == 0 and short(15 / 30) == 0.0625
    assert [math.ceil((1 - e / 30) ** 4) for e in range(30)] == [1] * 30  # what the code computes: no restriction
    scores, mask = [0.0] * 40 + [1.0] * 40, [1] * 40 + [0] * 40
    assert sum(swap(scores, mask, short(0.5))[40:]) == 3  # ceil(.0625 * 40)


def trained(seed=0, net=build):
    model = drawn(net, seed)
    train(model, blobs(), Recipe(40, 0.01), order=seed)
    return model


def test_the_search_leaves_the_weights_as_they_were_and_every_layer_its_count():
    model, method = trained(), Jackpots(0.2)
    before, start = snapshot(model), method.first_masks(model)
    found = method.search(model, blobs(), start, 40)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.counts() == start.counts() and found != start
    assert all(p.requires_grad for p in model.parameters())


def test_it_starts_at_the_magnitude_mask_with_a_gap():
    model = trained()
    for rates in ("global", "uniform"):
        method = Jackpots(0.2, rates=rates, score_gap=0.05)
        masks = method.first_masks(model)
        weights = masks.weights(model)
        assert all(
            (weights[n][m].abs().min() >= weights[n][~m].abs().max()) if bool((~m).any()) else True
            for n, m in masks.items()
        )
        assert masks.kept == round(0.2 * masks.total)
        scores = method.first_scores(masks)
        assert all(torch.equal(s, torch.where(masks[n], 1.0, 0.95)) for n, s in scores.items())
        at_random = Jackpots(0.2, rates=rates, init="random").first_masks(model, seed=1)
        assert at_random.counts() == masks.counts() and at_random != masks
    even = Jackpots(0.2, rates="uniform").first_masks(model)
    assert even.densities() == pytest.approx(dict.fromkeys(even, 0.2), abs=0.01)


def test_searched_masks_are_better_than_the_magnitude_mask_and_the_result_has_its_weights():
    task, recipe = blobs(), Recipe(40, 0.01)
    found = Jackpots(0.15, search_steps=60).run(build, task, recipe, seed=0)
    shot = OneShot(0.15, retrain="none").run(build, task, recipe, seed=0)
    assert found.steps == 100 and found.masks.counts() == shot.masks.counts()
    assert found.levels[-1].validation.loss < 0.8 * shot.levels[-1].validation.loss
    dense = trained()
    for name, weight in found.masks.weights(found.model).items():
        kept = dense.get_parameter(name).masked_fill(~found.masks[name], 0)
        assert torch.equal(weight, kept)


def test_fewer_swaps_late_under_the_restriction():
    model, task = trained(), blobs()

    def swaps(restrict):
        seen = []

        def watched(progress):
            seen.append(progress)
            return restrict(progress) if restrict else 1.0

        masks = Jackpots(0.2, restrict=watched).search(model, task, Jackpots(0.2).first_masks(model), 10)
        assert seen == [i / 10 for i in range(10)]
        return masks

    assert swaps(short) != swaps(None)
    free = Jackpots.published(0.2)
    assert free.restrict is None and free.search(model, task, free.first_masks(model), 10) == swaps(None)


def test_batch_norms_keep_their_parameters_and_get_the_pruned_networks_statistics():
    def net():
        return nn.Sequential(nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4))

    method = Jackpots(0.2, exclude=("3.*",))
    dense, found = trained(net=net), method.run(net, blobs(), Recipe(40, 0.01))
    assert list(found.masks) == ["0.weight"] and torch.equal(found.model[1].weight, dense[1].weight)
    assert torch.equal(found.model[3].weight, dense[3].weight)
    assert not torch.equal(found.model[1].running_mean, dense[1].running_mean)


def test_fine_tuning_moves_the_kept_weights():
    found = Jackpots(0.2, search_steps=5, finetune_steps=20, finetune_rate=1.0).run(build, blobs(), Recipe(20, 0.01))
    assert [level.steps for level in found.levels] == [25, 45] and found.steps == 45
    assert found.levels[1].validation.loss < found.levels[0].validation.loss
    assert Jackpots(finetune_steps=1).taxonomy.retrain == "finetune"


@pytest.mark.parametrize(
    "wrong",
    [{"density": 0.0}, {"rates": "x"}, {"init": "snip"}, {"score_gap": 2}, {"search_steps": 0}, {"learning_rate": 0},
     {"momentum": 1}, {"weight_decay": -1}, {"pretrain": -1}, {"finetune_steps": -1}, {"finetune_rate": 0}],
)  # fmt: skip
def test_settings_are_checked(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Jackpots(**wrong)
