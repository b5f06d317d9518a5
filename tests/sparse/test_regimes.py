"""The three regimes: their borders, the plane that is swept, and the inferred advice."""

import copy

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Evaluation, Masks, Recipe, prune, train
from prunus.sparse.connectivity import lmc
from prunus.sparse.methods import OneShot
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.regimes import Row, Temperature, advise, one_shot, regime, select, sweep, temperatures
from prunus.sparse.similarity import output_cka
from prunus.sparse.task import mixed_seed
from prunus.sparse.training import divided_by_ten

HOT, WARM, COLD = temperatures("steps", (300, 30, 100))


def build():
    return mlp(8, 16, 12, 4)


class Images:
    """Enough of a task for pruning without data."""

    example = torch.zeros(1, 1, 8, 8)

    def evaluate(self, model, split):
        return Evaluation(0.0, 0.0)


def row(temperature, error=0.1, lmc=0.0, cka=0.9, density=0.05):
    return Row(density, temperature, error, lmc, cka, steps=1)


def test_the_borders_of_the_regimes():
    assert [regime(-0.021, 1.0), regime(-0.02, 0.94), regime(0.3, 0.95)] == ["I", "II-A", "II-B"]
    assert regime(-0.021, 1.0, eps=0.03, cut=1.01) == "II-A"


def test_hotter_is_fewer_steps_smaller_batches_and_larger_rates():
    assert [t.value for t in (HOT, WARM, COLD)] == [30, 100, 300]
    assert [t.value for t in temperatures("batch_size", (64, 16))] == [16, 64]
    assert [t.value for t in temperatures("learning_rate", (0.01, 0.1))] == [0.1, 0.01]
    for knob, value in (("rho", 1), ("steps", 0), ("steps", 1.5)):
        with pytest.raises(SettingError):
            Temperature(knob, value)


def test_advice_raises_out_of_regime_one_and_else_lowers_until_it_no_longer_helps():
    assert advise([row(COLD, lmc=-0.1)], 0.05) == "raise"
    assert advise([row(COLD)], 0.05) == "lower"
    assert advise([row(WARM, 0.10), row(COLD, 0.08)], 0.05) == "lower"
    assert advise([row(COLD, 0.12), row(WARM, 0.10)], 0.05) == "keep"  # colder was tried and is worse
    assert advise([row(COLD, 0.08, lmc=-0.1), row(WARM, 0.10)], 0.05) == "keep"  # or not connected
    assert advise([row(WARM, 0.12), row(COLD, 0.1, lmc=-0.1)], 0.05) == "keep"  # so is hotter
    assert advise([row(WARM, 0.08), row(COLD, 0.1, lmc=-0.1)], 0.05) == "raise"
    found = [row(HOT, 0.10, cka=0.8), row(WARM, 0.10, cka=0.9), row(COLD, 0.12, cka=0.95)]
    assert [advise(found, 0.05, at=WARM), advise(found, 0.05, at=WARM, by="cka")] == ["keep", "lower"]


def test_models_with_a_barrier_are_not_chosen_and_of_the_rest_the_best_by_error_or_cka():
    found = [row(HOT, 0.10, -0.01, 0.80), row(WARM, 0.11, 0.0, 0.90), row(COLD, 0.05, -0.05, 0.99)]
    assert select(found, 0.05).temperature == HOT and select(found, 0.05, by="cka").temperature == WARM
    assert select([*found[2:], row(WARM, 0.2, -0.3)], 0.05).temperature == COLD  # the smallest barrier, if all have one
    two_seeds = [row(HOT, 0.10), row(HOT, 0.20), row(WARM, 0.14)]  # .15 in the mean
    assert select(two_seeds, 0.05).temperature == WARM
    with pytest.raises(SettingError, match=r"there are \[0.05\]"):
        select(found, 0.1)
    with pytest.raises(SettingError, match="was not tried"):
        advise(found[:1], 0.05, at=COLD)
    with pytest.raises(SettingError, match="error or cka"):
        select(found, 0.05, by="loss")


def test_a_cut_schedule_is_the_beginning_of_the_whole_and_rows_are_what_they_say():
    task, recipe = blobs(), Recipe.sgd(40, 0.1, divided_by_ten)
    rows = sweep(build, task, recipe, temperatures("steps", (40, 25)), (0.1, 0.5), (1, 2), retrain=Recipe(15, 0.01))
    assert [(r.temperature.value, r.density) for r in rows] == [(25, 0.1), (25, 0.5), (40, 0.1), (40, 0.5)]
    assert [r.steps for r in rows] == [25 + 30, 25 + 30, 40 + 30, 40 + 30]
    for r in rows:  # each by itself, the slow way
        dense = drawn(build, 0)
        train(dense, task, recipe, stop=int(r.temperature.value))
        masks = prune(dense, Masks.of(dense, ["4.weight"]), r.density)
        masks.apply(dense)
        networks = [copy.deepcopy(dense), copy.deepcopy(dense)]
        for seed, network in zip((1, 2), networks):
            train(network, task, Recipe(15, 0.01), order=mixed_seed(0, 1, seed), masks=masks)
        errors = [1 - task.evaluate(network, "validation").score for network in networks]
        assert r.error == pytest.approx(sum(errors) / 2)
        assert r.lmc == pytest.approx(lmc(*networks, task).value) and -1 <= r.lmc <= 1
        assert r.cka == pytest.approx(output_cka(*networks, task.train[0]))
    assert rows[0].as_dict()["knob"] == "steps" and rows[0].as_dict()["temperature"] == 25


@pytest.mark.parametrize(("knob", "values"), [("batch_size", (10, 40)), ("learning_rate", (0.3, 0.01))])
def test_the_other_knobs_change_the_dense_network_alone(knob, values):
    task, recipe = blobs(), Recipe.sgd(10, 0.05)
    rows = sweep(build, task, recipe, temperatures(knob, values), (0.2,), retrain=Recipe(5, 0.01))
    assert [r.temperature.value for r in rows] == list(values) and rows[0].error != rows[1].error
    assert [r.steps for r in rows] == [20, 20]


def test_any_method_that_starts_from_a_trained_network_can_be_diagnosed():
    seen = []

    def method(density):
        seen.append(density)
        return OneShot(density, retrain="finetune", finetune_steps=3, pretrain=0)

    (found,) = sweep(build, blobs(), Recipe(10, 0.01), [Temperature("steps", 4)], (0.3,), (1, 2, 3), method=method)
    assert seen == [0.3] and found.steps == 4 + 3 + 3 * 10


def test_by_default_a_convolution_keeps_the_cards_count_and_the_output_layer_is_spared():
    network = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 10))
    method = one_shot(Masks.of(network))(0.1)
    found = method.run(lambda: network, Images(), Recipe(1))
    assert found.masks.counts() == {"0.weight": 230} and found.steps == 0  # 2304 - round(.9 * 2304)


def test_settings_of_a_sweep_are_checked():
    task, recipe = blobs(), Recipe(10, 0.01)
    with pytest.raises(SettingError, match="two or more that differ"):
        sweep(build, task, recipe, [HOT], (0.3,), retrain_seeds=(1, 1))
    with pytest.raises(SettingError, match="all of one knob"):
        sweep(build, task, recipe, [HOT, Temperature("batch_size", 4)], (0.3,))
    with pytest.raises(SettingError, match="its schedule is cut there"):
        sweep(build, task, recipe, [Temperature("steps", 11)], (0.3,))

    class Other:
        example = torch.zeros(1, 8)

    with pytest.raises(SettingError, match="give inputs: a Other"):
        sweep(build, Other(), recipe, [Temperature("steps", 4)], (0.3,))
