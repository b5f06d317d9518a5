"""One-shot pruning: what is scored when, and the steps that are counted."""

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe, train
from prunus.sparse.importance import SNIP, Magnitude, Random, SynFlow
from prunus.sparse.methods import METHODS, OneShot
from prunus.sparse.networks import drawn, mlp

RECIPE = Recipe(20, 0.01)


def build():
    return mlp(8, 12, 4)


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        (OneShot(0.3), 40),
        (OneShot(0.3, finetune_steps=5), 25),
        (OneShot(0.3, retrain="rewind"), 40),
        (OneShot(0.3, retrain="none"), 20),
        (OneShot(0.3, SNIP(), at="init"), 20),
        (OneShot(0.3, SynFlow(), at="init", rounds=10), 20),
        (OneShot(0.3, Random(1), at="init"), 20),
    ],
)
def test_all_gradient_steps_are_counted_and_the_density_is_exact(method, steps):
    found = method.run(build, blobs(), RECIPE)
    assert found.steps == found.levels[-1].steps == steps and found.masks.kept == round(0.3 * 144)
    assert all(bool((w[~found.masks[n]] == 0).all()) for n, w in found.masks.weights(found.model).items())


def test_magnitude_reads_trained_weights_or_initial_ones():
    task, model = blobs(), drawn(build, 4)
    at_init = OneShot(0.3, Magnitude(), at="init").run(build, task, RECIPE, seed=4).masks
    largest = torch.cat([w.detach().abs().flatten() for n, w in model.named_parameters() if "weight" in n])
    threshold = largest.sort(descending=True).values[at_init.kept - 1]
    assert all(torch.equal(at_init[n], w.abs() >= threshold) for n, w in at_init.weights(model).items())
    train(model, task, RECIPE, order=4)
    trained = OneShot(0.3, retrain="none").run(build, task, RECIPE, seed=4).masks
    assert trained != at_init
    largest = torch.cat([w.detach().abs().flatten() for n, w in model.named_parameters() if "weight" in n])
    threshold = largest.sort(descending=True).values[trained.kept - 1]
    assert all(torch.equal(trained[n], w.abs() >= threshold) for n, w in trained.weights(model).items())


def test_every_method_of_the_table_has_a_card_and_runs():
    settings = {
        "gmp": {"update_every": 5},
        "granet": {"update_every": 5},
        "imp-rewinding": {"rounds": 1, "rewind_to": 3},
        "lottery-ticket": {"rounds": 1},
        "rigl": {"update_every": 5},
        "sap": {"rounds": 1},
        "set": {"update_every": 5},
    }
    for name, method in METHODS.items():
        if name in ("layer-lottery", "consensus"):
            continue  # needs blocks
        made = method(**settings.get(name, {}))
        assert made.taxonomy.paper and made.run(build, blobs(), RECIPE).steps >= 20


def test_settings_are_checked():
    for wrong in ({"density": 1.0}, {"at": "x"}, {"retrain": "x"}, {"finetune_rate": 0}, {"rounds": 0}):
        with pytest.raises(SettingError):
            OneShot(**wrong)
