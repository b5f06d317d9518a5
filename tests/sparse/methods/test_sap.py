"""SAP: exact counts in each scope, monotone masks, validation that chooses."""

import pytest
import torch
from small_networks import blobs, with_weights

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe, prune
from prunus.sparse.methods import SAP
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.pq_index import PQIndex

ROWS = [[8, 0.5, 0.25, 0.25], [1, 1, 1, 1], [1, 0, 0, 0]]


def weights(model):
    return {n: w.data for n, w in model.named_parameters() if "weight" in n}


def test_a_row_loses_what_its_index_says():
    model = with_weights(ROWS)
    masks, read = SAP(scope="neuron", beta=0.5).prune(weights(model), Masks.of(model))
    assert read.pruned["0.weight"].tolist() == [1, 0, 2]  # .25, 0 and .75 clipped at .5 of four
    assert masks["0.weight"].tolist() == [[True, True, True, False], [True] * 4, [True, True, False, False]]


@pytest.mark.parametrize("scope", ["neuron", "layer", "global"])
def test_masks_shrink_by_exactly_the_counts(scope):
    model = drawn(lambda: mlp(64, 40, 4), 0)  # rows of a few weights could lose none: r is rounded up
    masks, method = Masks.of(model), SAP(scope=scope, gamma=2.0)
    for _ in range(4):
        new, read = method.prune(weights(model), masks)
        assert new.within(masks)
        assert masks.kept - new.kept == sum(int(c.sum()) for c in read.pruned.values()) > 0
        if scope == "layer":
            for name in masks:
                assert int(masks[name].sum() - new[name].sum()) == int(read.pruned[name])
        masks = new


@pytest.mark.parametrize("over", ["layer", "global"])
def test_as_an_allocation_the_index_composes_with_any_pruning(over):
    model = drawn(lambda: mlp(8, 20, 4), 0)
    masks = Masks.of(model)
    expected, _ = SAP(scope=over, gamma=1.5).prune(weights(model), masks)
    assert prune(model, masks, 1.0, allocation=PQIndex(gamma=1.5, over=over)) == expected


def test_layer_counts_are_the_formula_by_hand():
    model = drawn(lambda: mlp(8, 20, 4), 0)
    _, read = SAP().prune(weights(model), Masks.of(model))
    for name, w in weights(model).items():
        root = w.double().abs().sqrt().mean() ** 2
        i = 1 - float(root / w.double().abs().mean())
        assert float(read.index[name]) == pytest.approx(i, abs=1e-6)
        d = w.numel()
        r = d * (1 - i)
        assert int(read.pruned[name]) == int(d * min(0.9, 1 - -(-r // 1) / d) + 1e-9)


def test_it_resets_prunes_and_keeps_the_best_state_on_validation():
    task = blobs()
    found = SAP(rounds=3, gamma=2.0).run(lambda: mlp(8, 20, 4), task, Recipe(40, 0.01), seed=1)
    assert found.steps == 160 and len(found.levels) == 4 and len(found.statistics) == 3
    densities = [level.density for level in found.levels]
    assert densities[0] == 1 and densities == sorted(densities, reverse=True) and densities[-1] < 0.75
    assert found.masks == found.levels[-1].masks
    assert task.evaluate(found.model, "validation") == found.levels[-1].validation
    for name, weight in found.masks.weights(found.model).items():
        assert bool((weight[~found.masks[name]] == 0).all())
    assert 0 < found.statistics[0].mean_index < 1


def test_with_a_density_it_ends_exactly_there():
    task, recipe, build = blobs(), Recipe(40, 0.01), lambda: mlp(8, 20, 4)
    free = SAP(rounds=3, gamma=2.0).run(build, task, recipe, seed=1)
    between = (free.levels[1].density + free.levels[2].density) / 2
    found = SAP(rounds=3, gamma=2.0, density=between).run(build, task, recipe, seed=1)
    assert found.masks.kept == round(between * found.masks.total) and found.steps == 120
    assert free.levels[2].masks.within(found.masks) and found.masks.within(free.levels[1].masks)
    slow = SAP(rounds=1, density=0.1).run(build, task, recipe, seed=1)
    assert slow.masks.kept == round(0.1 * slow.masks.total) and slow.steps == 80
    # What the index gave up and is kept all the same is larger than what went.
    model = drawn(build, 1)
    masks, new = Masks.of(model), SAP(gamma=4.0, density=0.7).prune(weights(model), Masks.of(model))[0]
    cut = SAP(gamma=4.0).prune(weights(model), masks)[0]
    back = torch.cat([w[new[n] & ~cut[n]].abs() for n, w in weights(model).items()])
    gone = torch.cat([w[~new[n]].abs() for n, w in weights(model).items()])
    assert len(back) and float(back.min()) >= float(gone.max())


def test_settings_are_checked():
    for wrong in (
        {"scope": "row"},
        {"p": 2.0},
        {"eta": -1},
        {"gamma": 0},
        {"beta": 1.0},
        {"rounds": 0},
        {"density": 1.0},
    ):
        with pytest.raises(SettingError):
            SAP(**wrong)
    assert torch.is_tensor(SAP().prune({"w": torch.ones(2, 2)}, Masks({"w": torch.ones(2, 2).bool()}))[1].index["w"])
